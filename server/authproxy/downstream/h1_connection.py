"""One client's connection: bytes to requests, requests to answers, in their order.

The usual request, a head without a body that the application answers by itself, goes
straight through: `data_received` parses it, asks the application, writes the answer
and its log line, all in one call, without a task. Everything else becomes an
`Exchange`, served by a task (`serving.serve`). While an exchange is under way, what
the client sends stays in `received`, from which the exchange takes the body; the next
request is looked at only when the answer before it is complete.

Reading from the socket pauses while more than `RECEIVE_HIGH` bytes wait, and requests
are not answered while the client does not read the answers. The time limits cost
nothing per request: the worker calls `check` on every connection about once a second.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from time import monotonic
from typing import cast

from authproxy_core.errors import RequestError
from authproxy_core.messages import Forward, Request, Respond

from ..http import response_encoder
from ..http.body_decoders import Decoder
from ..http.request_head import BLANK_LINE, HeadError, HeadReader, RequestHead
from ..logs.formatter import RequestRecord
from ..net.addresses import format_peer
from ..net.tunnel import UpgradedConnection
from ..net.write_coalescing import ConnectionWriter
from ..serve.request_task import serve_exchange
from ..serve.worker_context import MODULE, WorkerContext
from .h1_exchange import Exchange

# Bytes that wait before reading pauses; uvloop reads 250 kB at once.
RECEIVE_HIGH = 256 << 10
DRAIN_BYTES = 64 << 10  # of an unread body that are skipped to keep a connection
LINGER = 2.0  # seconds for a client to notice the end before the connection is cut
LINGER_BYTES = 1 << 20  # that are read and dropped meanwhile
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
TURN = 16  # pipelined requests that are answered before others get their turn
FAILED = response_encoder.error_response(500)


class Connection(asyncio.Protocol):
    """The protocol object of one accepted connection."""

    __slots__ = (
        "_announced",
        "_chunk_bytes",
        "_chunks",
        "_client",
        "_drain",
        "_drain_left",
        "_ended",
        "_exchange",
        "_fresh",
        "_hub",
        "_input_waiter",
        "_lingering",
        "_paused",
        "_peer",
        "_reader",
        "_scanned",
        "_secure",
        "_since",
        "_writable",
        "_write_waiter",
        "age",
        "lost",
        "out",
        "received",
        "switched",
        "transport",
    )

    def __init__(
        self, hub: WorkerContext, client: tuple[str, int] | None = None
    ) -> None:
        self._hub = hub
        self._announced = client  # by the PROXY protocol
        self._reader = HeadReader(hub.limits)
        self.received = bytearray()
        self._chunks: deque[bytes] = deque()  # behind `received`, for the exchange
        self._chunk_bytes = 0
        self.lost = False
        self.switched = False  # it speaks another protocol now
        self._exchange: Exchange | None = None
        self._drain: Decoder | None = None  # of a body that nobody wants
        self._drain_left = 0
        self._scanned = 0
        self._fresh = True
        self._ended = False  # the client has sent its last byte
        self._lingering = False
        self._paused = False
        self._writable = True
        self._input_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._since = hub.clock.now

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom we talk to."""
        self.transport = cast(asyncio.Transport, transport)
        self.out = ConnectionWriter(self._hub.outbox, self.transport)
        peer = self._announced or transport.get_extra_info("peername")
        self._peer, self._client = format_peer(peer)
        self._secure = transport.get_extra_info("sslcontext") is not None
        self.age = self._hub.join(self)

    def data_received(self, data: bytes) -> None:
        """Take what has come: nearly always exactly one head."""
        if not self.received and self._exchange is None and self._is_ready():
            head = self._reader.read_single(data)
            if head is not None:
                self._answer(head)
                return
        if self._lingering:
            self._drop(len(data))
            return
        if self._exchange is not None and (self._chunks or not self.received):
            self._chunks.append(data)  # of a large body: it is not copied
            self._chunk_bytes += len(data)
            self._wake_reader()
            self._regulate()
            return
        # Empty lines before a request are no sign of life.
        if not self.received and data.strip(b"\r\n"):
            self._since = self._hub.clock.now
        self.received += data
        self._wake_reader()
        self.advance()

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for its answer."""
        self._ended = True
        self._wake_reader()
        # A client that has left looks the same. Its flow runs on, but no upstream
        # works, or keeps silent, for one that is probably gone.
        if self._exchange is not None:
            self._exchange.gone.set()
        if self._secure:
            return False
        self.advance()  # which closes when there is nothing left to answer
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, in whatever way."""
        self.lost = True
        hub = self._hub
        hub.leave(self)
        if self._exchange is not None:
            self._exchange.gone.set()
        self._wake_reader()
        self._wake_writer()
        hub.on_connection_lost()

    def pause_writing(self) -> None:
        """The client does not keep up with reading."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable = True
        self.out.progress = True
        self._wake_writer()
        self.advance()

    # What the exchange uses.

    def next_chunk(self) -> bytes:
        """What has come behind `received`, as it came; b"" for nothing."""
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        self._chunk_bytes -= len(chunk)
        return chunk

    def _gather(self) -> None:
        """Let all that has come be in `received`."""
        while self._chunks:
            self.received += self.next_chunk()

    async def wait_readable(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until more has been received; False when there will be no more.

        Raises TimeoutError after *timeout* seconds (0: no limit).
        """
        if self._ended or self.lost:
            return False
        self._regulate()
        waiter = asyncio.get_running_loop().create_future()
        self._input_waiter = waiter
        try:
            async with asyncio.timeout(timeout or None):
                await waiter
        finally:
            self._input_waiter = None
        return True

    async def wait_writable(self) -> bool:
        """Wait until the client has read enough; False when it is gone."""
        while not self._writable and not self.lost:
            waiter = asyncio.get_running_loop().create_future()
            self._write_waiter = waiter
            try:
                await waiter
            finally:
                self._write_waiter = None
        return not self.lost

    def may_persist(self, head: RequestHead) -> bool:
        """Whether the connection can serve another request after this one."""
        return (
            head.keep_alive
            and not self._hub.stopping
            and not (self._ended and not self.received)
        )

    def give_away(self) -> UpgradedConnection:
        """Let somebody else have the transport; what was received goes with it.

        What only HTTP needs is let go: it may be for hours, and for thousands.
        """
        self._gather()
        early = bytes(self.received)
        self.switched = True
        self._exchange = None
        del self._reader, self._chunks, self.received
        return UpgradedConnection(self.transport, self.connection_lost, early)

    def exchange_ended(self, exchange: Exchange, *, close: bool) -> None:
        """The answer is complete; go on with the next request, or close."""
        self._exchange = None
        self._since = self._hub.clock.now
        if self.lost:
            return
        more = self.received or self._chunks or self._ended
        if not more and not close and exchange.decoder.done:
            self._resume()
            return
        self._gather()
        if close:
            self.close_gently()
            return
        if not exchange.decoder.done:
            self._drain = exchange.decoder
            self._drain_left = DRAIN_BYTES
        self.advance()

    def close_gently(self) -> None:
        """Close so that the client can still read the answer.

        Closing while unread bytes wait would reset the connection, and the answer
        could be lost with them: our side ends first, what still comes is dropped.
        """
        self.received.clear()
        if self._ended or self._secure or not self.transport.can_write_eof():
            self.out.close()
            return
        self._lingering = True
        self._drain_left = LINGER_BYTES
        self._since = self._hub.clock.now
        self._resume()
        self.out.write_eof()

    # What the worker uses.

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered.

        What is no HTTP any more has no end that could be waited for.
        """
        if self.switched:
            return True
        return self._exchange is None and not self.received and self._drain is None

    @property
    def evictable(self) -> bool:
        """Whether it may be closed to make room for another client."""
        return self._exchange is None and not self.switched

    @property
    def waiting(self) -> tuple[float, int]:
        """Sorts connections by how long they have waited, the longest first."""
        return self._since, self.age

    def check(self, now: float) -> None:
        """Apply the time limits."""
        limits = self._hub.limits
        if self.out.stalled(now, limits.write_timeout):
            self.out.abort()
            return
        if self.switched:
            return
        waited = now - self._since
        if self._lingering:
            if waited >= LINGER:
                self.out.abort()
        elif self._exchange is not None:
            pass  # its waits have their own limits
        elif self._drain is not None:
            if waited >= limits.head_timeout:
                self.close_gently()
        elif self.received:
            if waited >= limits.head_timeout and self._writable:
                self._refuse(408, "the head took too long")
        elif waited >= (limits.head_timeout if self._fresh else limits.idle_timeout):
            self.out.close()

    def advance(self) -> None:
        """Answer the requests that have been received."""
        for _ in range(TURN):
            if not self.received or not self._drained() or not self._is_ready():
                break
            head = self._next_head()
            if head is None:
                break
            self._answer(head)
            if self.received:  # no answers are piled up for who does not read them
                self._hub.outbox.flush()
        else:
            asyncio.get_running_loop().call_soon(self.advance)
            return
        if self._ended and self._exchange is None and self._writable and not self.lost:
            self.out.close()
        self._regulate()

    def _is_ready(self) -> bool:
        return (
            self._exchange is None
            and self._writable
            and self._drain is None
            and not self._lingering
            and not self.transport.is_closing()
        )

    # Parsing and answering.

    def _next_head(self) -> RequestHead | None:
        """Cut the next head out of what was received; None when it isn't whole."""
        received = self.received
        # RFC 9112 §2.2: empty lines before a request line are skipped.
        while received[:2] == b"\r\n":
            del received[:2]
            self._scanned = 0
        # What was looked at before is not looked at again.
        start = max(self._scanned - 3, 0)
        end = received.find(BLANK_LINE, start)
        limit = self._hub.limits.head_bytes
        if end < 0 or end + 4 > limit:
            self._scanned = len(received)
            if end >= 0 or len(received) > limit:
                self._refuse(431, f"a head of more than {limit} bytes")
            elif BARE_LINE_FEED.search(received, start):
                self._refuse(400, "a line feed without carriage return")
            return None
        data = bytes(received[: end + 4])
        del received[: end + 4]
        self._scanned = 0
        try:
            return self._reader.read(data)
        except HeadError as error:
            self._refuse(error.status, str(error))
            return None

    def _answer(self, head: RequestHead) -> None:
        """Ask the application; answer at once, or by an exchange."""
        hub = self._hub
        began = monotonic()
        self._fresh = False
        request = Request(
            head.method,
            head.target,
            head.headers,
            self._peer,
            self._secure,
            hub.request_ids.choose(head.sole(hub.request_id_header)),
        )
        application = hub.application
        try:
            outcome = application.handle(request)
        except Exception as error:
            hub.logs.exception(MODULE, f"request {request.id} failed", error)
            outcome = FAILED
        if type(outcome) is Respond and head.length == 0:
            self._respond(head, request, outcome, began)
            return
        exchange = Exchange(self, hub, head, request, application, self._client, began)
        self._exchange = exchange
        if (
            type(outcome) is Forward
            and hub.forwarder is not None
            and hub.forwarder.begin(exchange, outcome)
        ):
            return
        hub.spawn(serve_exchange(exchange, outcome))

    def _respond(
        self, head: RequestHead, request: Request, respond: Respond, began: float
    ) -> None:
        hub = self._hub
        persists = self.may_persist(head) and respond is not FAILED
        persistence: response_encoder.Persistence = "close"
        if persists:
            persistence = "" if head.minor else "keep-alive"
        head_only = head.method == b"HEAD"
        try:
            data = hub.answers.encoded(
                respond, hub.clock.date, head_only=head_only, persistence=persistence
            )
        except ValueError as error:
            hub.logs.exception(MODULE, f"request {request.id} failed", error)
            respond, persists = FAILED, False
            data = response_encoder.encode_error(500, hub.clock.date)
        self.out.write(data)
        hub.record_response(
            RequestRecord(
                head,
                request,
                self._client,
                respond.status,
                len(respond.body),
                monotonic() - began,
                respond.user,
                "",
                respond.verdict,
                respond.reason,
            ),
            respond.events,
        )
        self._since = hub.clock.now
        if not persists:
            self.close_gently()

    def _refuse(self, status: int, reason: str) -> None:
        """The fixed answer to what never reaches the application, then the end."""
        self._hub.logs.info(
            MODULE, f"refused a request of {self._client} with {status}: {reason}"
        )
        self.out.write(response_encoder.encode_error(status, self._hub.clock.date))
        self.close_gently()

    def _drained(self) -> bool:
        """Skip the body that nobody wanted; False while some of it is missing."""
        drain = self._drain
        if drain is None:
            return True
        try:
            while not drain.done:
                piece = drain.take(self.received)
                self._drain_left -= len(piece)
                if self._drain_left < 0:
                    self._drain = None
                    self.close_gently()
                    return False
                if not piece and not drain.done:
                    return False
        except RequestError:
            self._drain = None
            self.close_gently()
            return False
        self._drain = None
        self._since = self._hub.clock.now
        return True

    # Flow control.

    def _regulate(self) -> None:
        """Pause or resume reading by how much waits."""
        # A head must fit, or it could never become whole.
        waiting = len(self.received) + self._chunk_bytes
        if waiting > max(RECEIVE_HIGH, self._hub.limits.head_bytes):
            if not self._paused and not self.transport.is_closing():
                self._paused = True
                self.transport.pause_reading()
        else:
            self._resume()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def _drop(self, size: int) -> None:
        self._drain_left -= size
        if self._drain_left < 0:
            self.out.abort()

    def _wake_reader(self) -> None:
        waiter = self._input_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake_writer(self) -> None:
        waiter = self._write_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
