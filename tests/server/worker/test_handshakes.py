"""Unfinished handshakes: limited, evicted, no obstacle to other clients."""

from __future__ import annotations

import re
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Certificate, make_certificate
from support.ports import LOOPBACK
from support.server import Wire, talk, until
from support.worker_program import PING, WorkerProgram, ping

Start = Callable[..., WorkerProgram]
TLS_RECORD = 22  # first byte of a ClientHello


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, LOOPBACK)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def tls(certificate: Certificate) -> dict[str, Any]:
    """Return a listener with TLS."""
    files = {"cert_file": certificate.cert_file, "key_file": certificate.key_file}
    return {"host": LOOPBACK, "tls": files}


class Handshake:
    """A TLS client whose bytes are sent by hand."""

    def __init__(self, port: int, certificate: Certificate) -> None:
        self.wire = Wire(port)
        self._received, self._sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=certificate.cert_file)
        self._tls = context.wrap_bio(
            self._received, self._sent, server_hostname=LOOPBACK
        )
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.hello = self._sent.read()
        assert self.hello[0] == TLS_RECORD

    def __enter__(self) -> Handshake:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.socket.close()

    def finish(self) -> bytes:
        """Complete the handshake after the hello; return the response to a ping."""
        self._repeat(self._tls.do_handshake)
        self._tls.write(PING)
        self.wire.socket.sendall(self._sent.read())
        return self._repeat(lambda: self._tls.read(4096))  # type: ignore[no-any-return]

    def _repeat(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.wire.socket.sendall(self._sent.read())
                self._received.write(self.wire.socket.recv(1 << 16))


def tls_ping(port: int, certificate: Certificate) -> bytes:
    """Return the response to a health check over TLS."""
    with Handshake(port, certificate) as client:
        client.wire.send(client.hello)
        return client.finish()


def is_open(wire: Wire) -> bool:
    """Return whether the server has neither sent something nor closed."""
    wire.socket.setblocking(False)
    try:
        return wire.socket.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_silent_handshakes_at_the_limit_stop_no_listener(
    start: Start, certificate: Certificate, stack: ExitStack
) -> None:
    """All places are taken by silent clients of the TLS listener."""
    metrics = {"host": LOOPBACK, "metrics": True}
    process = start(tls(certificate), {"host": LOOPBACK}, metrics, connections=6)
    secure, plain, exposed = process.ports
    silent = [stack.enter_context(Wire(secure)) for _ in range(6)]
    assert tls_ping(secure, certificate).startswith(b"HTTP/1.1 200 ")
    assert ping(plain) == 200
    assert ping(exposed) == 200
    # The oldest were closed for the newest, long before their timeout.
    assert silent[0].ended
    assert is_open(silent[-1])


def test_silent_metrics_handshakes_stop_no_listener(
    start: Start, certificate: Certificate, stack: ExitStack
) -> None:
    metrics = {**tls(certificate), "metrics": True}
    process = start(metrics, {"host": LOOPBACK})
    exposed, plain = process.ports
    for _ in range(150):
        stack.enter_context(Wire(exposed))
    assert tls_ping(exposed, certificate).startswith(b"HTTP/1.1 200 ")
    assert ping(plain) == 200


def test_started_handshakes_outlive_silent_ones(
    start: Start, certificate: Certificate, stack: ExitStack
) -> None:
    """A client that has sent one byte is not the first to go; it may dribble."""
    process = start(tls(certificate), handshakes=4)
    started = [
        stack.enter_context(Handshake(process.port, certificate)) for _ in range(2)
    ]
    for client in started:
        client.wire.send(client.hello[:1])
    # They are known as started once the server has handled a later handshake.
    assert tls_ping(process.port, certificate).startswith(b"HTTP/1.1 200 ")
    silent = [stack.enter_context(Wire(process.port)) for _ in range(30)]
    assert silent[0].ended
    for client in started:
        for at in range(1, len(client.hello)):
            client.wire.send(client.hello[at : at + 1])
        assert client.finish().startswith(b"HTTP/1.1 200 ")


def test_started_handshakes_are_limited(
    start: Start, certificate: Certificate, stack: ExitStack
) -> None:
    process = start(tls(certificate), handshakes=4)
    for _ in range(20):
        client = stack.enter_context(Handshake(process.port, certificate))
        client.wire.send(client.hello[:-1])
    assert tls_ping(process.port, certificate).startswith(b"HTTP/1.1 200 ")
    descriptors = Path(f"/proc/{process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    stack.close()
    until(
        lambda: before - 6 <= len(list(descriptors.iterdir())) <= before,
        "at most six closed sockets",
    )


def test_silent_proxy_protocol_clients_are_evicted(
    start: Start, stack: ExitStack
) -> None:
    process = start(
        {"host": LOOPBACK}, handshakes=4, proxy_protocol_from=("127.0.0.1",)
    )
    silent = [stack.enter_context(Wire(process.port)) for _ in range(10)]
    assert silent[0].ended
    with Wire(process.port) as wire:
        wire.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + PING)
        assert wire.answer().status == 200


def test_plain_http_on_tls_port_gets_400_in_words(
    start: Start, certificate: Certificate
) -> None:
    """As in Go's net/http, which answers in plain HTTP."""
    process = start(tls(certificate))
    for request in (PING, b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n", b"G"):
        response = talk(process.port, request)
        head, _, body = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nConnection: close" in head
        assert b"speaks HTTPS" in body
    line = r"rejected request from 127\.0\.0\.1:\d+ with 400: plain HTTP on a TLS port"
    process.wait_until(lambda: re.search(line, process.log()))
    # The client need not close first.
    with Wire(process.port) as wire:
        wire.send(PING * 1000)
        assert wire.answer().status == 400
        assert wire.ended
    assert tls_ping(process.port, certificate).startswith(b"HTTP/1.1 200 ")


def test_shutdown_does_not_wait_for_handshakes(
    start: Start, certificate: Certificate, stack: ExitStack
) -> None:
    process = start(tls(certificate), drain_timeout=60)
    silent = stack.enter_context(Wire(process.port))
    assert tls_ping(process.port, certificate).startswith(b"HTTP/1.1 200 ")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert silent.ended
    assert "drain timeout expired" not in process.log()


def test_stalled_bodies_at_the_limit_make_room(start: Start, stack: ExitStack) -> None:
    """Without an idle connection, the one whose client is silent longest is closed."""
    process = start({"host": LOOPBACK}, connections=4)
    stalled = [stack.enter_context(Wire(process.port)) for _ in range(4)]
    for wire in stalled:
        wire.send(
            b"POST /oauth2/sign_in HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\na"
        )
    assert ping(process.port) == 200
    until(lambda: sum(map(is_open, stalled)) < 4, "one to be closed")
    assert ping(process.port) == 200
    assert sum(map(is_open, stalled)) == 3
