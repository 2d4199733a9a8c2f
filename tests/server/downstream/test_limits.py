"""Limits of memory per client, upstream and store: at the limit and just above it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authproxy.downstream.h1_exchange import MAX_DRAIN_BYTES
from authproxy.http.body_decoders import MAX_LINE_BYTES, MAX_OVERHEAD_BYTES
from authproxy.net.proxy_protocol import (
    HEADER_TIMEOUT,
    MAX_HEADER_BYTES,
    MAX_V1_HEADER_BYTES,
    SIGNATURE,
    HeaderError,
    parse_header,
)
from authproxy.server_settings import RedisAddress
from authproxy.stores import sqlite_file, sqlite_thread
from authproxy.stores.redis_connection import (
    MAX_PENDING_COMMANDS,
    MAX_REPLY,
    ConnectionLostError,
    RedisConnection,
)
from authproxy.stores.sqlite_file import open_database
from authproxy.stores.sqlite_thread import SqliteThread
from authproxy.stores.store_locks import MAX_DEFERRED_RELEASES, StoreLocks
from authproxy.upstream.h2_relay import MAX_CONNECTIONS
from authproxy.upstream.h2_upstream_connection import MAX_INFORMATIONAL, MAX_STREAMS
from authproxy_core.effects import Outcome, ReadBody
from authproxy_core.errors import StoreError
from authproxy_core.messages import Forward, Request, Upstream
from support.h2_server import Call, H2Server, Reply
from support.ports import LOOPBACK
from support.program import Program
from support.scripted import Peer, ScriptedServer, run
from support.server import Server, Wire, flow, until

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


# Chunked bodies


def reading(request: Request) -> Outcome:
    """Respond with the body."""
    return flow(ReadBody(1 << 20))


def status_of(body: bytes) -> int:
    """Return the status of the response to a chunked body."""
    with Server(reading) as server, Wire(server.port) as wire:
        wire.send(CHUNKED + body)
        answer = wire.answer()
        assert answer.status != 200 or answer.body.strip(b"x") == b""
        return answer.status


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
def test_chunked_body_line_limit(more: int, status: int) -> None:
    size = MAX_LINE_BYTES + more
    line = b"1;" + b"e" * (size - 4) + b"\r\n"
    assert len(line) == size
    assert status_of(line + b"x\r\n0\r\n\r\n") == status
    trailer = b"T: " + b"v" * (size - 5) + b"\r\n"
    assert len(trailer) == size
    assert status_of(b"1\r\nx\r\n0\r\n" + trailer + b"\r\n") == status
    # Also if its end has not been received.
    assert status_of(line[:-2] + b"e\r\nx\r\n0\r\n\r\n") == 400


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
def test_chunked_body_overhead_limit(more: int, status: int) -> None:
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    rest = MAX_OVERHEAD_BYTES - 10 * 1001 + more
    trailers = []
    while rest:
        size = min(rest, 1000)
        trailers.append(b"T:" + b"v" * (size - 2) + b"\r\n")
        rest -= size
    assert status_of(chunk * 10 + b"0\r\n" + b"".join(trailers) + b"\r\n") == status


@pytest.mark.parametrize("more", [0, 1])
def test_unread_body_drain_limit(more: int) -> None:
    """A short body is skipped, and the connection persists."""
    size = MAX_DRAIN_BYTES + more
    with Server() as server, Wire(server.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        answer = wire.answer()
        assert answer.status == 200
        assert answer.headers.get("connection") == ("close" if more else None)
        wire.send(b"x" * size + GET)
        if more:
            assert wire.ended
        else:
            assert wire.answer().body == b"GET /"


@pytest.mark.parametrize("more", [0, 1])
def test_unread_chunked_body_drain_limit(more: int) -> None:
    """The size is unknown in advance, so the connection closes only at the limit."""
    size = MAX_DRAIN_BYTES + more
    with Server() as server, Wire(server.port) as wire:
        wire.send(CHUNKED)
        assert wire.answer().status == 200
        wire.send(b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n" + GET)
        if more:
            assert wire.ended
        else:
            assert wire.answer().body == b"GET /"


# The PROXY protocol


def test_proxy_protocol_v1_length_limit() -> None:
    start = b"PROXY UNKNOWN "
    line = start + b"x" * (MAX_V1_HEADER_BYTES - len(start) - 2) + b"\r\n"
    assert len(line) == MAX_V1_HEADER_BYTES == 107
    for part in range(len(line)):
        assert parse_header(line[:part]) is None
    found = parse_header(line + b"GET /")
    assert found is not None
    assert found.size == MAX_V1_HEADER_BYTES
    longer = line[:-2] + b"x\r\n"
    for part in (longer[:MAX_V1_HEADER_BYTES], longer):
        with pytest.raises(HeaderError, match="too long"):
            parse_header(part)


def test_proxy_protocol_v2_length_limit() -> None:
    head = SIGNATURE + b"\x21\x00"
    length = MAX_HEADER_BYTES - len(head) - 2
    header = head + length.to_bytes(2, "big") + bytes(length)
    found = parse_header(header)
    assert found is not None
    assert found.size == MAX_HEADER_BYTES
    with pytest.raises(HeaderError, match="more than 4096 bytes"):
        parse_header(head + (length + 1).to_bytes(2, "big"))


def test_proxy_protocol_incomplete_header_times_out(tmp_path: Path) -> None:
    """An incomplete header closes the connection at the timeout, not earlier."""
    with Program(tmp_path, proxy_protocol_from=[LOOPBACK]) as program:
        program.started()
        started = time.monotonic()
        with Wire(program.port) as slow, Wire(program.port) as late:
            slow.send(b"PROXY ")
            late.send(b"PROXY UNKNO")
            late.socket.settimeout(HEADER_TIMEOUT - 1)
            with pytest.raises(TimeoutError):  # still open
                late.socket.recv(1)
            late.socket.settimeout(5)
            late.send(b"WN\r\n" + b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
            assert late.answer().status == 200
            slow.socket.settimeout(HEADER_TIMEOUT + 5)
            assert slow.rest() == b""
            assert (
                HEADER_TIMEOUT - 0.5 < time.monotonic() - started < HEADER_TIMEOUT + 4
            )


# HTTP/2 upstreams


def to(port: int) -> Callable[[Request], Outcome]:
    """Return an application that forwards everything."""
    upstream = Upstream("grpc", "http", LOOPBACK, port, http2=True)

    def forward(request: Request) -> Outcome:
        fields = tuple(request.headers)
        return Forward(upstream, request.method, request.target, fields)

    return forward


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 502)])
def test_h2_upstream_informational_limit(more: int, status: int) -> None:
    reply = Reply(interim=[("a", "b")], interims=MAX_INFORMATIONAL + more)
    with (
        H2Server(lambda call: reply) as app,
        Server(to(app.port)) as server,
        Wire(server.port) as wire,
    ):
        wire.send(GET)
        while (answer := wire.answer()).status == 103:
            pass
        assert answer.status == status


class Waiting:
    """Requests that wait for an upstream that does not respond."""

    def __init__(self, stack: contextlib.ExitStack, streams: int) -> None:
        self.calls: list[Call] = []
        self.app = stack.enter_context(H2Server(self._silent, streams=streams))
        self._server = stack.enter_context(Server(to(self.app.port)))
        self._stack = stack

    def _silent(self, call: Call) -> Reply:
        self.calls.append(call)
        return Reply(silent=True)

    def ask(self) -> Wire:
        """Send another request."""
        wire = self._stack.enter_context(Wire(self._server.port))
        wire.send(GET)
        return wire

    def add(self) -> None:
        """Send another request; wait until the upstream has it and its SETTINGS are known."""
        count = len(self.calls) + 1
        self.ask()
        until(lambda: len(self.calls) == count, "the request")
        app = self.app
        until(lambda: app.acknowledged == app.connections, "the settings")


def test_h2_upstream_connection_limit() -> None:
    with contextlib.ExitStack() as stack:
        waiting = Waiting(stack, streams=1)
        for number in range(MAX_CONNECTIONS):
            waiting.add()
            assert waiting.app.connections == number + 1
        assert waiting.ask().answer().status == 502
        assert waiting.app.connections == MAX_CONNECTIONS


def test_h2_upstream_stream_limit() -> None:
    with contextlib.ExitStack() as stack:
        waiting = Waiting(stack, streams=10 * MAX_STREAMS)
        for _ in range(MAX_STREAMS):
            waiting.add()
        assert waiting.app.connections == 1
        waiting.add()
        assert waiting.app.connections == 2


# Stores


def test_sqlite_thread_queue_limit(tmp_path: Path) -> None:
    go = threading.Event()

    async def main() -> None:
        works = SqliteThread(
            str(tmp_path / "s.db"), writes=False, on_state=lambda: None
        )
        first = asyncio.ensure_future(works.run(lambda _: go.wait(20), 20))
        await asyncio.sleep(0)  # it has been taken from the queue
        rest = [
            asyncio.ensure_future(works.run(lambda _: 1, 20))
            for _ in range(sqlite_thread.MAX_QUEUED_JOBS)
        ]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="session store queue full"):
            await works.run(lambda _: 1, 20)
        go.set()
        assert await first
        assert sum(await asyncio.gather(*rest)) == sqlite_thread.MAX_QUEUED_JOBS
        assert await works.run(lambda _: 1, 20) == 1
        await works.close()

    run(main())


async def connect_redis(port: int) -> RedisConnection:
    """Return a connection to a Redis server at *port*."""
    loop = asyncio.get_running_loop()
    address = RedisAddress(host=LOOPBACK, port=port)
    _, link = await loop.create_connection(
        lambda: RedisConnection(address, 20), LOOPBACK, port
    )
    return link


def test_redis_connection_queue_limit() -> None:
    async def silent(peer: Peer) -> None:
        await peer.reader.read()

    async def main() -> None:
        async with ScriptedServer(silent) as played:
            link = await connect_redis(played.port)
            asked = [link.send(("PING",)) for _ in range(MAX_PENDING_COMMANDS)]
            with pytest.raises(StoreError, match="session store queue full"):
                link.send(("PING",))
            link.abort("the end")
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(one) for one in ended} == {ConnectionLostError}

    run(main())


@pytest.mark.parametrize("more", [0, 1])
def test_redis_connection_reply_limit(more: int) -> None:
    """Above the limit an incomplete reply is not buffered."""
    head = b"$%d\r\n" % (MAX_REPLY - 10 + more)
    assert len(head) == 10
    text = head + b"x" * (MAX_REPLY - 10 + more)

    async def long(peer: Peer) -> None:
        await peer.reader.readuntil(b"PING\r\n")
        await peer.send(text + (b"" if more else b"\r\n"))
        await peer.reader.read()

    async def main() -> None:
        async with ScriptedServer(long) as played:
            link = await connect_redis(played.port)
            answer = link.send(("PING",))
            if more:
                with pytest.raises(ConnectionLostError, match="longer than"):
                    await answer
            else:
                assert len(await answer) == MAX_REPLY - 10
            link.abort("the end")

    run(main())


def test_sqlite_set_member_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MAX_MEMBERS", 3)
    connection = open_database(str(tmp_path / "s.db"))
    with contextlib.closing(connection):
        for number, found in ((1, 1), (2, 2), (3, 3), (4, 3)):
            sqlite_file.add(connection, "set", b"m%d" % number, 60.0, 1.0)
            assert len(sqlite_file.members(connection, "set", 2.0)) == found


def test_store_locks_deferred_release_limit() -> None:
    async def away() -> None:
        raise StoreError("away")

    async def main() -> list[str]:
        locks = StoreLocks()
        for number in range(MAX_DEFERRED_RELEASES + 1):
            with pytest.raises(StoreError):
                await locks.release(f"k{number}", f"t{number}", away)
        given: list[str] = []

        async def release(key: str, token: str) -> None:
            given.append(key)

        await locks.release_deferred(release)
        return given

    assert run(main()) == [f"k{number}" for number in range(MAX_DEFERRED_RELEASES)]
