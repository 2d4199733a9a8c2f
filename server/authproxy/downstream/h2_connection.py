"""An HTTP/2 client connection (RFC 9113): concurrent requests, each on a stream.

The `h2` library parses and serializes frames; this module has the limits and the
dispatch of streams, which are served like HTTP/1.1 requests (`serve_exchange`). Only
clients that selected HTTP/2 in their TLS handshake get here.

Abuse is limited by credit that refills with time: canceled requests (rapid reset),
pings, settings and empty frames cost credit (`FrameMeter`), and a connection without
credit is closed. The `h2` library limits the size of the decoded header list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import cast

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from authproxy_core.messages import Header, Request, Respond

from ..contract import MODULE
from ..http.h2_frame_meter import FrameError, FrameMeter
from ..http.h2_protocol import create_h2_connection
from ..http.h2_request_head import build_request_head
from ..http.request_head import HeadError, RequestHead
from ..http.response_encoder import error_response
from ..http.trailers import forwardable_trailers
from ..net.addresses import format_peer
from ..serve.request_task import serve_exchange
from ..serve.worker_context import WorkerContext
from .h2_stream import StreamExchange

MAX_STREAMS = 100  # concurrent requests of a connection
STREAM_WINDOW = 256 << 10  # bytes of a request body received and not yet taken
CONNECTION_WINDOW = 512 << 10  # bytes of all request bodies together
COALESCE_BYTES = 16 << 10  # bytes of body data that may wait for other frames
OUTPUT_HIGH_WATER = 1 << 20  # bytes of frames that a client may leave unread
MAX_ABUSE_CREDIT = 1000  # units of `FrameMeter.cost`
CREDIT_PER_SECOND = 100


class H2Connection(asyncio.Protocol):
    """The protocol object of one connection; implements `h2_stream.FrameSender`."""

    def __init__(
        self, worker: WorkerContext, client: tuple[str, int] | None = None
    ) -> None:
        self.worker = worker
        self.client = ""
        self.lost = False
        self._peer = ""
        self._protocol = create_h2_connection(client_side=False)
        self._streams: dict[int, StreamExchange] = {}
        self._meter = FrameMeter(worker.limits.head_bytes)
        self._credit = float(MAX_ABUSE_CREDIT)
        self._fresh = True  # no request has been received
        self._flush_scheduled = False
        self._draining = False  # further streams are refused
        self._writable = True
        self._window_waiters: set[asyncio.Future[None]] = set()
        self._proxied_client = client  # from the PROXY protocol header
        self._waiting_since = worker.clock.now
        self._checked_at = worker.clock.now
        self._unsent = 0  # bytes in the transport's buffer at the last check
        self._stalled_since = 0.0

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection and send the SETTINGS frame."""
        self.transport = cast(asyncio.Transport, transport)
        peer = self._proxied_client or transport.get_extra_info("peername")
        self._peer, self.client = format_peer(peer)
        self.age = self.worker.add_connection(self)
        limit = self.worker.limits.head_bytes
        self._protocol.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: limit,
            },
        )
        self._protocol.decoder.max_header_list_size = limit
        self._protocol.initiate_connection()
        self._protocol.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Handle received frames."""
        if self.transport.is_closing():
            return
        try:
            self._credit -= self._meter.cost(data)
            events = self._protocol.receive_data(data) if self._credit >= 0 else []
        except ProtocolError as error:  # the library has queued GOAWAY
            self._close_for(repr(error))
            return
        except FrameError as error:
            self._send_goaway(ErrorCodes.FRAME_SIZE_ERROR)
            self._close_for(str(error))
            return
        for event in events:
            self._handle(event)
            if self.transport.is_closing():
                return
        self._flush()
        if self._credit < 0:
            self._send_goaway(ErrorCodes.ENHANCE_YOUR_CALM)
            self._close_for("frame flood")
        elif self.transport.get_write_buffer_size() > 2 * OUTPUT_HIGH_WATER:
            self.transport.abort()

    def eof_received(self) -> bool:
        """Close: TLS has no half-close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the closed connection and end its streams."""
        self.lost = True
        self.worker.remove_connection(self)
        for exchange in list(self._streams.values()):
            exchange.reset()
        self._streams.clear()
        self._wake_waiters()
        self.worker.on_connection_lost()

    def pause_writing(self) -> None:
        """Stop sending body data: the client does not read."""
        self._writable = False

    def resume_writing(self) -> None:
        """Continue sending body data: the client has read enough."""
        self._writable = True
        self._wake_waiters()

    # Received frames.

    def _handle(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._receive_request(event)
            case DataReceived():
                self._receive_data(event)
            case TrailersReceived(stream_id=number) if number in self._streams:
                fields = [(bytes(k), bytes(v)) for k, v in event.headers or ()]
                self._streams[number].body.trailers = forwardable_trailers(fields)
            case StreamEnded(stream_id=number) if number in self._streams:
                self._streams[number].body.end()
            case StreamReset(stream_id=number) if number in self._streams:
                exchange = self._streams.pop(number)
                exchange.reset()
                exchange.body.discard()
                self._wake_waiters()
            case WindowUpdated() | RemoteSettingsChanged():
                self._wake_waiters()
            case ConnectionTerminated():
                self._draining = True
                if not self._streams:
                    self._close()

    def _receive_request(self, event: RequestReceived) -> None:
        number = event.stream_id
        if self._draining or len(self._streams) >= MAX_STREAMS:
            self._reset(number, ErrorCodes.REFUSED_STREAM)
            return
        self._fresh = False
        self._waiting_since = self.worker.clock.now
        try:
            head = build_request_head(
                event.headers, self.worker.limits, ended=event.stream_ended is not None
            )
        except HeadError as error:
            self._reject(number, error)
            return
        self._handle_request(number, head)

    def _reject(self, number: int, error: HeadError) -> None:
        """Answer a request that does not reach the application."""
        self.worker.logs.info(
            MODULE,
            f"rejected request from {self.client} with {error.status}: {error}",
        )
        response = error_response(error.status)
        fields = [*response.headers, (b"content-length", b"%d" % len(response.body))]
        self.send_head(number, error.status, fields)
        if len(response.body) <= self.window(number):
            self.send_data(number, response.body, ends=True)
        self._reset(number, ErrorCodes.NO_ERROR)

    def _handle_request(self, number: int, head: RequestHead) -> None:
        """Ask the application; respond immediately, or start a task."""
        worker = self.worker
        request = Request(
            head.method,
            head.target,
            head.headers,
            self._peer,
            True,
            worker.request_ids.choose(head.single_value(worker.request_id_header)),
        )
        application = worker.application
        exchange = StreamExchange(self, number, head, request, application, monotonic())
        self._streams[number] = exchange
        try:
            outcome = application.handle(request)
        except Exception as error:
            worker.logs.exception(MODULE, f"request {request.id} failed", error)
            outcome = error_response(500)
        if type(outcome) is Respond and head.length == 0:
            self._respond(exchange, outcome)
        else:
            worker.spawn(serve_exchange(exchange, outcome))

    def _respond(self, exchange: StreamExchange, respond: Respond) -> None:
        try:
            exchange.respond(respond)
        except ValueError as error:
            self.worker.logs.exception(
                MODULE, f"request {exchange.request.id} failed", error
            )
            exchange.respond(error_response(500))
        exchange.end(respond, respond.events)

    def _receive_data(self, event: DataReceived) -> None:
        exchange = self._streams.get(event.stream_id)
        counted = event.flow_controlled_length or 0
        if exchange is None:
            self.acknowledge(event.stream_id, counted)
        else:
            exchange.body.feed(event.data or b"", counted)

    # Sent frames; called by the streams.

    def send_head(
        self, number: int, status: int, fields: Sequence[Header], *, ends: bool = False
    ) -> None:
        """Send a response head; dropped if the stream is closed."""
        try:
            self._protocol.send_headers(
                number, [(b":status", b"%d" % status), *fields], end_stream=ends
            )
        except ProtocolError:
            self._mark_reset(number)
            return
        self._flush_soon()

    def send_data(self, number: int, data: bytes, *, ends: bool) -> None:
        """Send body data that fits into the window."""
        large = len(data) > COALESCE_BYTES
        try:
            size = self._protocol.max_outbound_frame_size
            while len(data) > size:
                self._protocol.send_data(number, data[:size])
                data = data[size:]
            self._protocol.send_data(number, data, end_stream=ends)
        except ProtocolError:
            self._mark_reset(number)
            return
        if large:
            self._flush()  # so that a client that does not read is noticed
        else:
            self._flush_soon()

    def send_end(self, number: int, trailers: Sequence[Header]) -> None:
        """End the response body, with or without trailers (RFC 9113 §8.1)."""
        if not trailers:
            self.send_data(number, b"", ends=True)
            return
        try:
            self._protocol.send_headers(number, trailers, end_stream=True)
        except ProtocolError:
            self._mark_reset(number)
            return
        self._flush()

    def _mark_reset(self, number: int) -> None:
        """Tell the exchange that its stream is already closed."""
        if (exchange := self._streams.get(number)) is not None:
            exchange.reset()

    def window(self, number: int) -> int:
        """Return the number of bytes that the client accepts on the stream."""
        try:
            return self._protocol.local_flow_control_window(number)
        except ProtocolError:
            return 0

    async def wait_for_window(self, number: int) -> int:
        """Return the bytes that may be sent, once there are any; 0 after a disconnect.

        Raises TimeoutError if the client accepts nothing for the write timeout.
        """
        async with asyncio.timeout(self.worker.limits.write_timeout or None):
            while not self.lost and number in self._streams:
                window = self.window(number)
                if window > 0 and self._writable:
                    return min(window, OUTPUT_HIGH_WATER)
                waiter = asyncio.get_running_loop().create_future()
                self._window_waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._window_waiters.discard(waiter)
        return 0

    def acknowledge(self, number: int, count: int) -> None:
        """Extend the window by *count* bytes, which have been taken."""
        if count and not self.lost:
            try:
                self._protocol.acknowledge_received_data(count, number)
            except ProtocolError:
                return
            self._flush()

    def reset(self, number: int) -> None:
        """Reset a stream whose response can't be completed."""
        self._reset(number, ErrorCodes.INTERNAL_ERROR)

    def _reset(self, number: int, code: ErrorCodes) -> None:
        try:
            self._protocol.reset_stream(number, code)
        except (ProtocolError, StreamClosedError):
            return
        self._flush()

    def release(self, exchange: StreamExchange) -> None:
        """Remove a stream whose response is complete or was aborted."""
        self._waiting_since = self.worker.clock.now
        if self._streams.pop(exchange.number, None) is None:
            return
        if not exchange.body.ended and not exchange.body.incomplete:
            # RFC 9113 §8.1: with the response complete, the body is not needed.
            self._reset(exchange.number, ErrorCodes.NO_ERROR)
        exchange.body.discard()
        if self._draining and not self._streams:
            self._close()

    # Called by the worker.

    @property
    def idle(self) -> bool:
        """Return whether no request is being answered."""
        return not self._streams

    @property
    def evictable(self) -> bool:
        """Return whether it may be closed to make room for another client."""
        return not self._streams

    @property
    def eviction_order(self) -> tuple[float, int]:
        """Sort key for eviction: the longest-waiting connection is the first."""
        return self._waiting_since, self.age

    def check_timeouts(self, now: float) -> None:
        """Refill the credit and apply the timeouts."""
        self._credit = min(
            MAX_ABUSE_CREDIT,
            self._credit + (now - self._checked_at) * CREDIT_PER_SECOND,
        )
        self._checked_at = now
        limits = self.worker.limits
        if self._is_stalled(now):
            self.transport.abort()
        elif self.worker.stopping and not self._draining:
            self._draining = True
            self._send_goaway(ErrorCodes.NO_ERROR)
            if not self._streams:
                self._close()
        elif not self._streams:
            timeout = limits.head_timeout if self._fresh else limits.idle_timeout
            if now - self._waiting_since >= timeout:
                self._send_goaway(ErrorCodes.NO_ERROR)
                self._close()

    def _is_stalled(self, now: float) -> bool:
        """Return whether the client has read nothing for the write timeout."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent or not self._unsent:
            self._stalled_since = now
        self._unsent = unsent
        stalled = now - self._stalled_since
        return bool(unsent) and stalled >= self.worker.limits.write_timeout

    # Closing and flushing.

    def _send_goaway(self, code: ErrorCodes) -> None:
        # The library's `close_connection` would also end the open streams.
        frame = GoAwayFrame(
            0,
            last_stream_id=self._protocol.highest_inbound_stream_id,
            error_code=int(code),
        )
        self._flush()
        self.transport.write(frame.serialize())

    def _close_for(self, reason: str) -> None:
        self.worker.logs.info(
            MODULE, f"HTTP/2 connection of {self.client} closed: {reason}"
        )
        self._close()

    def _close(self) -> None:
        self._flush()
        self.transport.close()

    def _flush_soon(self) -> None:
        """Flush at the end of the event-loop iteration, with all further frames."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        data = self._protocol.data_to_send()
        if data and not self.lost and not self.transport.is_closing():
            self.transport.write(data)

    def _wake_waiters(self) -> None:
        for waiter in self._window_waiters:
            if not waiter.done():
                waiter.set_result(None)
