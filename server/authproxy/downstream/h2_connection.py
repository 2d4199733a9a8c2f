"""An HTTP/2 client connection (RFC 9113): concurrent requests, each on a stream.

`ServerProtocol` handles the frames; this module connects it to the transport, to the
application and to the worker. Only clients that selected HTTP/2 in their TLS handshake
get here.

A request without a body that the core answers immediately, such as an auth check, is
answered in the callback that received it. Every other request becomes a `StreamExchange`
and is served like one of HTTP/1.1. A callback handles received frames for about a
millisecond; the rest waits in the worker's fair queue while reading pauses. Nothing is
read, either, while the client does not read.
"""

from __future__ import annotations

import asyncio
import itertools
from time import monotonic
from typing import cast

from authproxy_core.messages import Forward, Request, Respond

from ..contract import MODULE
from ..http import response_encoder
from ..http.request_head import HeadError, RequestHead
from ..http2 import credit, frames, hpack_encoder
from ..http2.field_kinds import Entry
from ..http2.frames import ConnectionFault, ErrorCode
from ..http2.protocol import ServerProtocol
from ..http2.request_head import build_request_head
from ..http2.streams import Stream
from ..logs.formatter import RequestRecord
from ..loop.write_coalescing import ConnectionWriter
from ..net.addresses import format_peer
from ..serve.request_task import serve_exchange
from ..serve.worker_context import WorkerContext
from .h1_connection import STALLED_LAST
from .h2_stream import StreamExchange

COALESCE_BYTES = 16 << 10  # larger output is written at once, to notice a slow client
MIN_PROGRESS = 1024  # bytes of a response that a client must take within the timeout
MAX_TURN_ENDS = 4  # requests of closed connections
FAULT_LINGER = 0.25  # seconds in which the client can read why it is disconnected
SHUTDOWN_PING = b"shutdown"
SHUTDOWN_GRACE = 1.0  # seconds for the answer to it
FAILED = response_encoder.error_response(500)


class H2Connection(asyncio.Protocol):
    """The protocol object of one connection; implements `h2_stream.FrameSender`."""

    def __init__(
        self, worker: WorkerContext, client: tuple[str, int] | None = None
    ) -> None:
        self.worker = worker
        self.client = ""
        self.lost = False
        self.protocol: ServerProtocol[StreamExchange] = ServerProtocol(
            self, worker.limits
        )
        self._sender = self.protocol.sender
        self._peer = ""
        self._proxied_client = client  # from the PROXY protocol header
        self._fresh = True  # no request has been received
        self._failed = False  # a connection error has been sent
        self._busy = False  # frames were left over since the last check
        self._deferred = False  # `_take_turn` will be called
        self._reading_paused = False
        self._flush_scheduled = False
        self._stop_announced_at = 0.0  # the first GOAWAY has been sent
        self._waiting_since = worker.clock.now
        self._checked_at = worker.clock.now

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection and send the SETTINGS frame."""
        self.transport = cast(asyncio.Transport, transport)
        self.out = ConnectionWriter(self.worker.writes, self.transport)
        peer = self._proxied_client or transport.get_extra_info("peername")
        self._peer, self.client = format_peer(peer)
        self.age = self.worker.add_connection(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Handle received frames, or defer it to the connection's turn."""
        if self._failed or self.transport.is_closing():
            return
        self.protocol.receive(data)
        if self._busy:
            self._defer()
        else:
            self._advance()

    def eof_received(self) -> bool:
        """Close: TLS has no half-close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the closed connection and end its streams."""
        self.lost = True
        self.worker.remove_connection(self)
        self.worker.on_connection_lost()
        self._end_streams()

    def _end_streams(self) -> None:
        """End the requests of a closed connection, some in each turn.

        The latest ones end first, because they may wait for what the others use.
        """
        streams = self.protocol.streams
        for stream in list(itertools.islice(reversed(streams.values()), MAX_TURN_ENDS)):
            owner = stream.owner
            self.protocol.abort(stream, ErrorCode.CANCEL)
            owner.reset()
        if streams:
            self.worker.turns.add_shared(self._end_streams)
        else:
            self.protocol.close()

    def pause_writing(self) -> None:
        """Stop responding and reading: the client does not read."""
        self._sender.blocked = True
        self._pause_reading()

    def resume_writing(self) -> None:
        """Continue responding: the client has read enough."""
        self._sender.blocked = False
        self.out.progress = True
        self._sender.pump()
        if not self._deferred:
            self._advance()

    # Received frames.

    def _advance(self) -> None:
        """Handle received frames for one turn, and defer the rest."""
        if self._failed:
            return
        try:
            left = self.protocol.process()
        except ConnectionFault as fault:
            self._close_for(fault)
            return
        except Exception as error:
            self.worker.logs.exception(MODULE, "HTTP/2 connection failed", error)
            self._close_for(ConnectionFault(ErrorCode.INTERNAL_ERROR, "failure"))
            return
        self._flush()
        if self._sender.blocked:
            return  # until `resume_writing`
        if left:
            self._busy = True
            self._defer()
        elif self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()

    def _defer(self) -> None:
        self._pause_reading()
        if not self._deferred:
            self._deferred = True
            self.worker.turns.add(self._take_turn)

    def _take_turn(self) -> None:
        self._deferred = False
        if not self.lost and not self.transport.is_closing():
            self._sender.pump()
            self._advance()

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    # Events of the protocol.

    def on_request(self, number: int, entries: list[Entry], *, ended: bool) -> None:
        """Ask the application; respond immediately, or start an exchange."""
        worker = self.worker
        started = monotonic()
        self._fresh = False
        self._waiting_since = worker.clock.now
        try:
            head = build_request_head(entries, worker.limits, ended=ended)
        except HeadError as error:
            self._reject(number, error, ended=ended)
            return
        request = Request(
            head.method,
            head.target,
            head.headers,
            self._peer,
            True,
            worker.request_ids.choose(head.single_value(worker.request_id_header)),
        )
        application = worker.application
        try:
            outcome = application.handle(request)
        except Exception as error:
            worker.logs.exception(MODULE, f"request {request.id} failed", error)
            outcome = FAILED
        if (
            ended
            and type(outcome) is Respond
            and self._respond(number, head, request, outcome, started)
        ):
            return
        stream = self.protocol.open(number, None if ended else head.length, ended=ended)
        exchange = StreamExchange(self, stream, head, request, application, started)
        stream.owner = exchange
        self.protocol.running += 1
        if (
            type(outcome) is Forward
            and worker.forwarder is not None
            and worker.forwarder.try_fast_path(exchange, outcome)
        ):
            return
        worker.spawn(serve_exchange(exchange, outcome))

    def _respond(
        self,
        number: int,
        head: RequestHead,
        request: Request,
        respond: Respond,
        started: float,
    ) -> bool:
        """Send a whole response; False if the client's window is too small for it."""
        worker = self.worker
        try:
            block = self.encode_response_head(respond)
        except ValueError as error:
            worker.logs.exception(MODULE, f"request {request.id} failed", error)
            respond = FAILED
            block = self.encode_response_head(respond)
        body = respond.body
        if head.method == b"HEAD" or not response_encoder.has_body(respond.status):
            body = b""
        if not self._sender.send_response(number, block, body):
            return False
        self.protocol.credit.earn(credit.EARNED_BY_RESPONSE)
        worker.record_response(
            RequestRecord(
                head,
                request,
                self.client,
                respond.status,
                len(body),
                monotonic() - started,
                respond.user,
                "",
                respond.verdict,
                respond.reason,
            ),
            respond.events,
        )
        return True

    def _reject(self, number: int, error: HeadError, *, ended: bool) -> None:
        """Answer a request that does not reach the application."""
        self.worker.logs.info(
            MODULE,
            f"rejected request from {self.client} with {error.status}: {error}",
        )
        response = response_encoder.error_response(error.status)
        block = self.encode_response_head(response)
        self._sender.send_response(number, block, response.body)
        if error.status == 400:
            self.protocol.reset(number, ErrorCode.PROTOCOL_ERROR, ended=ended)
        elif not ended:
            self.protocol.reset(number, ErrorCode.NO_ERROR, ended=False)
        self.protocol.credit.spend(credit.RESET_COST)

    def on_data(self, owner: StreamExchange, data: bytes, counted: int) -> None:
        """Queue body data."""
        owner.body.feed(data, counted)

    def on_end(self, owner: StreamExchange, trailers: list[Entry]) -> None:
        """End a request body."""
        owner.body.end([field for field, _, _ in trailers])

    def on_reset(self, owner: StreamExchange) -> None:
        """End a stream that the client has reset or made invalid."""
        owner.reset()
        self._close_if_drained()

    def on_sent(self, owner: StreamExchange) -> None:
        """Continue the response, if it is not complete."""
        owner.on_sent()
        self._close_if_drained()

    def on_goaway(self) -> None:
        """Refuse further requests, and close after the open ones (RFC 9113 §6.8)."""
        self.protocol.refusing = True
        self._close_if_drained()

    def on_ping_ack(self, payload: bytes) -> None:
        """Send the final GOAWAY: the client knows of the first one."""
        if payload == SHUTDOWN_PING and self._stop_announced_at:
            self._refuse_further()

    # Sent frames; called by the exchanges.

    def encode_response_head(self, respond: Respond) -> bytes:
        """Return the header block of a complete response; raises ValueError."""
        worker = self.worker
        date = hpack_encoder.encode_date(worker.clock.date)
        return worker.hpack_heads.head(respond) + date

    def send_head(
        self, stream: Stream[StreamExchange], block: bytes, *, ends: bool
    ) -> None:
        """Send a head or trailers."""
        self.protocol.send_head(stream, block, ends=ends)
        self._flush_soon()

    def send_data(
        self, stream: Stream[StreamExchange], data: bytes, *, ends: bool
    ) -> None:
        """Send body data; the rest that can't be sent yet stays in the stream."""
        if not stream.unsent:
            stream.progress, stream.progress_at = 0, self.worker.clock.now
        self._sender.send_data(stream, data, ends=ends)
        if len(data) > COALESCE_BYTES:
            self._flush()
        else:
            self._flush_soon()

    def acknowledge(self, stream: Stream[StreamExchange], count: int) -> None:
        """Extend the window by *count* bytes, which have been taken."""
        if not self.lost:
            self.protocol.acknowledge(stream, count)
            self._flush_soon()

    def abort_stream(self, stream: Stream[StreamExchange]) -> None:
        """Reset a stream whose response can't be completed."""
        self.protocol.abort(stream, ErrorCode.INTERNAL_ERROR)
        self._flush_soon()

    def release(self, exchange: StreamExchange) -> None:
        """Count a request that is served; its response may still be unsent."""
        self.protocol.running -= 1
        if exchange.finished:
            self.protocol.credit.earn(credit.EARNED_BY_RESPONSE)
        self._waiting_since = self.worker.clock.now
        self._close_if_drained()

    # Called by the worker.

    @property
    def idle(self) -> bool:
        """Return whether no request is being answered."""
        return not self.protocol.streams

    @property
    def evictable(self) -> bool:
        """Return whether it may be closed to make room for another client.

        Each request waits for its client: for a body, or to read the response.
        """
        streams = self.protocol.streams.values()
        return all(stream.owner.waits_for_client for stream in streams)

    @property
    def eviction_order(self) -> tuple[float, int]:
        """Sort key for eviction: the longest-waiting connection is the first."""
        stalled = STALLED_LAST if self.protocol.streams else 0.0
        return self._waiting_since + stalled, self.age

    def check_timeouts(self, now: float) -> None:
        """Refill the credit and apply the timeouts."""
        elapsed = now - self._checked_at
        self.protocol.credit.earn(elapsed * credit.CREDIT_PER_SECOND)
        self._checked_at = now
        self._busy = False
        limits = self.worker.limits
        if self._failed:
            return  # `FAULT_LINGER` ends it
        if self.out.is_stalled(now, limits.write_timeout):
            self.out.abort()
        elif self.worker.stopping and not self.protocol.refusing:
            self._announce_stop(now)
        elif self.protocol.streams:
            self._check_unsent(now)
        elif now - self._waiting_since >= (
            limits.head_timeout if self._fresh else limits.idle_timeout
        ):
            self._refuse_further()

    def _check_unsent(self, now: float) -> None:
        """Reset streams whose client takes too little within the write timeout."""
        timeout = self.worker.limits.write_timeout
        for stream in list(self.protocol.streams.values()):
            if not stream.unsent or stream.progress >= MIN_PROGRESS:
                stream.progress, stream.progress_at = 0, now
            elif timeout and now - stream.progress_at >= timeout:
                owner = stream.owner
                self.protocol.abort(stream, ErrorCode.CANCEL)
                owner.reset("client does not read the response")
        self._flush()

    # Closing and flushing.

    def _announce_stop(self, now: float) -> None:
        """Ask for no further requests; those on their way are answered (§6.8)."""
        if self._stop_announced_at:
            if now - self._stop_announced_at >= SHUTDOWN_GRACE:
                self._refuse_further()
            return
        self._stop_announced_at = now
        self._sender.frames += (
            frames.goaway(frames.LAST_STREAM, ErrorCode.NO_ERROR),
            frames.ping(SHUTDOWN_PING),
        )
        self._flush()

    def _refuse_further(self) -> None:
        """Send the final GOAWAY and close after the open requests."""
        self._send_goaway(ErrorCode.NO_ERROR)
        self.protocol.refusing = True
        self._close_if_drained()

    def _send_goaway(self, code: ErrorCode) -> None:
        self._sender.frames.append(frames.goaway(self.protocol.last_stream, code))
        self._flush()

    def _close_for(self, fault: ConnectionFault) -> None:
        self.worker.logs.info(
            MODULE,
            f"HTTP/2 connection of {self.client} closed: {fault.code.name}: {fault}",
        )
        self._send_goaway(fault.code)
        self._failed = True
        self._pause_reading()  # closing TLS would read on
        asyncio.get_running_loop().call_later(FAULT_LINGER, self.out.abort)

    def _close_if_drained(self) -> None:
        if self.protocol.refusing and not self.protocol.streams:
            self._flush()
            self.out.close()

    def _flush_soon(self) -> None:
        """Flush at the end of the event-loop iteration, with all further frames."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self._flush(coalesce=False)

    def _flush(self, *, coalesce: bool = True) -> None:
        data = self._sender.take()
        if self.lost or self.transport.is_closing():
            return
        if data:
            if coalesce and len(data) <= COALESCE_BYTES:
                self.out.write(data)
            else:
                self.out.write_now(data)
        sender = self._sender
        if sender.waiting and sender.window > 0 and not sender.blocked:
            self._defer()
