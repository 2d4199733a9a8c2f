"""An HTTP/1.1 client connection: parse requests, respond to them in their order.

The fast path is a request without a body that the core answers immediately, such as an
auth check: `data_received` parses it, asks the application, writes the response and the
log line in one call, without a task. Every other request becomes an `Exchange`, served
by a task (`serve_exchange`) or by the forwarder's fast path. During an exchange the
received bytes stay in the buffers of `ClientStream`, from which the exchange takes the
body; the next request is parsed when the response is complete.

Requests are not answered while the client does not read the responses. Of pipelined
requests, the first is handled at once and the rest in turns, while reading pauses, so
one client cannot keep the event loop busy. Timeouts cost nothing per request: the worker calls `check_timeouts` on every connection about once
per second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from time import monotonic
from typing import cast

from authproxy_core.errors import RequestError
from authproxy_core.messages import Forward, Request, Respond

from ..contract import MODULE
from ..http import response_encoder
from ..http.body_decoders import Decoder
from ..http.request_head import BLANK_LINE, HeadError, HeadReader, RequestHead
from ..logs.formatter import RequestRecord
from ..loop.fair_queue import ITERATION_BUDGET
from ..loop.write_coalescing import ConnectionWriter
from ..net.addresses import format_peer
from ..net.tunnel import UpgradedConnection
from ..serve.request_task import serve_exchange, start_flow
from ..serve.worker_context import WorkerContext
from .client_stream import ClientStream
from .h1_exchange import MAX_DRAIN_BYTES, Exchange

LINGER_TIMEOUT = 2.0  # seconds of a lingering close, then the connection is reset
MAX_LINGER_BYTES = 1 << 20  # bytes read and dropped during a lingering close
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
# What a turn handles of one connection; it takes about a millisecond.
MAX_TURN_REQUESTS = 8
MAX_TURN_BYTES = 16 << 10  # of heads; the last one may exceed it
# A request may take this long, else the next one of its connection waits for a turn: so
# floods of logins or pages do not delay auth checks, which take a tenth of it.
MAX_CHEAP_TIME = 0.0002  # seconds
COSTLY = 300  # estimated microseconds of such a request in the fair queue
MAX_EMPTY_LINES = 8  # before a request
STALLED_LAST = 1e9  # seconds: sorts exchanges that wait for the client behind the idle
FAILED = response_encoder.error_response(500)


class Connection(ClientStream):
    """The protocol object of one accepted HTTP/1.1 connection."""

    __slots__ = (
        "_client",
        "_costly",
        "_deferred",
        "_drain",
        "_drain_left",
        "_empty_lines",
        "_exchange",
        "_fresh",
        "_lingering",
        "_peer",
        "_proxied_client",
        "_reader",
        "_scanned",
        "_secure",
        "age",
        "upgraded",
    )

    def __init__(
        self, worker: WorkerContext, client: tuple[str, int] | None = None
    ) -> None:
        super().__init__(worker)
        self._proxied_client = client  # from the PROXY protocol header
        self._reader = HeadReader(worker.limits)
        self.upgraded = False  # the connection is part of a tunnel
        self._exchange: Exchange | None = None
        self._drain: Decoder | None = None  # of a body that is skipped
        self._drain_left = 0  # bytes that may still be skipped
        self._scanned = 0  # bytes of `received` already searched for the head's end
        self._empty_lines = 0  # skipped before the next request
        self._fresh = True  # no request has been parsed
        self._lingering = False
        self._deferred = False  # `_take_turn` will be called
        self._costly = False  # the last request took long

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection."""
        self.transport = cast(asyncio.Transport, transport)
        self.out = ConnectionWriter(self._worker.writes, self.transport)
        peer = self._proxied_client or transport.get_extra_info("peername")
        self._peer, self._client = format_peer(peer)
        self._secure = transport.get_extra_info("sslcontext") is not None
        self.age = self._worker.add_connection(self)

    def data_received(self, data: bytes) -> None:
        """Handle received bytes: nearly always exactly one head."""
        if (
            not self.received
            and not self._costly
            and self._exchange is None
            and self._is_ready()
        ):
            head = self._reader.read_single(data)
            if head is not None:
                self._handle(head)
                return
        if self._lingering:
            self._drop(len(data))
            return
        if self._exchange is not None and (self._chunks or not self.received):
            self._append_chunk(data)
            return
        # Empty lines before a request do not restart the timeout.
        if not self.received and data.strip(b"\r\n"):
            self._waiting_since = self._worker.clock.now
        self.received += data
        self._wake_reader()
        self._advance_fairly()

    def eof_received(self) -> bool:
        """Handle the half-close of a client that may still wait for its response."""
        self._at_eof = True
        self._wake_reader()
        # A full close looks the same. The flow runs to its end, but a request of a
        # client that has probably disconnected must not keep an upstream busy.
        if self._exchange is not None:
            self._exchange.disconnected.set()
        if self._secure:
            return False
        self.advance()  # closes if there is nothing left to answer
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the closed connection and wake its exchange."""
        self.lost = True
        worker = self._worker
        worker.remove_connection(self)
        if not self.upgraded:
            self._reader.close()
        if self._exchange is not None:
            self._exchange.disconnected.set()
        self._wake_reader()
        self._wake_writer()
        worker.on_connection_lost()

    def resume_writing(self) -> None:
        """Continue responding: the client has read enough."""
        super().resume_writing()
        self.advance()

    # Called by the exchange.

    def detach(self) -> UpgradedConnection:
        """Hand over the transport, with all received bytes, to another protocol."""
        detached = super().detach()
        self.upgraded = True
        self._exchange = None
        self._reader.close()
        del self._reader
        return detached

    def exchange_ended(self, decoder: Decoder, *, close: bool) -> None:
        """Skip the rest of the body in *decoder* and take the next request, or close."""
        self._exchange = None
        self._waiting_since = self._worker.clock.now
        if self.lost:
            return
        pending = self.received or self._chunks or self._at_eof
        if not pending and not close and decoder.done:
            self._resume_reading()
            return
        self._gather()
        if close:
            self._linger()
            return
        if not decoder.done:
            self._drain = decoder
            self._drain_left = MAX_DRAIN_BYTES
        self._advance_fairly()

    # Called by the worker.

    @property
    def idle(self) -> bool:
        """Return whether no request is being received or answered.

        A tunnel counts as idle: it has no end that a graceful shutdown could wait for.
        """
        if self.upgraded:
            return True
        return self._exchange is None and not self.received and self._drain is None

    @property
    def evictable(self) -> bool:
        """Return whether it may be closed to make room for another client.

        It waits for its client: for a request, for a body, or to read a response.
        """
        if self.upgraded:
            return False
        waiters = (self._input_waiter, self._write_waiter)
        return self._exchange is None or any(waiters)

    @property
    def eviction_order(self) -> tuple[float, int]:
        """Sort key for eviction: the longest-waiting connection is the first."""
        stalled = 0.0 if self._exchange is None else STALLED_LAST
        return self._waiting_since + stalled, self.age

    def check_timeouts(self, now: float) -> None:
        """Apply the timeouts; *now* is the worker's clock in seconds."""
        limits = self._worker.limits
        if self.out.is_stalled(now, limits.write_timeout):
            self.out.abort()
            return
        if self.upgraded:
            return
        waited = now - self._waiting_since
        if self._lingering:
            if waited >= LINGER_TIMEOUT:
                self.out.abort()
        elif self._exchange is not None:
            pass  # the exchange has timeouts for its waits
        elif self._drain is not None:
            if waited >= limits.head_timeout:
                self._linger()
        elif self.received:
            if waited >= limits.head_timeout and self._writable:
                self._reject(408, "timeout while receiving the head")
        elif waited >= (limits.head_timeout if self._fresh else limits.idle_timeout):
            self.out.close()

    # Parsing and responding.

    def advance(self, requests: int = 1) -> None:
        """Handle at most *requests* received requests, and the others in turns."""
        if self._deferred:
            return
        size = 0
        while self.received and self._skip_body() and self._is_ready():
            if not requests or size > MAX_TURN_BYTES:
                self._defer()
                return
            before = len(self.received)
            head = self._next_head()
            if head is None:
                break
            requests -= 1
            size += before - len(self.received)
            self._handle(head)
            if self.received:  # so that a client that does not read is noticed
                self._worker.writes.flush()
        if self._deferred:
            return
        if self._at_eof and self._exchange is None and self._writable and not self.lost:
            self.out.close()
        self._update_reading()

    def _defer(self, cost: int = ITERATION_BUDGET) -> None:
        """Pause reading, and handle the received bytes in the connection's turn."""
        self._deferred = True
        self._pause_reading()
        self._worker.turns.add(self._take_turn, cost)

    def _advance_fairly(self) -> None:
        """Handle received requests, at once if they are expected to be cheap."""
        if not self._costly or self._exchange is not None:
            self.advance()
        elif not self._deferred:
            self._defer(COSTLY)

    def _take_turn(self) -> None:
        self._deferred = False
        if not (self.lost or self.upgraded):
            self.advance(1 if self._costly else MAX_TURN_REQUESTS)

    def _is_ready(self) -> bool:
        """Return whether the next request may be handled."""
        return (
            self._exchange is None
            and self._writable
            and self._drain is None
            and not self._lingering
            and not self.transport.is_closing()
        )

    def _next_head(self) -> RequestHead | None:
        """Take the next head from ``received``; None if it is incomplete or invalid."""
        received = self.received
        # RFC 9112 §2.2: empty lines before a request line are skipped.
        while received[:2] == b"\r\n":
            del received[:2]
            self._scanned = 0
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                self._reject(400, "too many empty lines before a request")
                return None
        start = max(self._scanned - 3, 0)
        end = received.find(BLANK_LINE, start)
        limit = self._worker.limits.head_bytes
        if end < 0 or end + 4 > limit:
            self._scanned = len(received)
            if end >= 0 or len(received) > limit:
                self._reject(431, f"head exceeds {limit} bytes")
            elif BARE_LINE_FEED.search(received, start):
                self._reject(400, "line feed without carriage return")
            return None
        data = bytes(received[: end + 4])
        del received[: end + 4]
        self._scanned = 0
        try:
            return self._reader.read(data)
        except HeadError as error:
            self._reject(error.status, str(error))
            return None

    def _handle(self, head: RequestHead) -> None:
        """Ask the application; respond immediately, or start an exchange."""
        worker = self._worker
        started = monotonic()
        self._fresh = False
        self._empty_lines = 0
        request = Request(
            head.method,
            head.target,
            head.headers,
            self._peer,
            self._secure,
            worker.request_ids.choose(head.single_value(worker.request_id_header)),
        )
        application = worker.application
        try:
            outcome = application.handle(request)
        except Exception as error:
            worker.logs.exception(MODULE, f"request {request.id} failed", error)
            outcome = FAILED
        if type(outcome) is Respond and head.length == 0:
            self._respond(head, request, outcome, started)
            return
        exchange = Exchange(
            self, worker, head, request, application, self._client, started
        )
        self._exchange = exchange
        if (
            type(outcome) is Forward
            and worker.forwarder is not None
            and worker.forwarder.try_fast_path(exchange, outcome)
        ):
            self._costly = False
            return
        if head.length == 0 and isinstance(outcome, Generator):
            self._costly = not start_flow(exchange, outcome)
            return
        self._costly = True
        worker.spawn(serve_exchange(exchange, outcome))

    def _respond(
        self, head: RequestHead, request: Request, respond: Respond, started: float
    ) -> None:
        worker = self._worker
        persists = self.may_persist(head) and respond is not FAILED
        persistence: response_encoder.Persistence = "close"
        if persists:
            persistence = "" if head.minor else "keep-alive"
        head_only = head.method == b"HEAD"
        try:
            data = worker.response_heads.encoded(
                respond, worker.clock.date, head_only=head_only, persistence=persistence
            )
        except ValueError as error:
            worker.logs.exception(MODULE, f"request {request.id} failed", error)
            respond, persists = FAILED, False
            data = response_encoder.encode_error(500, worker.clock.date)
        self.out.write(data)
        seconds = monotonic() - started
        worker.record_response(
            RequestRecord(
                head,
                request,
                self._client,
                respond.status,
                len(respond.body),
                seconds,
                respond.user,
                "",
                respond.verdict,
                respond.reason,
            ),
            respond.events,
        )
        self._costly = seconds > MAX_CHEAP_TIME
        self._waiting_since = worker.clock.now
        if persists:
            return
        if head.keep_alive or self.received:
            self._linger()
        else:  # the client sends nothing more (RFC 9112 §9.6)
            self.out.close()

    def _reject(self, status: int, reason: str) -> None:
        """Answer a request that does not reach the application, and close."""
        self._worker.logs.info(
            MODULE, f"rejected request from {self._client} with {status}: {reason}"
        )
        self.out.write(response_encoder.encode_error(status, self._worker.clock.date))
        self._linger()

    # Unread bodies and lingering close.

    def _skip_body(self) -> bool:
        """Skip the unread body of the last request; return whether it is complete."""
        drain = self._drain
        if drain is None:
            return True
        try:
            before = len(self.received)
            skipped = drain.take(self.received)
            self._drain_left -= before - len(self.received)  # framing costs more
            if self._drain_left < 0:
                self._drain = None
                self._linger()
                return False
            if not drain.done:
                if skipped and self.received:
                    self._defer()
                return False
        except RequestError:
            self._drain = None
            self._linger()
            return False
        self._drain = None
        self._waiting_since = self._worker.clock.now
        return True

    def _linger(self) -> None:
        """Close so that the client can still read the response.

        A close with unread received bytes would reset the connection, and the client
        could lose the response: authproxy half-closes, and drops received bytes.
        """
        self.received.clear()
        if self._at_eof or self._secure or not self.transport.can_write_eof():
            self.out.close()
            return
        self._lingering = True
        self._drain_left = MAX_LINGER_BYTES
        self._waiting_since = self._worker.clock.now
        self._resume_reading()
        self.out.write_eof()

    def _drop(self, size: int) -> None:
        self._drain_left -= size
        if self._drain_left < 0:
            self.out.abort()
