"""The programs that are attacked, each with two workers, and their upstreams."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import run
import sessions
import websockets as websocket_bench
from authproxy_devprovider.config import ProviderConfig
from authproxy_devprovider.provider import DevProvider, serve
from flood_kinds.kinds import Variant
from support.certificates import Certificate, make_certificate
from support.http import Client
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.programs import find

WORKERS = 2
SESSIONS = 200  # in rotation
LARGE = 50 << 20  # bytes of a download
DISK = "256k"  # size of the file system for logs
ATTACK_SOURCE, OTHER_SOURCE = "127.0.0.2", LOOPBACK
PYTHONPATH = os.pathsep.join(
    str(run.ROOT / part) for part in ("core", "server", "tests", "bench")
)
OPTIONS = """\
skip_auth_routes = ["^/public/"]
whitelist_domains = ["app.example.com"]
"""
OWN_OPTIONS = "workers = 2\n"
NGINX = """\
{user} worker_processes 2; pid nginx.pid; error_log stderr error; worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{ access_log {log}; client_body_temp_path b; proxy_temp_path p;
fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
large_client_header_buffers 4 64k; keepalive_requests 100000000; client_max_body_size 0;
server {{ {listen} root {root};
location = /ping {{ return 200 "OK"; }}
location /oauth2/auth {{ return 202; }}
location /public/ {{ proxy_pass http://127.0.0.1:{app}; proxy_http_version 1.1;
proxy_request_buffering off; }}
location /socket/ {{ proxy_pass http://127.0.0.1:{echo}; proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}
location / {{ return 403; }} }} }}
"""
APP = """\
{user} worker_processes 1; pid app.pid; error_log stderr error; worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
uwsgi_temp_path u; scgi_temp_path s; client_max_body_size 0;
keepalive_requests 100000000;
server {{ listen 127.0.0.1:{port}; root {root};
location = /public/large {{ alias {root}/large; }}
location / {{ return 200 "ok"; }} }} }}
"""


class Target(NamedTuple):
    """A running program: where to attack it and where to check it."""

    pid: int
    ports: dict[str, int]  # "main", "metrics", "proxy"
    check_port: int
    source: str  # address of the attackers
    cookies: Path
    log: Callable[[], str]


class Scene:
    """What all targets share: provider, upstreams, certificate, session cookies."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.folder = folder
        self.issuer = stack.enter_context(serve(DevProvider(ProviderConfig()))).url
        folder.chmod(0o755)
        self.certificate: Certificate = make_certificate(folder, LOOPBACK)
        self.cookies: dict[str, Path] = {}
        session = sessions.realistic_session(self.issuer)
        for name in ("authproxy", "oauth2-proxy"):
            file = self.cookies[name] = folder / f"{name}.txt"
            is_oauth2_proxy = name == "oauth2-proxy"
            sessions.write_cookies(
                file, session, SESSIONS, oauth2_proxy=is_oauth2_proxy
            )
        self.cookies["nginx"] = self.cookies["discard"] = self.cookies["authproxy"]
        self.htpasswd = folder / "htpasswd"
        # The password is "right", with bcrypt's cost 10, which htpasswd -B suggests.
        self.htpasswd.write_text(f"alice:{bcrypt_hash('right')}\n")
        self.echo = websocket_bench.start_echo(stack, folder)
        self.app = self._start_app(stack)

    def _start_app(self, stack: contextlib.ExitStack) -> int:
        port, root = free_port(), self.folder / "www"
        root.mkdir()
        with (root / "large").open("wb") as file:
            file.truncate(LARGE)
        text = APP.format(port=port, root=root, user=nginx_user())
        start_nginx(stack, self.folder, "app", text, port)
        return port

    def start(
        self, stack: contextlib.ExitStack, name: str, variant: Variant, number: int
    ) -> Target:
        """Start a program; raises `Skipped` if this machine does not allow it."""
        folder = self.folder / f"{number}-{name}"
        folder.mkdir()
        match name:
            case "nginx":
                return self._start_gateway(stack, folder, variant)
            case "discard":
                return self._start_discard(stack, folder, variant)
        return self._start_proxy(stack, folder, name, variant)

    def _start_proxy(
        self, stack: contextlib.ExitStack, folder: Path, name: str, variant: Variant
    ) -> Target:
        main, metrics = free_port(), free_port()
        is_own = name == "authproxy"
        upstreams = (
            f'upstreams = ["http://{LOOPBACK}:{self.app}/", '
            f'"http://{LOOPBACK}:{self.echo}/socket/"]\n'
        )
        toml = run.CONFIG + OPTIONS + upstreams + variant.toml
        toml += OWN_OPTIONS + variant.own_toml if is_own else ""
        toml = toml.replace("HTPASSWD", str(self.htpasswd))
        toml = toml.replace("FOLDER", str(folder))
        if variant.tls:
            toml += f'tls_cert_file = "{self.certificate.cert_file}"\n'
            toml += f'tls_key_file = "{self.certificate.key_file}"\n'
            toml += f'https_address = "{LOOPBACK}:{main}"\nhttp_address = "-"\n'
        else:
            toml += f'http_address = "{LOOPBACK}:{main}"\n'
        toml += f'metrics_address = "{LOOPBACK}:{metrics}"\n'
        if variant.output == "disk":
            toml += f'logging_filename = "{small_disk(stack, folder)}/log"\n'
        (folder / "proxy.cfg").write_text(toml)
        command = [sys.executable, "-m", "authproxy"] if is_own else [str(find(name))]
        command += ["--config", str(folder / "proxy.cfg")]
        if variant.output == "pipe":
            command = into_full_pipe(stack, folder, command)
        process = Process(
            name,
            command,
            folder=folder,
            environment={
                "OAUTH2_PROXY_CLIENT_ID": "authproxy",
                "OAUTH2_PROXY_CLIENT_SECRET": "demo-client-secret",
                "OAUTH2_PROXY_COOKIE_SECRET": sessions.SECRET.value.decode(),
                "OAUTH2_PROXY_OIDC_ISSUER_URL": self.issuer,
                "PYTHONPATH": PYTHONPATH,
                "GOMAXPROCS": str(WORKERS),
            },
        )
        stack.callback(process.stop)
        scheme = "https" if variant.tls else "http"
        process.wait_until(lambda: is_ready(f"{scheme}://{LOOPBACK}:{main}/ready"), 30)
        ports = {"main": main, "metrics": metrics, "proxy": main}
        source = ATTACK_SOURCE if "proxy_protocol" in variant.own_toml else OTHER_SOURCE
        return Target(process.pid, ports, main, source, self.cookies[name], process.log)

    def _start_gateway(
        self, stack: contextlib.ExitStack, folder: Path, variant: Variant
    ) -> Target:
        main, proxy = free_port(), free_port()
        listen = f"listen {LOOPBACK}:{proxy} proxy_protocol; listen {LOOPBACK}:{main}"
        if variant.tls:
            listen += (
                f" ssl http2; ssl_certificate {self.certificate.cert_file}; "
                f"ssl_certificate_key {self.certificate.key_file}"
            )
        log = folder / "access.log"
        if variant.output == "disk":
            log = small_disk(stack, folder) / "log"
        text = NGINX.format(
            listen=f"{listen};",
            root=self.folder / "www",
            app=self.app,
            echo=self.echo,
            log=log,
            user=nginx_user(),
        )
        process = start_nginx(stack, folder, "nginx", text, main)
        ports = {"main": main, "proxy": proxy}
        return Target(
            process.pid, ports, main, OTHER_SOURCE, self.cookies["nginx"], process.log
        )

    def _start_discard(
        self, stack: contextlib.ExitStack, folder: Path, variant: Variant
    ) -> Target:
        sink, check = free_port(), free_port()
        files = list(self.certificate) if variant.tls else []
        process = Process(
            "discard",
            [
                sys.executable,
                "-m",
                "flood_kinds.discard",
                str(sink),
                str(check),
                *files,
            ],
            folder=folder,
            environment={"PYTHONPATH": PYTHONPATH},
        )
        stack.callback(process.stop)
        process.wait_until(lambda: listens(check))
        ports = dict.fromkeys(("main", "metrics", "proxy"), sink)
        return Target(
            process.pid, ports, check, OTHER_SOURCE, self.cookies["nginx"], process.log
        )


class Skipped(Exception):  # a result, not an error
    """A flood that this machine does not allow; the message says why."""


def bcrypt_hash(password: str) -> str:
    """Return a hash as htpasswd -B -C 10 writes it."""
    import bcrypt

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()


def is_ready(url: str) -> bool:
    """Return whether *url* responds with 200."""
    with contextlib.suppress(OSError):
        return Client().get(url).status == 200
    return False


def nginx_user() -> str:
    """Return the line that lets workers read the folder."""
    return "user root;" if os.geteuid() == 0 else ""


def start_nginx(
    stack: contextlib.ExitStack, folder: Path, name: str, text: str, port: int
) -> Process:
    """Start nginx with a configuration."""
    file = folder / f"{name}.conf"
    file.write_text(text)
    program = find("nginx")
    if program is None:
        raise Skipped("nginx is not installed")
    command = [program, "-p", folder, "-c", file, "-g", "daemon off;"]
    process = Process(name, command, folder=folder)
    stack.callback(process.stop)
    process.wait_until(lambda: listens(port))
    return process


def into_full_pipe(
    stack: contextlib.ExitStack, folder: Path, command: list[str]
) -> list[str]:
    """Return *command* with its output in a pipe that nobody reads."""
    pipe = folder / "output"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    stack.callback(os.close, descriptor)
    return ["/bin/sh", "-c", f'exec "$@" >{pipe} 2>&1', "sh", *command]


def small_disk(stack: contextlib.ExitStack, folder: Path) -> Path:
    """Mount a small file system; raises `Skipped` if that is not permitted."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"a small file system is needed: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "-l", disk], check=False)
    return disk
