"""Upgrades, from a client's socket to an upstream's and back."""

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

from authproxy.net.tunnel import Tunnel, UpgradedConnection
from authproxy.server_settings import ForwardSettings, Limits
from authproxy.upstream.forwarder import Forwarder
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
    """An application that forwards everything, upgrades too."""
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
    """The port of a scripted server that runs in a thread."""
    started, stop = threading.Event(), threading.Event()
    ports: list[int] = []
    errors: list[BaseException] = []

    async def main() -> None:
        async with ScriptedServer(script, path=path) as played:
            ports.append(1 if path else played.port)
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
    """A proxy in front of *script*, and a raw connection to it."""
    with (
        upstream(script) as port,
        Server(forwarding(port), Limits(**limits)) as server,  # type: ignore[arg-type]
        Wire(server.port) as wire,
    ):
        if settings is not None:
            server.context.forwarder = Forwarder(settings)
        yield server, wire


async def echo(peer: Peer) -> None:
    """Switch, then send back whatever comes, to the client's end."""
    seen = await peer.head()
    assert seen.values(b"connection") == [b"Upgrade"]
    assert seen.values(b"upgrade") == [b"Chat"]
    await peer.send(SWITCH)
    while data := await peer.reader.read(1 << 16):
        await peer.send(data)


def switched(wire: Wire, data: bytes = ASK) -> dict[str, str]:
    """The headers of the 101 that answers *data*."""
    wire.send(data)
    answer = wire.answer()
    assert answer.status == 101, answer
    return answer.headers


def test_bytes_pass_both_ways_after_the_switch() -> None:
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


def test_bytes_that_come_too_early_are_not_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH + b"hello")
        assert await peer.reader.readexactly(3) == b"abc"
        await peer.send(b"!")

    with proxied(script) as (_, wire):
        switched(wire, ASK + b"abc")
        assert wire.rest() == b"hello!"


def test_the_upstream_is_told_of_the_end_and_may_still_answer() -> None:
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
def test_the_client_leaves(resets: bool) -> None:
    gone = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        await peer.gone()
        gone.set()

    with proxied(script) as (server, wire):
        switched(wire)
        if resets:
            import struct

            linger = struct.pack("ii", 1, 0)
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wire.socket.close()
        assert gone.wait(5)
        until(
            lambda: not server.context.connections and not server.context.tasks,
            "the end",
        )


def test_the_upstream_leaves() -> None:
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


def test_who_does_not_read_is_not_sent_more_than_fits() -> None:
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


def test_who_never_reads_is_cut_off() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(bytes(1 << 16))

    with proxied(script, write_timeout=0.3) as (server, wire):
        switched(wire)
        until(lambda: not server.context.connections, "the end", 10.0)


def test_a_tunnel_lives_no_longer_than_it_may() -> None:
    with proxied(echo, ForwardSettings(upgrade_lifetime=0.2)) as (_, wire):
        switched(wire)
        wire.send(b"x")
        assert wire.rest() == b"x"


def test_a_tunnel_ends_with_its_session() -> None:
    with proxied(echo, ForwardSettings(upgrade_check_interval=0.05)) as (server, wire):
        switched(wire)
        for _ in range(5):
            wire.send(b"x")
            assert wire.take(1) == b"x"
            threading.Event().wait(0.03)
        server.application.lasting = False
        assert wire.rest() == b""
        server.logged("session expired or revoked")


def test_a_tunnel_whose_session_can_not_be_judged_ends() -> None:
    with proxied(echo, ForwardSettings(upgrade_check_interval=0.05)) as (server, wire):
        switched(wire)
        server.application.is_session_valid = None  # type: ignore[method-assign,assignment]
        assert wire.rest() == b""


def test_a_tunnel_is_not_waited_for() -> None:
    with proxied(echo) as (server, wire):
        switched(wire)
        assert all(connection.idle for connection in server.context.connections)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
        b"HTTP/1.1 101 Go\r\n\r\n",
        b"HTTP/1.1 101 Go\r\nUpgrade: chat\r\nUpgrade: chat\r\n\r\n",
    ],
)
def test_a_switch_to_something_else_is_a_failure(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    with proxied(script) as (_, wire):
        wire.send(ASK)
        assert (wire.answer().status, wire.rest()) == (502, b"")


def test_a_switch_that_nobody_asked_for_is_a_failure() -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.head()
        assert not seen.values(b"upgrade")
        await peer.send(SWITCH)

    with proxied(script) as (_, wire):
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.answer().status == 502


def test_ht22_after_a_refusal_nothing_more_is_read() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status=b"426 Upgrade Required")
        await peer.gone()

    with proxied(script) as (server, wire):
        wire.send(ASK + b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.body) == (426, b"no")
        assert wire.rest() == b""
        assert len(server.application.requests) == 1


def test_an_old_client_can_not_switch() -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        assert not seen.values(b"upgrade")
        await peer.answer(b"plain")

    with proxied(script) as (_, wire):
        wire.send(ASK.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.answer().body == b"plain"


def test_nothing_is_left_when_the_process_stops() -> None:
    with proxied(echo) as (server, wire):
        switched(wire)
        until(lambda: not server.context.tasks, "the end of the task")
        [connection] = server.context.connections
        server.call(connection.transport.abort)
        assert wire.rest() == b""
        server.logged(" 101 0 ")


def test_a_waiting_tunnel_keeps_nothing_of_http() -> None:
    with proxied(echo) as (server, wire):
        switched(wire)
        until(lambda: not server.context.tasks, "the end of the task")
        gc.collect()
        kept = {type(one).__name__ for one in gc.get_objects()}
        assert not kept & {"Exchange", "RequestBody", "Relay", "ResponseReader"}
        wire.send(b"x")
        assert wire.take(1) == b"x"


def test_what_is_known_of_a_tunnel_goes_with_it() -> None:
    with proxied(echo, ForwardSettings(upgrade_check_interval=600)) as (server, wire):
        switched(wire)
        wire.socket.close()
        server.logged(" 101 0 ")

        def watched() -> list[object]:
            return [one for one in gc.get_objects() if type(one).__name__ == "_Watched"]

        until(lambda: not watched(), "the end of what is known")


def test_tunnels_take_no_room_from_requests() -> None:
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


# With the library that others use


async def chat(connection: ServerConnection) -> None:
    """Send back what comes; "close" closes with a code of its own."""
    async for message in connection:
        if message == "close":
            await connection.close(4321, "enough")
        await connection.send(message)


@contextlib.contextmanager
def websocket() -> Iterator[ClientConnection]:
    """A WebSocket through the proxy."""
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


def test_messages_of_every_kind_and_size() -> None:
    with websocket() as client:
        for message in ("text", "ü" * 70_000, b"\x00\xff", b"x" * 900_000, ""):
            client.send(message)
            assert client.recv(timeout=10) == message
        assert client.ping().wait(5)


def test_the_code_of_the_upstreams_close_arrives() -> None:
    with websocket() as client:
        client.send("close")
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as raised:
            client.recv(timeout=10)
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4321, "enough")


def test_the_code_of_the_clients_close_arrives() -> None:
    with websocket() as client:
        client.close(4000, "bye")
        assert client.close_code == 4000


def test_much_that_is_early_does_not_end_back_pressure() -> None:
    """What comes right behind the 101 may be more than the client reads at once."""

    class Side(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        client, peer = socket.socketpair()
        upstream, source = socket.socketpair()
        for one in (client, peer, upstream, source):
            one.setblocking(False)
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
