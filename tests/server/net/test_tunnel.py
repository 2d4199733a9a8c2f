"""Upgrades and tunnels between a client and an upstream."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Iterator

import pytest
import websockets.exceptions
from websockets.asyncio.server import ServerConnection, serve
from websockets.sync.client import ClientConnection, connect

from authproxy.downstream.h1_exchange import Exchange, RequestBody
from authproxy.http.upstream_response import ResponseReader
from authproxy.net.tunnel import Tunnel, UpgradedConnection
from authproxy.server_settings import ForwardSettings, Limits
from authproxy.upstream.forwarder import Forwarder
from authproxy.upstream.relay import Relay
from authproxy.upstream.tunnel_registry import _MonitoredTunnel
from authproxy_core.effects import Outcome
from authproxy_core.messages import Forward, Headers, Request, Upstream
from support.scripted import Peer, Script, ScriptedServer, run
from support.server import Server, Wire, until

COOKIE: Headers = ((b"set-cookie", b"renewed=1"),)
ASK = (
    b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: Chat\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: chat\r\nX-A: 1\r\n\r\n"


def forwarding(port: int, path: str = "") -> Outcome:
    """Return an application that forwards all requests, including upgrades."""
    upstream = Upstream("app", "http", "127.0.0.1", port, path, 5.0)

    def handle(request: Request) -> Outcome:
        fields = dict(request.headers)
        headers = tuple(field for field in request.headers if field[0] != b"connection")
        return Forward(
            upstream, request.method, request.target, headers, COOKIE,
            b"upgrade" in fields,
        )  # fmt: skip

    return handle  # type: ignore[return-value] # the handler of a test's application


@contextlib.contextmanager
def upstream(script: Script, *, path: str = "") -> Iterator[int]:
    """Yield the port of a scripted server that runs in a thread."""
    started, stop = threading.Event(), threading.Event()
    ports: list[int] = []
    errors: list[BaseException] = []

    async def main() -> None:
        async with ScriptedServer(script, path=path) as scripted:
            ports.append(1 if path else scripted.port)
            started.set()
            await asyncio.to_thread(stop.wait, 30)

    def body() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)
            started.set()

    thread = threading.Thread(target=body)
    thread.start()
    assert started.wait(5)
    try:
        yield ports[0]
    finally:
        stop.set()
        thread.join()
    assert not errors


@contextlib.contextmanager
def proxied(
    script: Script, settings: ForwardSettings | None = None, **limits: float
) -> Iterator[tuple[Server, Wire]]:
    """Yield a server that forwards to *script*, and a connection to it."""
    with (
        upstream(script) as port,
        Server(forwarding(port), Limits(**limits)) as server,  # type: ignore[arg-type]
        Wire(server.port) as wire,
    ):
        if settings is not None:
            server.context.forwarder = Forwarder(settings)
        yield server, wire


async def echo(peer: Peer) -> None:
    """Switch protocols, then echo all bytes until EOF."""
    seen = await peer.head()
    assert seen.values(b"connection") == [b"Upgrade"]
    assert seen.values(b"upgrade") == [b"Chat"]
    await peer.send(SWITCH)
    while data := await peer.reader.read(1 << 16):
        await peer.send(data)


def switched(wire: Wire, data: bytes = ASK) -> dict[str, str]:
    """Send *data* and return the headers of the 101 response."""
    wire.send(data)
    response = wire.answer()
    assert response.status == 101, response
    return response.headers


def test_tunnel_copies_bytes_in_both_directions() -> None:
    with proxied(echo) as (server, wire):
        headers = switched(wire)
        assert (headers["upgrade"], headers["connection"]) == ("chat", "Upgrade")
        assert (headers["x-a"], headers["set-cookie"]) == ("1", "renewed=1")
        assert "content-length" not in headers
        assert "transfer-encoding" not in headers
        for data in (b"\x00\xff", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000):
            wire.send(data)
            assert wire.take(len(data)) == data
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""
        server.logged(" 101 100020 ")


def test_tunnel_early_bytes_of_both_sides_arrive() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH + b"hello")
        assert await peer.reader.readexactly(3) == b"abc"
        await peer.send(b"!")

    with proxied(script) as (_, wire):
        switched(wire, ASK + b"abc")
        assert wire.rest() == b"hello!"


def test_tunnel_client_eof_upstream_can_still_send() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        assert await peer.reader.read() == b"last"
        await peer.send(b"bye")

    with proxied(script) as (_, wire):
        switched(wire)
        wire.send(b"last")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b"bye"


@pytest.mark.parametrize("resets", [False, True])
def test_tunnel_client_closes_upstream_is_closed(resets: bool) -> None:
    closed = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        await peer.gone()
        closed.set()

    with proxied(script) as (server, wire):
        switched(wire)
        if resets:
            import struct

            linger = struct.pack("ii", 1, 0)
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wire.socket.close()
        assert closed.wait(5)
        until(
            lambda: not server.context.connections and not server.context.tasks,
            "the end",
        )


def test_tunnel_upstream_resets_client_is_closed() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        peer.reset()

    with proxied(script) as (server, wire):
        switched(wire)
        assert wire.rest() == b""
        until(
            lambda: not server.context.connections and not server.context.tasks,
            "the end",
        )


def test_tunnel_client_does_not_read_upstream_is_paused() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(SWITCH)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                async with asyncio.timeout(0.5):
                    await peer.send(bytes(1 << 16))
                sent += 1 << 16

    with proxied(script) as (_, wire):
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        switched(wire)
        until(lambda: sent > 1 << 16, "some bytes")
        size, last = -1, 0
        while size != last:
            last = size
            threading.Event().wait(0.6)
            size = sent
        assert size < 24 << 20  # what the kernel's buffers hold
        received = len(wire.take(size))
        assert received == size


def test_tunnel_client_never_reads_is_closed_after_write_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(bytes(1 << 16))

    with proxied(script, write_timeout=0.3) as (server, wire):
        switched(wire)
        until(lambda: not server.context.connections, "the end", 10.0)


def test_tunnel_upgrade_lifetime_expired_is_closed() -> None:
    with proxied(echo, ForwardSettings(upgrade_lifetime=1.0)) as (_, wire):
        switched(wire)
        wire.send(b"x")
        assert wire.rest() == b"x"


def test_tunnel_session_revoked_is_closed() -> None:
    with proxied(echo, ForwardSettings(upgrade_check_interval=0.05)) as (server, wire):
        switched(wire)
        for _ in range(5):
            wire.send(b"x")
            assert wire.take(1) == b"x"
            threading.Event().wait(0.03)
        server.application.lasting = False
        assert wire.rest() == b""
        server.logged("session expired or revoked")


def test_tunnel_session_check_fails_is_closed() -> None:
    with proxied(echo, ForwardSettings(upgrade_check_interval=0.05)) as (server, wire):
        switched(wire)
        server.application.is_session_valid = None  # type: ignore[method-assign,assignment]
        assert wire.rest() == b""


def test_tunnel_counts_as_idle_connection() -> None:
    with proxied(echo) as (server, wire):
        switched(wire)
        assert all(connection.idle for connection in server.context.connections)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
        b"HTTP/1.1 101 Go\r\n\r\n",
        b"HTTP/1.1 101 Go\r\nUpgrade: chat\r\nUpgrade: chat\r\n\r\n",
    ],
)
def test_upgrade_to_another_protocol_is_502(response: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response)

    with proxied(script) as (_, wire):
        wire.send(ASK)
        assert (wire.answer().status, wire.rest()) == (502, b"")


def test_upgrade_without_request_is_502() -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.head()
        assert not seen.values(b"upgrade")
        await peer.send(SWITCH)

    with proxied(script) as (_, wire):
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.answer().status == 502


def test_ht22_upgrade_rejected_bytes_after_the_request_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status=b"426 Upgrade Required")
        await peer.gone()

    with proxied(script) as (server, wire):
        wire.send(ASK + b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n")
        response = wire.answer()
        assert (response.status, response.body) == (426, b"no")
        assert wire.rest() == b""
        assert len(server.application.requests) == 1


def test_upgrade_from_http10_not_forwarded() -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        assert not seen.values(b"upgrade")
        await peer.answer(b"plain")

    with proxied(script) as (_, wire):
        wire.send(ASK.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.answer().body == b"plain"


def test_tunnel_transport_aborted_is_logged() -> None:
    with proxied(echo) as (server, wire):
        switched(wire)
        until(lambda: not server.context.tasks, "the end of the task")
        [connection] = server.context.connections
        server.call(connection.transport.abort)
        assert wire.rest() == b""
        server.logged(" 101 0 ")


def test_tunnel_holds_no_http_objects() -> None:
    with proxied(echo) as (server, wire):
        switched(wire)
        until(lambda: not server.context.tasks, "the end of the task")
        gc.collect()
        classes = {type(item) for item in gc.get_objects()}
        assert not classes & {Exchange, RequestBody, Relay, ResponseReader}
        wire.send(b"x")
        assert wire.take(1) == b"x"


def test_tunnel_closed_session_monitor_is_freed() -> None:
    with proxied(echo, ForwardSettings(upgrade_check_interval=600)) as (server, wire):
        switched(wire)
        assert _MonitoredTunnel in {type(item) for item in gc.get_objects()}
        wire.socket.close()
        server.logged(" 101 0 ")

        def monitored() -> list[object]:
            gc.collect()
            return [item for item in gc.get_objects() if type(item) is _MonitoredTunnel]

        until(lambda: not monitored(), "the release of the session monitor")


def test_tunnels_do_not_count_for_the_connection_limit() -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        if not seen.values(b"upgrade"):
            await peer.answer(b"plain")
            return
        await peer.send(SWITCH)
        await peer.gone()

    with proxied(script, ForwardSettings(connections=1)) as (server, wire):
        switched(wire)
        for _ in range(2):
            with Wire(server.port) as other:
                switched(other)
                other.send(b"x")
        with Wire(server.port) as other:
            other.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.answer().body == b"plain"


# With the websockets library


async def chat(connection: ServerConnection) -> None:
    """Echo messages; "close" closes the connection with a specific code."""
    async for message in connection:
        if message == "close":
            await connection.close(4321, "enough")
        await connection.send(message)


@contextlib.contextmanager
def websocket() -> Iterator[ClientConnection]:
    """Yield a WebSocket through authproxy."""
    started, stop = threading.Event(), threading.Event()
    ports: list[int] = []

    async def main() -> None:
        async with serve(chat, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            started.set()
            await asyncio.to_thread(stop.wait, 30)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(5)
    try:
        with (
            Server(forwarding(ports[0])) as server,
            connect(f"ws://127.0.0.1:{server.port}/x", max_size=None) as client,
        ):
            yield client
    finally:
        stop.set()
        thread.join()


def test_websocket_messages_of_all_kinds_and_sizes_arrive() -> None:
    with websocket() as client:
        for message in ("text", "ü" * 70_000, b"\x00\xff", b"x" * 900_000, ""):
            client.send(message)
            assert client.recv(timeout=10) == message
        assert client.ping().wait(5)


def test_websocket_close_code_of_upstream_arrives() -> None:
    with websocket() as client:
        client.send("close")
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as raised:
            client.recv(timeout=10)
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4321, "enough")


def test_websocket_close_code_of_client_arrives() -> None:
    with websocket() as client:
        client.close(4000, "bye")
        assert client.close_code == 4000


def test_tunnel_many_early_bytes_keep_back_pressure() -> None:
    """More early bytes than the high-water mark must pause the other side."""

    class Side(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        client, peer = socket.socketpair()
        upstream, source = socket.socketpair()
        for end in (client, peer, upstream, source):
            end.setblocking(False)
        to_client, _ = await loop.create_connection(Side, sock=client)
        to_upstream, _ = await loop.create_connection(Side, sock=upstream)
        early = b"x" * (400 << 10)
        tunnel = Tunnel(
            UpgradedConnection(to_client, lambda error: None),
            UpgradedConnection(to_upstream, lambda error: None, early),
        )
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):
                source.send(b"y" * 65536)
            await asyncio.sleep(0)
        assert to_client.get_write_buffer_size() < 2 * len(early)
        tunnel.abort()
        peer.close()
        source.close()

    run(main(), "uvloop")
