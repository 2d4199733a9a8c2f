"""The programs of a chaos run: nginx, two instances, store, provider, network."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from chaos_parts.client import HOST
from chaos_parts.control import PYTHONPATH, ROOT, Helper
from chaos_parts.keycloak_provider import REALM, KeycloakProvider
from chaos_parts.sign_in import SignIn, at_development_provider, at_keycloak
from chaos_parts.stores import STORES, Store
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.program import toml
from support.programs import find

CALLBACK = f"http://{HOST}/oauth2/callback"
WORKERS = 2
NGINX = """\
{user} worker_processes 1; pid nginx.pid; error_log stderr error; worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
uwsgi_temp_path u; scgi_temp_path s; large_client_header_buffers 4 32k;
keepalive_requests 1000000;
upstream instances {{ server 127.0.0.1:{first} max_fails=0;
server 127.0.0.1:{second} max_fails=0; keepalive 64; }}
server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ proxy_pass http://instances;
proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto http;
proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;
proxy_connect_timeout 2s; proxy_read_timeout 20s; proxy_send_timeout 20s; }} }} }}
"""


class Instance:
    """One authproxy; it is started again after a crash."""

    def __init__(self, stage: Stage, number: int, options: dict[str, Any]) -> None:
        self.number = number
        self.stage = stage
        self.folder = stage.folder / f"instance-{number}"
        self.folder.mkdir()
        self.options = options
        self.config = self.folder / "authproxy.toml"
        self.configure()
        self.process = self._start()

    def configure(self, **changes: Any) -> None:
        """Replace the configuration file, which authproxy reads again."""
        self.options |= changes
        self.write(toml(self.options))

    def write(self, text: str) -> None:
        """Replace the configuration file by *text*."""
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)

    def _start(self) -> Process:
        command = [sys.executable, "-m", "authproxy", "--config", str(self.config)]
        process = Process(
            f"authproxy-{self.number}",
            [*self.stage.wrapper, *command],
            folder=self.folder,
            environment={
                "PYTHONPATH": f"{ROOT / 'bench' / 'chaos_parts' / 'clock'}:{PYTHONPATH}",
                "CHAOS_CLOCK": str(self.stage.clock_file),
            },
        )
        process.mark()
        return process

    @property
    def port(self) -> int:
        """The listening port."""
        return int(str(self.options["http_address"]).rpartition(":")[2])

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        with contextlib.suppress(OSError):
            path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            return [int(pid) for pid in path.read_text().split()]
        return []

    def wait_started(self) -> None:
        """Wait until it listens."""
        self.process.wait_until(lambda: listens(self.port), 30.0)

    def restart(self) -> None:
        """Start it after its supervisor was killed."""
        self.process.wait()
        self.process = self._start()
        self.wait_started()

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()


class Stage:
    """Everything that runs; *seed* determines the faults of the gates."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        folder: Path,
        *,
        store: str,
        users: int,
        seed: int,
        refresh: int,
        keycloak: bool = False,
    ) -> None:
        self.folder = folder
        self.refresh = refresh
        folder.mkdir()
        folder.chmod(0o755)
        self.clock = 0.0  # offset in seconds
        self.clock_file = folder / "clock"
        self.set_clock(0.0)
        self.store_kind = store
        self.store: Store = STORES[store](stack, folder)
        self.provider_port = free_port()
        ports = [free_port() for _ in range(2)]
        gates = {
            "instance-0": ports[0],
            "instance-1": ports[1],
            "provider": self.provider_port,
            "app": 0,
        }
        if self.store.gated:
            gates |= {"store-0": self.store.port, "store-1": self.store.port}
        dns = f"127.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}.53"
        self.network = stack.enter_context(
            Helper("network", gates=gates, seed=seed, dns=dns)
        )
        self.gates = {
            name: int(port)
            for name, port in self.network.started.items()
            if name != "dns"
        }
        self.wrapper: list[str] = []
        self.has_dns = "dns" in self.network.started and self._can_mount()
        if self.has_dns:
            self.wrapper = self._with_resolver(dns)
        name = "provider.test" if self.has_dns else LOOPBACK
        self.issuer = f"http://{name}:{self.gates['provider']}"
        self.sign_in: SignIn = at_keycloak if keycloak else at_development_provider
        if keycloak:
            self.issuer += f"/realms/{REALM}"
        self.provider = stack.enter_context(
            KeycloakProvider(folder, self.provider_port, users, CALLBACK)
            if keycloak
            else Helper(
                "provider",
                port=self.provider_port,
                issuer=self.issuer,
                users=users,
                redirect=CALLBACK,
            )
        )
        self.has_clock = not keycloak
        self.instances: list[Instance] = []
        stack.callback(self._stop_instances)
        for number, port in enumerate(ports):
            self.instances.append(Instance(self, number, self._options(number, port)))
        for instance in self.instances:
            instance.wait_started()
        self.port = self._start_gateway(stack)

    def _options(self, number: int, port: int) -> dict[str, Any]:
        app = "app.test" if self.has_dns else LOOPBACK
        return {
            "provider": "oidc",
            "client_id": "authproxy",
            "client_secret": "demo-client-secret",
            "cookie_secrets": ["0123456789abcdef0123456789abcdef"],
            "cookie_secure": False,
            "cookie_refresh": f"{self.refresh}s",
            "email_domains": ["*"],
            "oidc_issuer_url": self.issuer,
            "redirect_url": CALLBACK,
            "http_address": f"{LOOPBACK}:{port}",
            "upstreams": [f"http://{app}:{self.gates['app']}/"],
            "workers": WORKERS,
            "reverse_proxy": True,
            "set_xauthrequest": True,
            "code_challenge_method": "S256",
            "request_logging": False,
            **self.store.options(self.gates.get(f"store-{number}", 0)),
        }

    def _start_gateway(self, stack: contextlib.ExitStack) -> int:
        port, program = free_port(), find("nginx")
        assert program is not None
        file = self.folder / "nginx.conf"
        file.write_text(
            NGINX.format(
                user="user root;" if os.geteuid() == 0 else "",
                port=port,
                first=self.gates["instance-0"],
                second=self.gates["instance-1"],
            )
        )
        command = [program, "-p", self.folder, "-c", file, "-g", "daemon off;"]
        process = Process("nginx", command, folder=self.folder)
        stack.callback(process.stop)
        process.wait_until(lambda: listens(port))
        return port

    def _can_mount(self) -> bool:
        command = ["unshare", "-m", "mount", "--bind", "/etc/hosts", "/etc/hosts"]
        with contextlib.suppress(OSError):
            done = subprocess.run(command, capture_output=True, check=False)
            return done.returncode == 0
        return False

    def _with_resolver(self, dns: str) -> list[str]:
        """Return a command prefix: a namespace whose resolver is the DNS server."""
        file = self.folder / "resolv.conf"
        file.write_text(f"nameserver {dns}\noptions timeout:1 attempts:2\n")
        script = f'mount --bind {file} /etc/resolv.conf && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, "sh"]

    def _stop_instances(self) -> None:
        for instance in self.instances:
            instance.stop()

    def set_clock(self, offset: float) -> None:
        """Step the clock of the instances."""
        with self.clock_file.open("r+b" if self.clock_file.exists() else "wb") as file:
            file.write(struct.pack("d", offset))

    def logs(self) -> list[str]:
        """Return the logs of the instances."""
        return [instance.process.log() for instance in self.instances]


def kill(pid: int) -> None:
    """Kill a process, if it is alive."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
