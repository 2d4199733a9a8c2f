"""A worker: connection limit, TLS, unix sockets, IPv4 and IPv6, signals."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.certificates import make_certificate
from support.ports import LOOPBACK
from support.server import Wire, talk
from support.worker_program import PING, WorkerProgram, ping

ROOT = Path(__file__).parents[3]
# Prints whether a reload reads the CA certificates on the event loop's thread, and whether
# the application that it replaces is freed.
RELOAD_SCRIPT = """
import asyncio, gc, ssl, sys, threading, weakref
from msgspec.structs import replace
from authproxy.worker import worker as module
from authproxy.server_settings import *
from authproxy.worker.worker import Worker
from authproxy_core.settings import *
provider = ProviderSettings(
    id="p", client_id="c", client_secret=Secret(b"s"), skip_discovery=True,
    issuer="http://127.0.0.1:9", login_url="http://127.0.0.1:9/a",
    redeem_url="http://127.0.0.1:9/t", jwks_url="http://127.0.0.1:9/k")
core = Settings(
    cookie=CookieSettings(secrets=(Secret(b"0123456789abcdef"),)), providers=(provider,),
    email_domains=("*",))
settings = ServerSettings(core=core, listeners=())
async def main():
    worker = Worker(settings, ())
    create, threads = ssl.create_default_context, []
    def record(**options):
        threads.append(threading.current_thread() is threading.main_thread())
        return create(**options)
    ssl.create_default_context = record
    changed = replace(settings, core=replace(core, ping_path="/p"))
    prepared = await worker.prepare(changed)
    print(threads)
    gc.disable()
    module.RELEASE_DELAY = 0.0
    replaced = weakref.ref(worker._proxy)
    worker.commit(prepared)
    worker._warm_up.cancel()
    del prepared
    async with asyncio.timeout(20):
        while replaced() is not None:
            await asyncio.sleep(0.01)
asyncio.run(main())
"""
Start = Callable[..., WorkerProgram]


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\n", PING])
def test_ht25_connection_limit_closes_longest_idle(start: Start, begun: bytes) -> None:
    """At the limit the longest-idle connections are closed to make room."""
    process = start({"host": LOOPBACK}, connections=40)
    port = process.port
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Wire(port)) for _ in range(120)]
        for wire in idle:
            wire.send(begun)
        for _ in range(5):
            assert ping(port) == 200
        # The oldest is closed, and no more are open than allowed.
        assert idle[0].rest().count(b"HTTP/1.1") == begun.count(b"ping")
        status = Path(f"/proc/{process.pid}/fd")
        sockets = [one for one in status.iterdir() if "socket:" in _link(one)]
        assert len(sockets) <= 40 + 10


def test_drain_timeout_aborts_requests_in_flight(start: Start) -> None:
    process = start({"host": LOOPBACK}, drain_timeout=1)
    with Wire(process.port) as wire:
        wire.send(PING + b"GET /p")
        assert wire.answer().status == 200
        process.signal(signal.SIGTERM)
        assert wire.ended
        assert process.wait() == 0
    assert "drain timeout expired: aborted requests in flight" in process.log()


def test_connections_beyond_descriptor_limit_make_room(start: Start) -> None:
    """The soft limit is raised; half of the hard one is for clients."""
    process = start({"host": LOOPBACK}, descriptors=(64, 128))
    warning = "max_connections: 10000, but the limit of open files allows 64 per worker"
    assert warning in process.log()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Wire(process.port)) for _ in range(200)]
        assert ping(process.port) == 200
        assert idle[0].ended
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < 128 - 32
    assert "cannot accept" not in process.log()


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def test_tls_handshake_with_idle_connections(start: Start, tmp_path: Path) -> None:
    """TLS 1.2 or later, HTTP/1.1 by ALPN; connections without a handshake are evicted."""
    cert = make_certificate(tmp_path, LOOPBACK)
    tls = {"cert_file": cert.cert_file, "key_file": cert.key_file}
    process = start({"host": LOOPBACK, "tls": tls}, connections=8)
    port = process.port
    context = ssl.create_default_context(cafile=cert.cert_file)
    context.set_alpn_protocols(["http/1.1"])
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(Wire(port))
        with Wire(port) as wire:
            secure = context.wrap_socket(wire.socket, server_hostname=LOOPBACK)
            assert secure.selected_alpn_protocol() == "http/1.1"
            wire.socket = secure
            for _ in range(3):
                wire.send(PING)
                assert wire.answer().body == b"OK"
            wire.send(PING.replace(b"a\r\n", b"a\r\nConnection: close\r\n"))
            assert wire.answer().headers["connection"] == "close"
            assert wire.ended
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with Wire(port) as wire, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(wire.socket)
        assert talk(port, PING).count(b"HTTP/1.1 200") == 0  # plain text


def test_unix_socket_served_and_removed(start: Start, tmp_path: Path) -> None:
    """The request log shows the peer as ``@``."""
    path = tmp_path / "s"
    process = start({"path": str(path), "mode": 0o600})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(PING)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    process.wait_until(lambda: 'GET - "/ping"' in process.log())
    assert re.search(r"(?m)^@ - \S+ - - \[", process.log())
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert not path.exists()


def test_listener_without_host_serves_ipv4_and_ipv6(start: Start) -> None:
    """IPv4 peers are logged as IPv4 addresses."""
    process = start({"host": ""})
    port = process.port
    assert ping(port) == 200
    process.wait_until(lambda: 'GET - "/ping"' in process.log())
    assert re.search(r"(?m)^127\.0\.0\.1:\d+ - ", process.log())
    if "[::]" in process.log():
        assert ping(port, "::1") == 200
        process.wait_until(lambda: "[::1]:" in process.log())


def test_sighup_without_configuration_logged(start: Start) -> None:
    """The server keeps running."""
    process = start({"host": LOOPBACK})
    port = process.port
    assert ping(port) == 200
    process.signal(signal.SIGHUP)
    process.wait_until(lambda: "no configuration to reload" in process.log())
    assert ping(port) == 200


def test_reload_reads_ca_certificates_outside_of_the_event_loop() -> None:
    path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
    run = subprocess.run(
        [sys.executable, "-c", RELOAD_SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert run.stdout == b"[False]\n"


def test_callback_url_named_at_start(start: Start) -> None:
    process = start({"host": LOOPBACK})
    assert "callback URL: https://HOST/oauth2/callback" in process.log()
