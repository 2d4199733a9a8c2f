"""HTTP/2 connections on an event loop: turns, back-pressure, timeouts, shutdown.

A test counts requests and frames, never time. To let many bytes arrive at once, it stops
the event loop while it sends them.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import socket
import termios
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from h2.errors import ErrorCodes

from authproxy.downstream import h2_connection
from authproxy.downstream.h2_connection import MAX_TURN_ENDS, H2Connection
from authproxy.http2 import frames
from authproxy.http2.credit import MAX_CREDIT, REQUEST_WORK, TURN_WORK
from authproxy.server_settings import Limits
from authproxy_core.effects import Offload, Outcome, ReadBody
from authproxy_core.messages import Forward, Request, Respond, Upstream
from support.h2_client import H2Client
from support.scripted import Peer, ScriptedServer, run
from support.server import DEADLINE, Server, flow, until

TURN_REQUESTS = TURN_WORK // REQUEST_WORK
LARGE = b"x" * 60_000  # fits into the windows of a new connection
ALL = 1 << 30


@contextmanager
def stopped_loop(server: Server) -> Iterator[None]:
    """Stop the event loop, so that what is sent in the context arrives at once."""
    reached, release = threading.Event(), threading.Event()

    def stop() -> None:
        reached.set()
        release.wait(DEADLINE)

    server.call(stop)
    assert reached.wait(DEADLINE)
    try:
        yield
    finally:
        release.set()


def connection(server: Server, number: int = 0) -> H2Connection:
    """Return a connection of the server, in the order of their opening."""
    until(lambda: len(server.context.connections) > number, "the connection")
    found = sorted(server.context.connections, key=lambda one: one.eviction_order[1])
    assert isinstance(found[number], H2Connection)
    return found[number]


def unread(one: H2Connection) -> int:
    """Return the number of bytes that the kernel holds for the server."""
    handle = one.transport.get_extra_info("socket").fileno()
    return int.from_bytes(fcntl.ioctl(handle, termios.FIONREAD, bytes(4)), "little")


def open_windows(client: H2Client) -> None:
    """Let the server send as much as it wants."""
    client.ask("/")
    client.connection.update_settings({frames.INITIAL_WINDOW_SIZE: ALL})
    client.connection.increment_flow_control_window(ALL)
    client.flush()
    client.ask("/")


def test_h2_many_requests_take_turns_with_another_client() -> None:
    with Server(http2=True) as server:
        with H2Client(server.port) as many, H2Client(server.port) as one:
            many.ask("/first")
            one.ask("/first")
            with stopped_loop(server):
                numbers = [many.send(f"/many/{n}") for n in range(90)]
                until(lambda: unread(connection(server)) > 90 * 9, "the requests")
                number = one.send("/one")
                until(lambda: unread(connection(server, 1)) > 0, "the request")
            assert one.answer(number).status == 200
            assert all(many.answer(each).status == 200 for each in numbers)
        order = [request.target for request in server.application.requests]
        assert len(order) == 93
        # The first turn is taken when the bytes are received.
        assert order.index(b"/one") - 2 <= 2 * TURN_REQUESTS
        rest = [target for target in order if target.startswith(b"/many")]
        assert rest == [b"/many/%d" % n for n in range(90)]


@pytest.mark.parametrize("kind", ["window update", "ping", "data"])
def test_h2_flood_is_closed_and_others_are_answered(kind: str) -> None:
    received = {
        "window update": frames.window_update(0, 1),
        "ping": frames.ping(b"12345678"),
        "data": frames.frame(frames.DATA, 0, 1, b"x"),
    }[kind]
    with (
        Server(lambda request: Respond(401), http2=True) as server,
        H2Client(server.port) as flooder,
        H2Client(server.port) as other,
    ):
        other.ask()
        number = flooder.send(method="POST", ends=False)
        assert flooder.answer(number).status == 401
        with stopped_loop(server):
            flooder.socket.sendall(received * (2 * MAX_CREDIT))
            number = other.send()
        assert other.answer(number).status == 401
        flooder.until_closed()
        assert flooder.goaway == ErrorCodes.ENHANCE_YOUR_CALM
        assert other.ask().status == 401


def test_h2_client_that_does_not_read_is_not_read() -> None:
    """Requests wait, in the kernel's buffers, too; then all are answered."""
    with (
        Server(lambda request: Respond(200, (), LARGE), http2=True) as server,
        H2Client(server.port) as client,
    ):
        open_windows(client)
        one = connection(server)
        sender = one.transport.get_extra_info("socket")
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        count = len(server.application.requests)
        numbers = [client.send() for _ in range(80)]
        until(lambda: one.protocol.sender.blocked, "the pause")
        assert one._reading_paused
        # What the buffers take, and a turn, is handled.
        assert len(server.application.requests) - count < 40
        assert all(client.answer(number).body == LARGE for number in numbers)
        assert len(server.application.requests) - count == len(numbers)
        until(lambda: not one._reading_paused, "the end of the pause")


@pytest.mark.parametrize("updates", [0, 20])
def test_h2_response_without_window_is_reset_in_time(updates: int) -> None:
    """Neither is the response kept for updates of one byte; other streams go on."""
    limits = Limits(write_timeout=0.2)
    with (
        Server(lambda request: Respond(200, (), LARGE), limits, http2=True) as server,
        H2Client(server.port) as client,
    ):
        client.acknowledges = False
        client.connection.update_settings({frames.INITIAL_WINDOW_SIZE: 1})
        client.flush()
        number = client.send()
        answer = client.answers[number]
        while answer.reset is None:
            received = len(answer.body)
            client.receive()
            if received < updates and len(answer.body) > received:
                client.connection.increment_flow_control_window(1, number)
                client.flush()
        assert answer.reset == ErrorCodes.CANCEL
        assert len(answer.body) <= 1 + updates
        assert client.ask(method="HEAD").status == 200
        assert connection(server).idle


def test_h2_shutdown_in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests on their way are answered: the first GOAWAY names no last stream."""
    monkeypatch.setattr(h2_connection, "SHUTDOWN_GRACE", 1e9)
    with Server(http2=True) as server, H2Client(server.port) as client:
        client.ask()
        server.call(lambda: setattr(server.context, "stopping", True))
        one = connection(server)
        until(lambda: one._stop_announced_at > 0, "the first GOAWAY")
        late = client.send("/late")
        while client.last_stream is None:
            client.receive()
        assert (client.goaway, client.last_stream) == (0, frames.LAST_STREAM)
        assert client.answer(late).status == 200
        client.until_closed()
        assert client.last_stream == late


def test_h2_parts_of_a_body_are_joined() -> None:
    """Many small frames that arrive at once."""

    def read(request: Request) -> Outcome:
        return flow(ReadBody(limit=5000))

    with Server(read, http2=True) as server, H2Client(server.port) as client:
        number = client.send(method="POST", ends=False)
        with stopped_loop(server):
            for _ in range(400):
                client.connection.send_data(number, b"123456789")
            client.connection.end_stream(number)
            client.flush()
        assert client.answer(number).body == b"123456789" * 400


def test_h2_connection_is_evictable_while_it_waits_for_its_client() -> None:
    started, release = threading.Event(), threading.Event()

    def handle(request: Request) -> Outcome:
        def steps() -> Iterator[Any]:
            if request.target == b"/body":
                yield ReadBody(limit=10)
            else:
                started.set()
                yield Offload(lambda: release.wait(DEADLINE))
            return Respond(200)

        return steps()

    with Server(handle, http2=True) as server, H2Client(server.port) as client:
        one = connection(server)
        assert one.evictable
        body = client.send("/body", method="POST", ends=False)
        until(lambda: bool(one.protocol.streams), "the request")
        until(lambda: one.evictable, "the wait for the body")
        assert one.eviction_order[0] > 1e8
        other = client.send("/other")
        assert started.wait(DEADLINE)
        assert not one.evictable
        release.set()
        client.answer(other)
        client.connection.end_stream(body)
        client.flush()
        assert client.answer(body).status == 200


@pytest.mark.parametrize("ends", [True, False])
def test_h2_closed_connection_is_freed_at_once(ends: bool) -> None:
    """Without a garbage collection, which is rare: TLS keeps large buffers."""

    def handle(request: Request) -> Outcome:
        if request.method == b"GET":
            return Respond(200, (), b"x" * 100_000)
        return flow(ReadBody(limit=10))

    gc.collect()
    gc.disable()
    try:
        with Server(handle, http2=True) as server:
            with H2Client(server.port) as client:
                client.acknowledges = False
                client.send()
                number = client.send(method="POST", ends=ends)
                until(lambda: len(server.application.requests) == 2, "the requests")
                if ends:
                    assert client.answer(number).status == 200
                freed = weakref.ref(connection(server).protocol)
            with H2Client(server.port) as other:  # the loop of timeouts holds the last
                until(lambda: freed() is None, "the end of the connection")
                assert other.ask(method="POST").status == 200
    finally:
        gc.enable()


def test_h2_requests_of_a_closed_connection_end_in_turns() -> None:
    with Server(lambda request: flow(ReadBody(limit=10)), http2=True) as server:
        with H2Client(server.port) as client:
            for _ in range(60):
                client.send(method="POST", ends=False)
            one = connection(server)
            until(lambda: one.protocol.running == 60, "the requests")
            ends: list[int] = []
            original = one._end_streams

            def end_streams() -> None:
                before = len(one.protocol.streams)
                original()
                ends.append(before - len(one.protocol.streams))

            one._end_streams = end_streams  # type: ignore[method-assign]
        until(lambda: one.protocol.running == 0, "the end of the requests")
    assert (sum(ends), max(ends)) == (60, MAX_TURN_ENDS)


def test_h2_closed_connections_share_a_turn() -> None:
    """Another client waits for one of them, not for all."""
    count, streams = 5, 3 * MAX_TURN_ENDS
    order: list[int] = []
    with Server(lambda request: flow(ReadBody(limit=10)), http2=True) as server:
        clients = [H2Client(server.port) for _ in range(count)]
        for client in clients:
            for _ in range(streams):
                client.send(method="POST", ends=False)
        ones = [connection(server, number) for number in range(count)]
        for one in ones:
            until(lambda one=one: one.protocol.running == streams, "the requests")

        def other() -> None:
            order.append(sum(len(one.protocol.streams) for one in ones))

        def close() -> None:
            for one in ones:
                one.transport.abort()
            # After the calls of `connection_lost`.
            asyncio.get_running_loop().call_soon(server.context.turns.add, other)

        server.call(close)
        until(lambda: not any(one.protocol.running for one in ones), "their end")
        for client in clients:
            client.socket.close()
    # Each connection ends some requests at once, and one of them in a turn before it.
    assert order[0] >= count * (streams - MAX_TURN_ENDS) - MAX_TURN_ENDS


Talk = Callable[[H2Client], None]


def forwarded(response: bytes, talk: Talk, method: str = "GET") -> None:
    """Run *talk*; an upstream sends *response* to each request, in one packet."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(response)

    async def main() -> None:
        async with ScriptedServer(script) as played:
            upstream = Upstream("app", "http", "127.0.0.1", played.port)
            await asyncio.to_thread(talking, upstream)

    def talking(upstream: Upstream) -> None:
        def handle(request: Request) -> Outcome:
            return Forward(
                upstream,
                request.method,
                request.target,
                ((b"host", b"a"),),
                reusable=True,
            )

        with Server(handle, http2=True) as server, H2Client(server.port) as client:
            client.ask(method=method)
            until(lambda: not server.context.tasks, "an idle connection")
            talk(client)
            assert not server.context.tasks

    run(main())


OK = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: keep-alive\r\n"


@pytest.mark.parametrize(
    ("rest", "body", "length"),
    [
        (b"Content-Length: 3\r\n\r\nabc", b"abc", "3"),
        (b"Content-Length: 0\r\n\r\n", b"", "0"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc", None),
    ],
)
def test_h2_fast_path_relays_response(
    rest: bytes, body: bytes, length: str | None
) -> None:
    def talk(client: H2Client) -> None:
        for _ in range(3):
            answer = client.ask()
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["x-a"] == "1"
            assert answer.headers.get("content-length") == length
            assert answer.headers["date"].endswith("GMT")
            assert "connection" not in answer.headers

    forwarded(OK + rest, talk)


def test_h2_fast_path_head_request() -> None:
    def talk(client: H2Client) -> None:
        answer = client.ask(method="HEAD")
        assert (answer.headers["content-length"], answer.body) == ("3", b"")

    forwarded(OK + b"Content-Length: 3\r\n\r\n", talk, "HEAD")


def test_h2_fast_path_trailers_follow_a_body_larger_than_the_window() -> None:
    size = 40_000
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-Sum: 7\r\n\r\n"

    def talk(client: H2Client) -> None:
        client.connection.update_settings({frames.INITIAL_WINDOW_SIZE: 1000})
        client.flush()
        answer = client.ask("/", ("te", "trailers"))
        assert (len(answer.body), answer.trailers) == (size, {"x-sum": "7"})

    forwarded(OK + chunked % (size, b"y" * size), talk)
