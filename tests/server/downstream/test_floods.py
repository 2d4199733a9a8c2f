"""Floods of HTTP/1.1: bounded buffers, and turns between the clients.

A test counts operations and iterations of the event loop, never time. To let many bytes
arrive at once, it stops the event loop while it sends them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest

from authproxy.downstream.client_stream import RECEIVE_HIGH_WATER
from authproxy.downstream.h1_connection import (
    COSTLY,
    MAX_CHEAP_TIME,
    MAX_EMPTY_LINES,
    MAX_TURN_BYTES,
    MAX_TURN_REQUESTS,
    Connection,
)
from authproxy.downstream.h1_exchange import MAX_DRAIN_BYTES
from authproxy.http.body_decoders import MAX_READ_LINES
from authproxy.loop.fair_queue import ITERATION_BUDGET
from authproxy_core.effects import Offload, Outcome, ReadBody
from authproxy_core.messages import Request, Respond
from support.server import DEADLINE, Server, Wire, flow, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /%b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
UVLOOP_READ_BYTES = 256_000  # that uvloop reads at once
WRITE_HIGH_WATER = 64 << 10  # uvloop's default


def get(target: bytes, size: int = 0) -> bytes:
    """Return a GET for *target* with a field of *size* bytes."""
    return GET.replace(b"/ ", b"/%b " % target).replace(
        b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % (b"x" * size)
    )


class Iterations:
    """Counts the iterations of a server's event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._stopped = False

    def start(self) -> None:
        """Count from now on; called on the event loop."""
        self.count += 1
        if not self._stopped:
            asyncio.get_running_loop().call_soon(self.start)

    def stop(self) -> None:
        """Stop counting."""
        self._stopped = True


class Recorder:
    """An application that records the iteration of each request."""

    def __init__(self, respond: Callable[[Request], Outcome]) -> None:
        self.iterations = Iterations()
        self.seen: list[tuple[int, bytes]] = []
        self._respond = respond

    def handle(self, request: Request) -> Outcome:
        """Return the response."""
        self.seen.append((self.iterations.count, request.target))
        return self._respond(request)


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


@contextmanager
def counted(recorder: Recorder, server: Server) -> Iterator[None]:
    """Count iterations within the context."""
    server.call(recorder.iterations.start)
    try:
        yield
    finally:
        recorder.iterations.stop()


def only_connection(server: Server) -> Connection:
    """Return the connection of the only client."""
    until(lambda: len(server.context.connections) == 1, "the connection")
    [connection] = server.context.connections
    assert isinstance(connection, Connection)
    return connection


def buffered(connection: Connection) -> int:
    """Return the number of received bytes that wait."""
    return len(connection.received) + connection._chunk_bytes


def flood(wire: Wire, connection: Connection, data: bytes) -> int:
    """Send *data* until the server waits for the client and the kernel takes no more."""
    sent = 0
    wire.socket.settimeout(0.2)
    for _ in range(5000):
        try:
            sent += wire.socket.send(data)
        except TimeoutError:
            if connection._reading_paused and (
                connection._exchange or not connection._writable
            ):
                return sent
    raise AssertionError(f"the server reads on after {sent} bytes")


def waiting(started: threading.Event, release: threading.Event) -> Outcome:
    """Return a flow that waits for *release*."""

    def run() -> Iterator[Any]:
        started.set()
        yield Offload(lambda: release.wait(DEADLINE))
        return Respond(200, (), b"ok")

    return run()


def ok(request: Request) -> Respond:
    """Respond with a short body."""
    return Respond(200, (), b"ok")


def test_pipelined_requests_without_reading_pause_and_are_bounded() -> None:
    """A client that reads no response fills two buffers of a fixed size."""
    with Server(ok) as server, Wire(server.port) as wire:
        connection = only_connection(server)
        sent = flood(wire, connection, GET * 5000)
        assert not connection._writable
        assert buffered(connection) <= RECEIVE_HIGH_WATER + UVLOOP_READ_BYTES
        pending = connection.transport.get_write_buffer_size()
        assert pending <= WRITE_HIGH_WATER + 4096
        handled = len(server.application.requests)
        assert handled < sent // len(GET)
        # It is served again as soon as it reads.
        wire.socket.settimeout(DEADLINE)
        for _ in range(handled + 1):
            assert wire.answer().body == b"ok"


def test_pipelined_requests_take_turns_with_other_clients() -> None:
    """Others wait for one request of each flood, not for all of them."""
    count = 12
    recorder = Recorder(ok)
    with ExitStack() as stack:
        server = stack.enter_context(Server(recorder.handle))
        wires = [stack.enter_context(Wire(server.port)) for _ in range(count + 1)]
        until(lambda: len(server.context.connections) == count + 1, "connections")
        with stopped_loop(server):
            for wire in wires[:-1]:
                wire.send(get(b"flood") * 2000)
            wires[-1].send(get(b"other"))
        assert wires[-1].answer().status == 200
        for wire in wires[:-1]:
            for _ in range(2000):
                assert wire.answer().status == 200
    targets = [target for _, target in recorder.seen]
    # In the iteration of its arrival, or in the one after it.
    assert targets.index(b"/other") <= 2 * (count + MAX_TURN_REQUESTS)


@pytest.mark.parametrize("size", [0, MAX_TURN_BYTES // 2])
def test_turn_handles_limited_number_of_requests(size: int) -> None:
    """A turn ends after some requests, or after some bytes of heads."""
    recorder = Recorder(ok)
    limit = 3 if size else MAX_TURN_REQUESTS
    with Server(recorder.handle) as server, Wire(server.port) as wire:
        only_connection(server)
        with counted(recorder, server):
            with stopped_loop(server):
                for _ in range(10):
                    wire.send(get(b"", size))
            for _ in range(10):
                assert wire.answer().status == 200
    iterations = [iteration for iteration, _ in recorder.seen]
    # One is handled when its bytes arrive.
    assert max(map(iterations.count, iterations)) <= limit + 1


def test_tiny_chunks_are_decoded_in_turns() -> None:
    """Each turn decodes a limited number of chunks, so it takes a limited time."""
    count = 20_000
    recorder = Recorder(lambda request: flow(ReadBody(1 << 20)))
    with Server(recorder.handle) as server, Wire(server.port) as wire:
        only_connection(server)
        with counted(recorder, server):
            with stopped_loop(server):
                wire.send(CHUNKED % b"x" + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
            assert wire.answer().body == b"x" * count
        [(started, _)] = recorder.seen
        # At most two of an iteration's budgets are used in it.
        assert recorder.iterations.count - started >= count // (2 * MAX_READ_LINES)


def test_unread_body_of_tiny_chunks_is_skipped_in_turns() -> None:
    """The rest of a body that no application reads costs as much as a read one."""
    count = 10_000
    recorder = Recorder(ok)
    with Server(recorder.handle) as server, Wire(server.port) as wire:
        only_connection(server)
        with counted(recorder, server):
            with stopped_loop(server):
                body = b"1\r\nx\r\n" * count + b"0\r\n\r\n"
                wire.send(CHUNKED % b"x" + body + get(b"next"))
            assert [wire.answer().status for _ in range(2)] == [200, 200]
    (first, _), (second, _) = recorder.seen
    assert second - first >= count // MAX_READ_LINES


def test_unread_body_of_tiny_chunks_is_skipped_up_to_limit_of_received_bytes() -> None:
    """The framing counts, or skipping the body would cost six times as much."""
    count = MAX_DRAIN_BYTES // 6 + MAX_READ_LINES
    with Server(ok) as server, Wire(server.port) as wire:
        wire.send(CHUNKED % b"x" + b"1\r\nx\r\n" * count + b"0\r\n\r\n" + GET)
        assert wire.answer().status == 200
        assert wire.ended


@pytest.mark.parametrize("more", [0, 1])
def test_empty_lines_before_request_limited(more: int) -> None:
    """Some are skipped (RFC 9112 §2.2); a flood of them ends the connection."""
    with Server(ok) as server, Wire(server.port) as wire:
        for _ in range(3):  # the limit is for each request
            wire.send(b"\r\n" * MAX_EMPTY_LINES)
            if more:
                break
            wire.send(GET)
            assert wire.answer().status == 200
        if more:
            wire.send(b"\r\n" * 100_000)
            assert wire.answer().status == 400
            assert wire.ended
            server.logged("too many empty lines before a request")


def test_empty_lines_and_request_in_one_packet_accepted() -> None:
    with Server(ok) as server, Wire(server.port) as wire:
        wire.send((b"\r\n" + GET) * 50)
        assert [wire.answer().status for _ in range(50)] == [200] * 50


def test_unread_upload_pauses_reading() -> None:
    """While an upload waits for its reader, a fixed number of bytes is buffered."""
    started, release = threading.Event(), threading.Event()

    def wait(request: Request) -> Outcome:
        return waiting(started, release)

    with Server(wait) as server, Wire(server.port) as wire:
        connection = only_connection(server)
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        assert started.wait(DEADLINE)
        flood(wire, connection, b"x" * 100_000)
        assert buffered(connection) <= RECEIVE_HIGH_WATER + UVLOOP_READ_BYTES
        release.set()
        with suppress(ConnectionError):
            assert wire.answer().status == 200


def test_many_clients_share_the_turns() -> None:
    """No flood gets a second turn before every other one had its first."""
    count = 6
    recorder = Recorder(ok)
    with ExitStack() as stack:
        server = stack.enter_context(Server(recorder.handle))
        wires = [stack.enter_context(Wire(server.port)) for _ in range(count)]
        until(lambda: len(server.context.connections) == count, "the connections")
        with stopped_loop(server):
            for number, wire in enumerate(wires):
                wire.send(get(b"%d" % number) * 200)
        for wire in wires:
            assert [wire.answer().status for _ in range(200)] == [200] * 200
    targets = [target for _, target in recorder.seen]
    last = {target: len(targets) - targets[::-1].index(target) for target in targets}
    # All end within one round of turns.
    spread = sorted(last.values())
    assert spread[-1] - spread[0] <= 2 * count * MAX_TURN_REQUESTS
    changes = sum(one != other for one, other in pairwise(targets))
    assert changes >= 200 // MAX_TURN_REQUESTS


def test_costly_requests_wait_for_cheap_ones() -> None:
    """After a slow request, the next one of the connection yields to other clients."""
    count = 10

    def respond(request: Request) -> Outcome:
        if request.target == b"/slow":
            end = monotonic() + 20 * MAX_CHEAP_TIME
            while monotonic() < end:
                pass
        return ok(request)

    recorder = Recorder(respond)
    with ExitStack() as stack:
        server = stack.enter_context(Server(recorder.handle))
        *slow, cheap = (
            stack.enter_context(Wire(server.port)) for _ in range(count + 1)
        )
        for wire in slow:
            wire.send(get(b"slow"))
            assert wire.answer().status == 200
        recorder.seen.clear()
        with stopped_loop(server):
            for wire in slow:
                wire.send(get(b"slow"))
            cheap.send(get(b"cheap"))
        assert cheap.answer().status == 200
        for wire in slow:
            assert wire.answer().status == 200
    targets = [target for _, target in recorder.seen]
    assert targets.index(b"/cheap") <= 2 * (ITERATION_BUDGET // COSTLY + 1)
