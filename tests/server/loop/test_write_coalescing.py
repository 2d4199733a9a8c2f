"""Write coalescing, timeout queues, and the encoded fields of requests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest
import uvloop

from authproxy.http.response_encoder import encode_fields
from authproxy.loop.timeout_queue import TimeoutQueue
from authproxy.loop.write_coalescing import (
    MAX_COALESCED_WRITES,
    ConnectionWriter,
    WriteCoalescer,
)
from authproxy.serve.encoding_caches import FieldCache
from authproxy.upstream.relay import encode_forwardable_fields, request_head
from authproxy_core.messages import Forward, Header, Headers, Upstream
from support.ports import LOOPBACK

Scene = Callable[[asyncio.Transport, asyncio.StreamReader], Awaitable[None]]


def connected(scene: Scene) -> None:
    """Run *scene* with one end of a connection and a reader at the other."""

    async def main() -> None:
        accepted: asyncio.Future[asyncio.StreamReader] = asyncio.Future()
        open_end = asyncio.Event()

        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            accepted.set_result(reader)
            await open_end.wait()
            writer.close()

        loop = asyncio.get_running_loop()
        async with await asyncio.start_server(accept, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            transport, _ = await loop.create_connection(
                asyncio.Protocol, LOOPBACK, port
            )
            try:
                await scene(transport, await accepted)
            finally:
                transport.abort()
                open_end.set()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def nothing_comes(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.read(1)


def test_write_coalescer_flushes_in_order_at_the_end_of_the_iteration() -> None:
    async def scene(transport: asyncio.Transport, reader: asyncio.StreamReader) -> None:
        coalescer = WriteCoalescer()
        coalescer.write(transport, b"a")
        coalescer.write(transport, b"b")
        assert await reader.readexactly(2) == b"ab"
        coalescer.write(transport, b"c")
        assert await reader.readexactly(1) == b"c"

    connected(scene)


def test_write_coalescer_full_queue_flushes_at_once() -> None:
    async def scene(transport: asyncio.Transport, reader: asyncio.StreamReader) -> None:
        coalescer = WriteCoalescer()
        loop = asyncio.get_running_loop()
        turns = []
        loop.call_soon(turns.append, "next turn")
        for number in range(MAX_COALESCED_WRITES):
            coalescer.write(transport, b"%d," % number)
        # The queue is empty now, so closing loses nothing.
        transport.close()
        assert not turns
        expected = b"".join(b"%d," % number for number in range(MAX_COALESCED_WRITES))
        assert await reader.read() == expected

    connected(scene)


@pytest.mark.parametrize("how", ["close", "write_eof", "abort", "write_now"])
def test_connection_writer_other_operations_follow_queued_writes(how: str) -> None:
    async def scene(transport: asyncio.Transport, reader: asyncio.StreamReader) -> None:
        coalescer = WriteCoalescer()
        out = ConnectionWriter(coalescer, transport)
        out.write(b"first")
        match how:
            case "close":
                out.close()
            case "write_eof":
                out.write_eof()
            case "abort":
                out.abort()
            case _:
                out.write_now(b", second")
        assert await reader.readexactly(5) == b"first"
        if how == "write_now":
            assert await reader.readexactly(8) == b", second"
        else:
            assert await reader.read() == b""

    connected(scene)


def test_write_coalescer_closed_transport_skipped() -> None:
    async def scene(transport: asyncio.Transport, reader: asyncio.StreamReader) -> None:
        coalescer = WriteCoalescer()
        coalescer.write(transport, b"lost")
        transport.abort()
        coalescer.flush()
        assert await reader.read() == b""

    connected(scene)


def test_write_coalescer_failed_write_does_not_stop_others() -> None:
    """A write after EOF fails; the writes after it arrive."""

    async def scene(transport: asyncio.Transport, reader: asyncio.StreamReader) -> None:
        first, second = socket.socketpair()
        loop = asyncio.get_running_loop()
        half_closed, _ = await loop.create_connection(asyncio.Protocol, sock=first)
        half_closed.write(b"x" * 4_000_000)  # pending bytes keep it open
        half_closed.write_eof()
        coalescer = WriteCoalescer()
        coalescer.write(half_closed, b"too late")
        coalescer.write(transport, b"arrives")
        try:
            coalescer.flush()
            assert await reader.readexactly(7) == b"arrives"
        finally:
            half_closed.abort()
            second.close()

    connected(scene)


class Handler:
    """Records its timeouts."""

    def __init__(self, notes: list[str], name: str) -> None:
        self.notes, self.name = notes, name

    def on_timeout(self) -> None:
        self.notes.append(self.name)


def test_timeout_queue_calls_each_handler_once_after_its_timeout() -> None:
    """Discarded handlers are not called."""
    notes: list[str] = []

    async def main() -> None:
        queue = TimeoutQueue(0.05)
        first, second, third = (Handler(notes, name) for name in ("a", "b", "c"))
        now = monotonic()
        queue.add(first, now)
        queue.add(second, now)
        queue.add(third, now + 0.02)
        queue.discard(second)
        queue.discard(second)
        while "a" not in notes:
            await asyncio.sleep(0.001)
        assert monotonic() >= now + 0.05
        while "c" not in notes:
            await asyncio.sleep(0.001)
        assert monotonic() >= now + 0.07
        queue.add(first, monotonic())
        queue.clear()
        queue.add(second, monotonic() - 1)  # already expired
        while "b" not in notes:
            await asyncio.sleep(0.001)
        TimeoutQueue(0).add(first, now)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert notes == ["a", "c", "b"]


def test_field_cache_is_bounded_in_bytes() -> None:
    cache = FieldCache(limit=2000)
    tuples: list[Headers] = [((b"x-number", b"%d" % number),) for number in range(20)]
    for _ in range(2):
        for headers in tuples:
            assert cache.encoded(headers) == encode_fields(headers)
    assert cache.encoded(tuples[-1]) is cache.encoded(tuples[-1])
    large: Headers = ((b"x", b"y" * 3000),)
    assert cache.encoded(large) == encode_fields(large)
    assert cache.encoded(large) is not cache.encoded(large)


HOST: Header = (b"host", b"a")
USER: Header = (b"x-forwarded-user", b"alice")


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        ((HOST, USER), (USER,)),
        ((HOST, USER), ()),
        ((USER, HOST), (USER,)),  # in an unexpected place: neither lost nor doubled
        ((HOST, USER, HOST), (USER, USER)),
    ],
)
def test_request_head_identity_headers_sent_once(
    headers: Headers, identity: Headers
) -> None:
    app = Upstream("a", "http", "h", 1)
    forward = Forward(app, b"GET", b"/", headers, identity=identity)
    for encode in (
        encode_forwardable_fields,
        FieldCache(encode_forwardable_fields).encoded,
    ):
        head = request_head(forward, 0, encode=encode)
        assert head == b"GET / HTTP/1.1\r\n" + encode_fields(headers) + b"\r\n"


def test_request_head_identity_headers_cannot_set_framing() -> None:
    app = Upstream("a", "http", "h", 1)
    identity: Headers = ((b"proxy-authorization", b"x"), (b"transfer-encoding", b"x"))
    forward = Forward(app, b"GET", b"/", (HOST, *identity), identity=identity)
    assert request_head(forward, 0) == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
