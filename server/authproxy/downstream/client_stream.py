"""The byte stream of an HTTP/1.1 client: receive buffers and flow control.

`Connection` extends it with parsing and dispatch, an `Exchange` takes its body from it
and writes its response to it. It is a base class, not a part of the connection, so that
an auth check needs no further attribute lookup.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from ..http.body_decoders import Decoder
from ..http.request_head import RequestHead
from ..loop.write_coalescing import ConnectionWriter
from ..net.tunnel import UpgradedConnection
from ..serve.worker_context import WorkerContext

# Bytes received and not yet taken before reading pauses. uvloop reads up to 250 kB at
# once, so a connection buffers at most the sum of both (a longer head adds its size).
RECEIVE_HIGH_WATER = 64 << 10
# Unsent bytes of a streamed response above which no more is received from the upstream.
WRITE_HIGH_WATER = 4 << 10
# Measured microseconds to transfer bytes in one direction, and bytes per microsecond.
TRANSFER_COST = 20
DATA_BYTES_PER_COST = 4096


class ClientStream(asyncio.Protocol, ABC):
    """Bytes from and to one client.

    Received bytes are in ``received``; while an exchange takes a body, the chunks that
    arrive after them are queued without copying (`next_chunk`). ``out`` writes, ``lost``
    is set when the connection is closed.
    """

    __slots__ = (
        "_at_eof",
        "_chunk_bytes",
        "_chunks",
        "_input_waiter",
        "_reading_paused",
        "_waiting_since",
        "_worker",
        "_writable",
        "_write_waiter",
        "lost",
        "out",
        "received",
        "transport",
    )

    out: ConnectionWriter
    transport: asyncio.Transport

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self.received = bytearray()
        self._chunks: deque[bytes] = deque()  # received after `received`
        self._chunk_bytes = 0
        self.lost = False
        self._at_eof = False  # the client has half-closed the connection
        self._reading_paused = False
        self._waiting_since = worker.clock.now  # for the client; monotonic seconds
        self._writable = True  # the transport's buffer is below its high-water mark
        self._input_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None

    # Called by the exchange.

    def next_chunk(self) -> bytes:
        """Return the next chunk received after ``received``; b"" if there is none."""
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        self._chunk_bytes -= len(chunk)
        return chunk

    async def wait_readable(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait for more received bytes; return False if there will be none.

        Raises TimeoutError after *timeout* seconds (0: no timeout).
        """
        if self._at_eof or self.lost:
            return False
        self._update_reading()
        self._waiting_since = self._worker.clock.now
        waiter = asyncio.get_running_loop().create_future()
        self._input_waiter = waiter
        try:
            async with asyncio.timeout(timeout or None):
                await waiter
        finally:
            self._input_waiter = None
        return True

    async def wait_writable(self) -> bool:
        """Wait until the client has read enough; return False if it disconnected."""
        while not self._writable and not self.lost:
            self._waiting_since = self._worker.clock.now
            waiter = asyncio.get_running_loop().create_future()
            self._write_waiter = waiter
            try:
                await waiter
            finally:
                self._write_waiter = None
        return not self.lost

    def limit_unsent(self) -> None:
        """Buffer little of the responses; the socket has a large buffer of its own."""
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits(WRITE_HIGH_WATER)

    def may_persist(self, head: RequestHead) -> bool:
        """Return whether another request may follow the one with *head*."""
        return (
            head.keep_alive
            and not self._worker.stopping
            and not (self._at_eof and not self.received)
        )

    async def spend_bytes(self, data: int, framing: int = 0) -> None:
        """Wait for a turn if the event loop has handled many bytes in this iteration.

        *data* and *framing* are the bytes just handled. A byte of framing costs much
        more, because it is parsed.
        """
        cost = TRANSFER_COST + data // DATA_BYTES_PER_COST + framing
        await self._worker.turns.spend(cost)

    @abstractmethod
    def exchange_ended(self, decoder: Decoder, *, close: bool) -> None:
        """Skip the rest of the body in *decoder* and take the next request, or close."""

    def detach(self) -> UpgradedConnection:
        """Hand over the transport, with all received bytes, to another protocol.

        The buffers are deleted: thousands of tunnels may stay open for hours.
        """
        self._gather()
        early = bytes(self.received)
        del self._chunks, self.received
        return UpgradedConnection(self.transport, self.connection_lost, early)

    # Called by the event loop, through the connection.

    def pause_writing(self) -> None:
        """Stop responding: the client does not read."""
        self._writable = False

    def resume_writing(self) -> None:
        """Continue responding: the client has read enough."""
        self._writable = True
        self.out.progress = True
        self._wake_writer()

    # Called by the connection.

    def _append_chunk(self, data: bytes) -> None:
        """Queue a chunk of a large body without copying it."""
        self._chunks.append(data)
        self._chunk_bytes += len(data)
        self._wake_reader()
        self._update_reading()

    def _gather(self) -> None:
        """Move all queued chunks to ``received``."""
        while self._chunks:
            self.received += self.next_chunk()

    def _update_reading(self) -> None:
        """Pause or resume reading from the socket by the number of buffered bytes."""
        # A whole head must fit, or a request with a long one would wait forever.
        buffered = len(self.received) + self._chunk_bytes
        if buffered > max(RECEIVE_HIGH_WATER, self._worker.limits.head_bytes):
            self._pause_reading()
        else:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()

    def _wake_reader(self) -> None:
        waiter = self._input_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake_writer(self) -> None:
        waiter = self._write_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
