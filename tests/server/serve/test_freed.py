"""Ended exchanges are freed at once, however they end.

Full garbage collections are hours apart, so what is in a reference cycle stays. Usual
cycles: an object keeps an error that it raises, and the frames of the traceback refer to
the object; a parser has bound methods of its owner.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from authproxy.http.h2_protocol import free_h2_connection
from authproxy.server_settings import ForwardSettings, Limits
from authproxy_core.effects import Fetch, Outcome, ReadBody
from authproxy_core.messages import Forward, Request, Upstream
from support.certificates import make_certificate
from support.cycles import cyclic, without_collections
from support.h2_client import H2Client
from support.ports import LOOPBACK
from support.server import DEADLINE, Server, Wire, flow, until

TIMEOUT = 0.2  # seconds, of the upstream and of a client's body
BODY = bytes(100_000)
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
MALFORMED = b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
GOAWAY = b"\0\0\x08\7\0\0\0\0\0" + bytes(8)
LARGE = b"Content-Length: 2000000\r\n\r\n" + BODY


def abort(one: socket.socket) -> None:
    """Close with a TCP reset."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def drain(one: socket.socket) -> None:
    """Read to the end."""
    while one.recv(1 << 16):
        pass


def abort_response(one: socket.socket) -> None:
    """Reset after a part of the response."""
    one.sendall(HEAD + BODY)
    abort(one)


def switch(one: socket.socket) -> None:
    """Switch protocols and read to the end."""
    one.sendall(SWITCHING)
    drain(one)


def send_malformed(one: socket.socket) -> None:
    """Send a response that can't be parsed, and read to the end."""
    one.sendall(MALFORMED)
    drain(one)


def send_part(one: socket.socket) -> None:
    """Send a part of the response, then close."""
    one.sendall(HEAD + BODY)


def send_much(one: socket.socket) -> None:
    """Send a response that the client does not read to its end."""
    one.sendall(HEAD + 10 * BODY)
    drain(one)


class Case(NamedTuple):
    """What the upstream does after the head, the request, and whether it is cut."""

    play: Callable[[socket.socket], object]
    method: bytes = b"GET"
    rest: bytes = b"Connection: close\r\n\r\n"
    cut: bool = False
    later: bytes = b""  # sent when the upstream has the request


CASES: dict[str, Case] = {
    "cut-upload": Case(drain, b"POST", LARGE, cut=True),
    "cut-chunked-upload": Case(drain, b"POST", CHUNKED, cut=True),
    "cut-waiting": Case(drain, cut=True),
    "cut-download": Case(send_much, cut=True),
    "cut-tunnel": Case(switch, b"GET", UPGRADE + b"\r\n", cut=True),
    "cut-form": Case(drain, b"POST", LARGE, cut=True),
    "cut-fetch-timeout": Case(drain, cut=True),
    "malformed-chunk": Case(drain, b"POST", CHUNKED, later=b"zz\r\n"),
    "stalled-upload": Case(drain, b"POST", LARGE),
    "reset": Case(abort),
    "reset-response": Case(abort_response),
    "reset-upload": Case(abort, b"POST", LARGE),
    "closed-early": Case(lambda one: None),
    "closed-in-response": Case(send_part),
    "malformed": Case(send_malformed),
    "timeout": Case(drain),
    "tunnel-closed": Case(
        lambda one: one.sendall(SWITCHING), b"GET", UPGRADE + b"\r\n"
    ),
    "fetch-reset": Case(abort),
    "fetch-malformed": Case(send_malformed),
    "fetch-timeout": Case(drain),
    "fetch-refused": Case(drain),
    "refused": Case(drain),
    "failure": Case(drain),
}


# What an HTTP/2 upstream does on a connection.
H2_UPSTREAMS: dict[str, Callable[[socket.socket], object]] = {
    "abort": abort,
    "no-settings": drain,
    "malformed-settings": lambda one: one.sendall(HEAD),
    "silent": lambda one: (one.sendall(SETTINGS), drain(one)),
    "reset": lambda one: (one.sendall(SETTINGS), one.recv(1 << 16), abort(one)),
    "goaway": lambda one: (one.sendall(SETTINGS + GOAWAY), drain(one)),
    "malformed-frame": lambda one: (one.sendall(SETTINGS + HEAD), drain(one)),
}


class Player:
    """An upstream in threads; the path of a request selects the case.

    With *play* it is called for each connection.
    """

    def __init__(self, play: Callable[[socket.socket], object] | None = None) -> None:
        self._play_all = play
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        self.heads: list[bytes] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Player:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                self._threads.append(
                    threading.Thread(target=self._play, args=[accepted])
                )
                self._threads[-1].start()

    def _play(self, one: socket.socket) -> None:
        one.settimeout(DEADLINE)
        with one, contextlib.suppress(OSError):
            if self._play_all is not None:
                one.recv(1 << 16)
                self._play_all(one)
                return
            while head := one.recv(1 << 16):
                if b" HTTP/1.1\r\n" in head:
                    self.heads.append(head)
                    name = head.split(b" ")[1][1:].decode()
                    CASES[name].play(one)
                    return


def serve(server: Server, port: int, closed: int, *, http2: bool = False) -> None:
    """Let *server* forward to *port*; *closed* is one that refuses connections."""
    fast, slow = (
        Upstream("app", "http", LOOPBACK, port, timeout=timeout, http2=http2)
        for timeout in (TIMEOUT, DEADLINE)
    )
    refusing = Upstream("app", "http", LOOPBACK, closed, http2=http2)

    def failing() -> Iterator[object]:
        yield from ()
        raise ValueError("a flow that fails")

    def handle(request: Request) -> Outcome:
        name = request.target[1:].decode()
        if "stalled" in name:
            server.context.limits = Limits(head_timeout=TIMEOUT)  # for its body
        if name == "failure":
            return failing()  # type: ignore[return-value]
        if "fetch" in name:
            target = closed if "refused" in name else port
            timeout = TIMEOUT if "timeout" in name else DEADLINE
            url = f"http://{LOOPBACK}:{target}/{name}"
            return flow(Fetch("GET", url, timeout=timeout))
        if "form" in name:
            return flow(ReadBody(limit=1 << 22))
        dropped = (b"connection", b"transfer-encoding", b"content-length")
        kept = tuple(field for field in request.headers if field[0] not in dropped)
        return Forward(
            refusing if "refused" in name else fast if "timeout" in name else slow,
            request.method,
            request.target,
            kept,
            upgrade="tunnel" in name,
        )

    server.application.handler = handle


def finished(server: Server) -> None:
    """Wait until the requests have ended, and their tasks and connections."""
    context = server.context
    until(lambda: server.in_flight() == 0, "the end of the request")
    until(lambda: not (context.connections or context.tasks), "the end of the task")
    later = threading.Event()
    server.call(lambda: server.call(later.set))
    assert later.wait(DEADLINE)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_ended_http1_requests_are_freed_without_a_collection(
    scheme: str, tmp_path: Path
) -> None:
    tls, context = None, None
    if scheme == "https":
        certificate = make_certificate(tmp_path, LOOPBACK)
        tls = certificate.server_context()
        context = ssl.create_default_context(cafile=certificate.cert_file)
    with (
        socket.socket() as bound,
        Player() as player,
        without_collections(),
    ):
        bound.bind((LOOPBACK, 0))
        left: dict[str, list[str]] = {}
        with Server(tls=tls) as server:
            serve(server, player.port, bound.getsockname()[1])
            for name, case in CASES.items():
                with Wire(server.port) as wire:
                    if context is not None:
                        wire.socket = context.wrap_socket(
                            wire.socket, server_hostname=LOOPBACK
                        )
                    ask(server, player, wire, name, case)
                finished(server)
                server.context.limits = Limits()
                if found := cyclic():
                    left[name] = found
        assert not left


def ask(server: Server, player: Player, wire: Wire, name: str, case: Case) -> None:
    """Send the request of *case*, and cut it or wait for its end."""
    seen, served = len(player.heads), len(server.application.requests)
    wire.send(b"%b /%b HTTP/1.1\r\nHost: a\r\n" % (case.method, name.encode()))
    wire.send(case.rest)
    if "form" in name:
        until(lambda: len(server.application.requests) > served, "the request")
    elif case.cut or case.later:
        until(lambda: len(player.heads) > seen, f"the forwarded head of {name}")
    if "tunnel" in name or "download" in name:
        wire.take(1)
    wire.send(case.later)
    if case.cut:
        abort(wire.socket)
    else:
        wire.rest()


@pytest.mark.parametrize("resets", [False, True])
def test_ended_http2_requests_are_freed_without_a_collection(resets: bool) -> None:
    """The client resets its streams, or closes the connection."""
    left: dict[str, list[str]] = {}
    with socket.socket() as bound, Player() as player, without_collections():
        bound.bind((LOOPBACK, 0))
        with Server(http2=True) as server:
            serve(server, player.port, bound.getsockname()[1])
            for name, case in CASES.items():
                if "tunnel" in name or "chunk" in name:
                    continue
                with H2Client(server.port) as client:
                    ask_http2(server, player, client, name, case, resets=resets)
                    free_h2_connection(client.connection)
                finished(server)
                server.context.limits = Limits()
                if found := cyclic():
                    left[name] = found
    assert not left


def ask_http2(
    server: Server,
    player: Player,
    client: H2Client,
    name: str,
    case: Case,
    *,
    resets: bool,
) -> None:
    """Send the request of *case*, and cut it or wait for its end."""
    seen, served = len(player.heads), len(server.application.requests)
    uploads = case.method == b"POST"
    number = client.send(f"/{name}", method=case.method.decode(), ends=not uploads)
    if uploads:
        client.send_body(number, BODY[:10_000], ends=False)
    until(lambda: len(server.application.requests) > served, "the request")
    if case.cut and "form" not in name:
        until(lambda: len(player.heads) > seen, f"the forwarded head of {name}")
    if not case.cut:
        client.answer(number)
    elif resets:
        client.connection.reset_stream(number)
        client.flush()
        until(lambda: server.in_flight() == 0, "the end of the request")


def test_ended_requests_to_http2_upstreams_are_freed_without_a_collection() -> None:
    left: dict[tuple[str, bool], list[str]] = {}
    forward = ForwardSettings(connect_timeout=TIMEOUT)
    for name, play in H2_UPSTREAMS.items():
        with (
            Player(play) as player,
            without_collections(),
            Server(forward=forward) as server,
        ):
            serve(server, player.port, 1, http2=True)
            for cut in (True, False):
                served = len(server.application.requests)
                with Wire(server.port) as wire:
                    wire.send(b"POST /timeout HTTP/1.1\r\nHost: a\r\n" + LARGE)
                    until(
                        lambda served=served: len(server.application.requests) > served,
                        "the request",
                    )
                    if cut:
                        abort(wire.socket)
                    else:
                        wire.answer()
                finished(server)
                if found := cyclic():
                    left[name, cut] = found
    assert not left
