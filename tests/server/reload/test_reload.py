"""Reloads of a running server: by signal or changed file, rejected, under load."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from authproxy_core.session import Session
from authproxy_devprovider.config import ProviderConfig
from authproxy_devprovider.provider import DevProvider, serve
from support import workers as workers_of
from support.certificates import make_certificate
from support.echo import EchoApp
from support.in_thread import InThread
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import SECRET, Program, session_cookie
from support.server import Wire

NEW_SECRET = "fedcba9876543210"
RELOADED = "configuration reloaded"
REJECTED = "reload failed, the old configuration stays in effect"
Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the program; files are not watched unless *changes* enable it."""
    with contextlib.ExitStack() as stack:

        def start_program(*flags: str, **changes: Any) -> Program:
            changes = {"reload_on_change": False, **changes}
            program = stack.enter_context(Program(tmp_path, *flags, **changes))
            assert check(program) in (202, 403)
            workers = changes.get("workers", 1)
            children = workers if workers > 1 else 0
            wait_for(lambda: len(program.workers) == children, "the workers")
            return program

        yield start_program


def check(program: Program, cookie: str = "") -> int:
    """Return the status of an auth check over a new connection."""
    connection = HTTPConnection(LOOPBACK, program.port, timeout=60)
    try:
        headers = {"Cookie": cookie or session_cookie()}
        connection.request("GET", "/oauth2/auth", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def check_each(program: Program, cookie: str = "") -> set[int]:
    """The statuses of auth checks at all workers."""
    return workers_of.statuses(program, program.port, cookie or session_cookie())


def reload(program: Program, expected: str = RELOADED) -> str:
    """Send SIGHUP, wait for *expected* and return the log since then."""
    program.mark()
    program.signal(signal.SIGHUP)
    return wait_for_log(program, expected)


def wait_for_log(program: Program, expected: str = RELOADED) -> str:
    """Wait for *expected* in the log since the mark; returns that log."""
    program.wait_until(lambda: expected in program.log_since_mark())
    return program.log_since_mark()


@pytest.mark.parametrize("workers", [1, 3])
def test_sighup_reloads_all_workers(start: Start, workers: int) -> None:
    program = start(workers=workers)
    before = program.workers
    assert check_each(program) == {202}
    program.configure(email_domains=["other.example"])
    reload(program)
    assert check_each(program) == {403}
    program.configure(email_domains=["example.com"])
    reload(program)
    assert check_each(program) == {202}
    assert program.workers == before


@pytest.mark.parametrize("workers", [1, 2])
def test_invalid_configuration_rejected(start: Start, workers: int) -> None:
    """FA04: the old configuration stays in effect and all problems are logged."""
    program = start(workers=workers)
    program.configure(email_domains=["*."], cookie_samesite="odd", typo=True)
    log = reload(program, REJECTED)
    program.wait_until(lambda: "typo" in program.log_since_mark())
    assert "cookie_samesite" in program.log_since_mark()
    assert check_each(program) == {202}
    program.configure(email_domains=["x.example"], cookie_samesite=None, typo=None)
    reload(program)
    assert check_each(program) == {403}
    assert "Traceback" not in log


@pytest.mark.parametrize("workers", [1, 2])
def test_changed_emails_file_reloaded(
    start: Start, tmp_path: Path, workers: int
) -> None:
    """FA05: an empty file denies all users; a missing file is rejected."""
    emails = tmp_path / "emails"
    emails.write_text("alice@example.com\n")
    program = start(
        workers=workers,
        reload_on_change=True,
        email_domains=None,
        authenticated_emails_file=str(emails),
    )
    for text, expected in (("", 403), ("alice@example.com\nx@y.z\n", 202)):
        program.mark()
        emails.write_text(text)
        wait_for_log(program)
        assert check_each(program) == {expected}
    program.mark()
    emails.unlink()
    wait_for_log(program, REJECTED)
    assert check_each(program) == {202}


@pytest.mark.parametrize("workers", [1, 2])
def test_changed_htpasswd_file_replaces_passwords(
    start: Start, tmp_path: Path, workers: int
) -> None:
    """FA05: the reload invalidates an old password that is in the cache."""
    file = tmp_path / "htpasswd"

    def write(password: str) -> None:
        digest = base64.b64encode(hashlib.sha1(password.encode()).digest())
        file.write_text(f"alice:{{SHA}}{digest.decode()}\n")

    def check_password(password: str) -> set[int]:
        """The statuses of all workers."""
        field = base64.b64encode(f"alice:{password}".encode())
        request = (
            b"GET /oauth2/auth HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %b\r\n\r\n"
        )
        responses = workers_of.send_to_each(program, program.port, request % field)
        return {response.status for response in responses}

    write("old")
    program = start(workers=workers, htpasswd_file=str(file))
    assert check_password("old") == {202}
    write("new")
    reload(program)
    assert (check_password("old"), check_password("new")) == ({401}, {202})
    file.write_text("")
    program.mark()
    program.signal(signal.SIGHUP)
    program.wait_until(lambda: "reload" in program.log_since_mark())
    assert check_password("old") == {401}


def test_replaced_symlink_reloaded(start: Start, tmp_path: Path) -> None:
    """Kubernetes replaces a symlink in the path of a mounted file."""
    for number, name in enumerate(("example.com", "other.example")):
        directory = tmp_path / f"version{number}"
        directory.mkdir()
        (directory / "emails").write_text(f"alice@{name}\n")
    (tmp_path / "data").symlink_to("version0")
    (tmp_path / "emails").symlink_to("data/emails")
    program = start(
        reload_on_change=True,
        email_domains=None,
        authenticated_emails_file=str(tmp_path / "emails"),
    )
    program.mark()
    (tmp_path / "new").symlink_to("version1")
    os.replace(tmp_path / "new", tmp_path / "data")
    wait_for_log(program)
    assert check(program) == 403


def test_missing_file_of_rejected_configuration_watched(
    start: Start, tmp_path: Path
) -> None:
    """The rejected configuration is reloaded once the missing file exists."""
    program = start(reload_on_change=True)
    program.mark()
    program.configure(
        email_domains=None, authenticated_emails_file=str(tmp_path / "later")
    )
    wait_for_log(program, REJECTED)
    (tmp_path / "later").write_text("bob@example.com\n")
    wait_for_log(program)
    assert check(program) == 403


@pytest.mark.parametrize("workers", [1, 2])
def test_settings_that_require_restart_logged(start: Start, workers: int) -> None:
    program = start(workers=workers)
    program.configure(
        http_address=f"{LOOPBACK}:1",
        workers=workers + 1,
        email_domains=["other.example"],
    )
    reload(program)
    for name in ("listeners", "workers"):
        text = f"{name}: a change requires a restart"
        program.wait_until(lambda text=text: text in program.log_since_mark())
    assert len(program.workers) == (workers if workers > 1 else 0)
    assert check_each(program) == {403}


def test_restarted_worker_uses_reloaded_configuration(start: Start) -> None:
    program = start(workers=2)
    program.configure(email_domains=["other.example"])
    reload(program)
    old = program.workers
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(set(program.workers) - set(old)) == 2, "new workers")
    assert check_each(program) == {403}


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_under_load_lose_no_request(start: Start, workers: int) -> None:
    """Successful and rejected reloads, with keep-alive and with new connections."""
    program = start(workers=workers)
    cookie, stop = session_cookie(), threading.Event()
    lost: list[str] = []
    seen: set[int] = set()
    served = [0, 0]

    def check_once(connection: HTTPConnection, kind: int) -> None:
        connection.request("GET", "/oauth2/auth", headers={"Cookie": cookie})
        response = connection.getresponse()
        response.read()
        seen.add(response.status)
        served[kind] += 1

    def keep_alive() -> None:
        connection = HTTPConnection(LOOPBACK, program.port, timeout=60)
        with contextlib.closing(connection):
            connection.connect()
            while not stop.is_set():
                check_once(connection, 0)
                assert connection.sock is not None, "closed"

    def new_connections() -> None:
        while not stop.is_set():
            with contextlib.closing(
                HTTPConnection(LOOPBACK, program.port, timeout=60)
            ) as connection:
                check_once(connection, 1)

    def record_errors(work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, HTTPException, AssertionError) as error:
            lost.append(f"{work.__name__}: {error!r}")

    clients = [
        threading.Thread(target=record_errors, args=(work,))
        for work in (keep_alive, new_connections, keep_alive)
    ]
    for client in clients:
        client.start()
    for round_ in range(6):
        status = 200 + 2 * (round_ % 2)
        program.configure(auth_success_status=status, typo=None)
        reload(program)
        served[:] = 0, 0
        wait_for(lambda: min(served) > 5, "requests of both kinds")
        program.configure(typo=True)
        reload(program, REJECTED)
    stop.set()
    for client in clients:
        client.join(20)
        assert not client.is_alive()
    assert lost == []
    assert seen == {200, 202}


def test_request_in_flight_keeps_its_upstream(start: Start) -> None:
    """A body received after the reload goes to the upstream of its request."""
    session = session_cookie().encode()

    def seen_by(wire: Wire) -> list[str]:
        """Return the Host field values that the upstream received."""
        fields = json.loads(wire.answer().body)["headers"]
        return [value for name, value in fields if name == "host"]

    with EchoApp() as old, EchoApp() as new:
        program = start(
            upstreams=[f"http://{LOOPBACK}:{old.port}/"], pass_host_header=False
        )
        with Wire(program.port) as wire:
            wire.send(
                b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
                b"Expect: 100-continue\r\nCookie: " + session
                + b"\r\n\r\n"
            )  # fmt: skip
            assert wire.answer().status == 100
            program.configure(upstreams=[f"http://{LOOPBACK}:{new.port}/"])
            reload(program)
            wire.send(b"ab")
            assert f"{LOOPBACK}:{old.port}" in seen_by(wire)
            wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\nCookie: " + session + b"\r\n\r\n")
            assert f"{LOOPBACK}:{new.port}" in seen_by(wire)


@pytest.mark.parametrize("workers", [1, 2])
def test_key_rotation_accepts_old_secret_while_listed(
    start: Start, tmp_path: Path, workers: int
) -> None:
    """A session stays valid as long as the key ring contains its secret."""
    files = [tmp_path / name for name in ("current", "previous")]
    files[0].write_text(SECRET)
    program = start(
        workers=workers, cookie_secret=None, cookie_secrets_files=[str(files[0])]
    )
    old, new = session_cookie(), session_cookie(secret=NEW_SECRET)
    assert (check_each(program, old), check_each(program, new)) == ({202}, {401})
    files[1].write_text(SECRET)
    files[0].write_text(NEW_SECRET)
    program.configure(cookie_secrets_files=[str(path) for path in files])
    reload(program)
    assert (check_each(program, old), check_each(program, new)) == ({202}, {202})
    program.configure(cookie_secrets_files=[str(files[0])])
    reload(program)
    assert (check_each(program, old), check_each(program, new)) == ({401}, {202})


@pytest.mark.parametrize("workers", [1, 2])
def test_refreshed_session_sealed_with_new_secret(start: Start, workers: int) -> None:
    """The refreshed session stays valid when the old secret is removed."""
    with TokenEndpoint() as endpoint:
        program = start(
            workers=workers,
            cookie_refresh="1h",
            redeem_url=f"http://{LOOPBACK}:{endpoint.port}/token",
        )
        session = Session(user="a", email="a@example.com", refresh_token="r1")
        old = session_cookie(session, age=4000)
        program.configure(cookie_secret=NEW_SECRET, cookie_secrets=[SECRET])
        reload(program)
        connection = HTTPConnection(LOOPBACK, program.port, timeout=60)
        connection.request("GET", "/oauth2/auth", headers={"Cookie": old})
        response = connection.getresponse()
        connection.close()
        assert response.status == 202
        fresh = (response.getheader("set-cookie") or "").partition(";")[0]
        program.configure(cookie_secrets=None)
        reload(program)
        statuses = check_each(program, fresh), check_each(program, old)
        assert statuses == ({202}, {401})
        assert endpoint.requests == 1


class TokenEndpoint(InThread):
    """A token endpoint that returns new tokens for each refresh and counts them."""

    def __init__(self) -> None:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                endpoint.requests += 1
                body = (
                    b'{"access_token": "a", "token_type": "Bearer", "expires_in": 900}'
                )
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Log nothing."""

        self.requests = 0
        super().__init__(HTTPServer((LOOPBACK, 0), Handler))


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_counted_once_for_all_workers(start: Start, workers: int) -> None:
    program = start(workers=workers, metrics_address=f"{LOOPBACK}:0")
    match = re.search(r"metrics on http://\S+:(\d+)", program.log())
    assert match

    def reload_count(outcome: str) -> str:
        connection = HTTPConnection(LOOPBACK, int(match[1]), timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        line = re.search(rf'authproxy_reloads_total{{.*"{outcome}".*}} (\S+)', text)
        return line[1] if line else ""

    reload(program)
    program.configure(typo=True)
    reload(program, REJECTED)
    program.configure(typo=None)
    reload(program)
    wait_for(lambda: float(reload_count("success")) == 2, "the count of successes")
    assert float(reload_count("failure")) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_changed_certificate_used_for_new_handshakes(
    tmp_path: Path, workers: int
) -> None:
    """Open connections stay; an invalid certificate is rejected."""
    directories = [tmp_path / name for name in ("old", "new")]
    for directory in directories:
        directory.mkdir()
    old, new = (make_certificate(one, LOOPBACK) for one in directories)
    ping = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
    with (
        Program(
            tmp_path,
            workers=workers,
            https_address=f"{LOOPBACK}:0",
            tls_cert_file=old.cert_file,
            tls_key_file=old.key_file,
        ) as program,
        Wire(program.port) as wire,
    ):
        wire.socket = _wrap_tls(wire, old.cert_file)
        wire.send(ping)
        assert wire.answer().status == 200
        program.mark()
        Path(old.cert_file).write_text("no certificate")
        wait_for_log(program, REJECTED)
        with Wire(program.port) as other, pytest.raises(ssl.SSLCertVerificationError):
            _wrap_tls(other, new.cert_file)
        Path(old.key_file).write_text(Path(new.key_file).read_text())
        Path(old.cert_file).write_text(Path(new.cert_file).read_text())
        wait_for_log(program)

        def handshake(each: Wire) -> None:
            each.socket = _wrap_tls(each, new.cert_file)

        with workers_of.connections(program, program.port, prepare=handshake) as wires:
            assert len(wires) == workers
        wire.send(ping)
        assert wire.answer().status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_changed_ca_bundle_used_for_provider(tmp_path: Path, workers: int) -> None:
    directories = [tmp_path / name for name in ("other", "right")]
    for directory in directories:
        directory.mkdir()
    other, right = (make_certificate(one, LOOPBACK) for one in directories)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(right.cert_file, right.key_file)
    bundle = tmp_path / "ca.pem"
    bundle.write_text(Path(other.cert_file).read_text())
    provider = DevProvider(ProviderConfig())
    unset = dict.fromkeys(
        ("skip_oidc_discovery", "login_url", "redeem_url", "oidc_jwks_url")
    )
    with (
        serve(provider, LOOPBACK, tls=context) as idp,
        Program(
            tmp_path,
            workers=workers,
            reload_on_change=True,
            oidc_issuer_url=idp.url,
            provider_ca_files=[str(bundle)],
            **unset,
        ) as program,
    ):

        def ready_statuses() -> set[int]:
            return workers_of.statuses(program, program.port, target="/ready")

        program.wait_until(lambda: "[provider_failed]" in program.log())
        assert ready_statuses() == {503}
        program.mark()
        bundle.write_text("no certificate")
        wait_for_log(program, REJECTED)
        program.mark()
        bundle.write_text(Path(right.cert_file).read_text())
        wait_for_log(program)
        wait_for(lambda: ready_statuses() == {200}, "the provider")


def _wrap_tls(wire: Wire, ca_file: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=ca_file)
    return context.wrap_socket(wire.socket, server_hostname=LOOPBACK)
