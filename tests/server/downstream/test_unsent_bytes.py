"""Bytes for clients that do not read: bounded for each one, and for all together.

`Server` checks in each test of the suite that the count of unsent bytes ends at zero.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from authproxy.downstream.client_stream import WRITE_HIGH_WATER
from authproxy.downstream.h1_connection import Connection
from authproxy.http2 import frames
from authproxy.http2.streams import MAX_STREAMS
from authproxy.loop.receive_buffer import (
    MAX_READ_BYTES,
    MIN_READ_BYTES,
    UNSENT_BUDGET,
    ReceiveBuffer,
)
from authproxy.net import tunnel
from authproxy.upstream.h2_upstream_connection import FIRST_WINDOW
from authproxy_core.effects import Outcome
from authproxy_core.messages import Forward, Request, ServeFile, Upstream
from support.h2_client import H2Client
from support.h2_server import Call, H2Server, Reply
from support.ports import LOOPBACK
from support.scripted import Peer, ScriptedServer, run
from support.server import Server, Wire, until

LARGE = 64 << 20  # bytes: more than the buffers of all sockets
BODY = bytes(1 << 20)
GET = b"GET /large HTTP/1.1\r\nHost: a\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: x\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


async def sends_large(peer: Peer) -> None:
    """Send as much as the proxy takes, with the framing of the target."""
    await peer.request()
    await peer.send(OK + b"Content-Length: %d\r\n\r\n" % LARGE)
    for _ in range(LARGE // len(BODY)):
        await peer.send(BODY)


async def sends_chunks(peer: Peer) -> None:
    """Send large chunks."""
    await peer.request()
    await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(LARGE // len(BODY)):
        await peer.send(b"%x\r\n%b\r\n" % (len(BODY), BODY))


async def floods_tunnel(peer: Peer) -> None:
    """Switch protocols, and send as much as the proxy takes."""
    await peer.request()
    await peer.send(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    for _ in range(LARGE // len(BODY)):
        await peer.send(BODY)


def forwarding(port: int, *, http2: bool = False) -> Callable[[Request], Outcome]:
    """Return an application that forwards everything, also upgrades."""
    upstream = Upstream("app", "http", LOOPBACK, port, http2=http2)

    def handle(request: Request) -> Outcome:
        upgrade = any(name == b"upgrade" for name, _ in request.headers)
        return Forward(
            upstream, request.method, request.target, request.headers, upgrade=upgrade
        )

    return handle


@contextmanager
def stalled(server: Server, *fields: bytes) -> Iterator[Wire]:
    """A client that does not read a response whose bytes fill the socket's buffers."""
    with ExitStack() as stack:
        wire = stack.enter_context(Wire(server.port))
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(GET + b"".join(fields) + b"\r\n")
        until(lambda: is_stalled(server), "a client that does not read")
        yield wire


def is_stalled(server: Server) -> bool:
    """Return whether a transport of a client has bytes that the socket does not take."""
    found = list(server.context.connections)
    return any(
        one.transport.get_write_buffer_size() > WRITE_HIGH_WATER for one in found
    )


@pytest.mark.parametrize(
    ("script", "fields", "bound"),
    [
        (sends_large, b"", MAX_READ_BYTES),
        (sends_chunks, b"", MAX_READ_BYTES),
        (floods_tunnel, UPGRADE, tunnel.WRITE_HIGH_WATER + MAX_READ_BYTES),
    ],
)
def test_one_stalled_download_holds_one_read(
    script: Callable[[Peer], asyncio.Future[None]], fields: bytes, bound: int
) -> None:
    """Nothing is received from the upstream before the client has taken the rest."""

    def talk(port: int) -> None:
        with Server(forwarding(port)) as server, stalled(server, fields):
            [connection] = server.context.connections
            pending = connection.transport.get_write_buffer_size()
            assert pending <= WRITE_HIGH_WATER + bound + 16  # and the framing
            assert 0 < server.received.unsent <= bound

    async def main() -> None:
        async with ScriptedServer(script) as played:
            await asyncio.to_thread(talk, played.port)

    run(main())


def test_stalled_download_of_file_holds_one_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE)
    root = str(tmp_path)
    with (
        Server(lambda request: ServeFile(root, "/large")) as server,
        stalled(server),
    ):
        [connection] = server.context.connections
        assert isinstance(connection, Connection)
        assert connection.transport.get_write_buffer_size() <= MAX_READ_BYTES
        assert 0 < server.received.unsent <= MAX_READ_BYTES


def test_all_stalled_downloads_share_a_budget() -> None:
    """Reads get smaller, so many closed windows hold little more than one; all go on."""
    clients = 2

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(BODY)

    def talk(port: int) -> None:
        with (
            Server(forwarding(port), http2=True) as server,
            ExitStack() as stack,
        ):
            floods = [
                stack.enter_context(H2Client(server.port)) for _ in range(clients)
            ]
            for client in floods:
                client.connection.update_settings({frames.INITIAL_WINDOW_SIZE: 0})
                for _ in range(MAX_STREAMS):
                    client.send()
            until(lambda: stalled_streams(server) == clients * MAX_STREAMS, "downloads")
            unsent = server.received.unsent
            share = UNSENT_BUDGET + clients * MAX_STREAMS * MIN_READ_BYTES
            assert clients * MAX_STREAMS * MIN_READ_BYTES < unsent <= share
            # A client that reads gets its response.
            reader = stack.enter_context(H2Client(server.port))
            assert reader.ask().body == BODY

    async def main() -> None:
        async with ScriptedServer(script) as played:
            await asyncio.to_thread(talk, played.port)

    run(main())


def stalled_streams(server: Server) -> int:
    """Return the number of streams with unsent data."""
    streams = [
        stream
        for one in list(server.context.connections)
        for stream in list(one.protocol.streams.values())  # type: ignore[attr-defined]
    ]
    return sum(bool(stream.unsent) for stream in streams)


def test_stalled_download_from_http2_upstream_holds_first_window() -> None:
    """The window grows when the client takes the first bytes."""

    def answer(call: Call) -> Reply:
        return Reply(body=BODY)

    with (
        H2Server(answer) as upstream,
        Server(forwarding(upstream.port, http2=True), http2=True) as server,
        H2Client(server.port) as client,
    ):
        client.connection.update_settings({frames.INITIAL_WINDOW_SIZE: 0})
        client.send()
        until(lambda: server.received.unsent >= FIRST_WINDOW, "a full window")
        assert server.received.unsent <= 2 * FIRST_WINDOW  # and bytes just received
        client.connection.update_settings({frames.INITIAL_WINDOW_SIZE: 1 << 24})
        client.connection.increment_flow_control_window(1 << 24)
        client.flush()
        assert client.ask().body == BODY


def test_read_size_shrinks_with_unsent_bytes() -> None:
    buffer = ReceiveBuffer()
    sizes = []
    for _ in range(1000):
        sizes.append(buffer.read_size)
        buffer.unsent += sizes[-1]
    assert sizes[0] == MAX_READ_BYTES
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == MIN_READ_BYTES
    assert buffer.unsent <= UNSENT_BUDGET + 1000 * MIN_READ_BYTES
