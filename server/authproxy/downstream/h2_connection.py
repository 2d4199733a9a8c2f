"""One client's HTTP/2 connection (RFC 9113): many requests at once, each a stream.

The `h2` library reads and makes the frames; here are the limits and the way from a
stream to a decision, which is the same as over HTTP/1.1 (`serving.serve`). Only clients
that agreed on it in their TLS handshake get here.

A client pays for what costs us and brings nothing: cancelled requests (rapid reset),
pings, settings, empty frames (`FrameMeter`). It has a stock of credit that comes back
with time; who has used it up is sent away. The `h2` library bounds the size of the
unpacked header list.
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

from ..http.h2_frame_meter import FrameError, FrameMeter
from ..http.h2_protocol import create_h2_connection
from ..http.h2_request_head import head_of
from ..http.request_head import HeadError, RequestHead
from ..http.response_encoder import error_response
from ..http.trailers import forwardable_trailers
from ..net.addresses import format_peer
from ..serve.request_task import serve_exchange
from ..serve.worker_context import MODULE, WorkerContext
from .h2_stream import StreamExchange

MAX_STREAMS = 100  # requests of a connection that are being answered
STREAM_WINDOW = 256 << 10  # bytes of a body that may wait to be taken
CONNECTION_WINDOW = 512 << 10  # of all bodies together
COALESCE_BYTES = 16 << 10  # bytes of a piece that may wait for others to be sent with
OUTPUT_HIGH = 1 << 20  # bytes of frames that a client may leave unread
ABUSE_CREDIT = 1000  # see above
CREDIT_PER_SECOND = 100


class H2Connection(asyncio.Protocol):
    """The protocol object of one connection."""

    def __init__(
        self, hub: WorkerContext, client: tuple[str, int] | None = None
    ) -> None:
        self.hub = hub
        self.client = ""
        self.lost = False
        self._peer = ""
        self._protocol = create_h2_connection(client_side=False)
        self._streams: dict[int, StreamExchange] = {}
        self._meter = FrameMeter(hub.limits.head_bytes)
        self._credit = float(ABUSE_CREDIT)
        self._fresh = True
        self._flushing = False  # at the end of this turn
        self._going = False  # no further requests are taken
        self._writable = True
        self._room: set[asyncio.Future[None]] = set()
        self._announced = client  # by the PROXY protocol
        self._since = hub.clock.now
        self._checked = hub.clock.now
        self._pending = 0
        self._stalled_since = 0.0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings."""
        self.transport = cast(asyncio.Transport, transport)
        peer = self._announced or transport.get_extra_info("peername")
        self._peer, self.client = format_peer(peer)
        self.age = self.hub.join(self)
        limit = self.hub.limits.head_bytes
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
        """Take frames."""
        if self.transport.is_closing():
            return
        try:
            self._credit -= self._meter.cost(data)
            events = self._protocol.receive_data(data) if self._credit >= 0 else []
        except ProtocolError as error:  # the library has said GOAWAY
            self._end(repr(error))
            return
        except FrameError as error:
            self._go_away(ErrorCodes.FRAME_SIZE_ERROR)
            self._end(str(error))
            return
        for event in events:
            self._handle(event)
            if self.transport.is_closing():
                return
        self._flush()
        if self._credit < 0:
            self._go_away(ErrorCodes.ENHANCE_YOUR_CALM)
            self._end("a flood")
        elif self.transport.get_write_buffer_size() > 2 * OUTPUT_HIGH:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The client is gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """All of its requests have lost their client."""
        self.lost = True
        self.hub.leave(self)
        for exchange in list(self._streams.values()):
            exchange.reset()
        self._streams.clear()
        self._wake()
        self.hub.on_connection_lost()

    def pause_writing(self) -> None:
        """The client does not keep up with reading."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable = True
        self._wake()

    # Frames.

    def _handle(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._request(event)
            case DataReceived():
                self._data(event)
            case TrailersReceived(stream_id=number) if number in self._streams:
                fields = [(bytes(k), bytes(v)) for k, v in event.headers or ()]
                self._streams[number].body.trailers = forwardable_trailers(fields)
            case StreamEnded(stream_id=number) if number in self._streams:
                self._streams[number].body.end()
            case StreamReset(stream_id=number) if number in self._streams:
                exchange = self._streams.pop(number)
                exchange.reset()
                exchange.body.drop()
                self._wake()
            case WindowUpdated() | RemoteSettingsChanged():
                self._wake()
            case ConnectionTerminated():
                self._going = True
                if not self._streams:
                    self._close()

    def _request(self, event: RequestReceived) -> None:
        number = event.stream_id
        if self._going or len(self._streams) >= MAX_STREAMS:
            self._reset(number, ErrorCodes.REFUSED_STREAM)
            return
        self._fresh = False
        self._since = self.hub.clock.now
        try:
            head = head_of(
                event.headers, self.hub.limits, ended=event.stream_ended is not None
            )
        except HeadError as error:
            self._refuse(number, error)
            return
        self._answer(number, head)

    def _refuse(self, number: int, error: HeadError) -> None:
        self.hub.logs.info(
            MODULE, f"refused a request of {self.client} with {error.status}: {error}"
        )
        answer = error_response(error.status)
        fields = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        self.send_head(number, error.status, fields)
        if len(answer.body) <= self.window(number):
            self.send_data(number, answer.body, ends=True)
        self._reset(number, ErrorCodes.NO_ERROR)

    def _answer(self, number: int, head: RequestHead) -> None:
        """Ask the application; answer at once, or by a task."""
        hub = self.hub
        request = Request(
            head.method,
            head.target,
            head.headers,
            self._peer,
            True,
            hub.request_ids.choose(head.sole(hub.request_id_header)),
        )
        application = hub.application
        exchange = StreamExchange(self, number, head, request, application, monotonic())
        self._streams[number] = exchange
        try:
            outcome = application.handle(request)
        except Exception as error:
            hub.logs.exception(MODULE, f"request {request.id} failed", error)
            outcome = error_response(500)
        if type(outcome) is Respond and head.length == 0:
            self._respond(exchange, outcome)
        else:
            hub.spawn(serve_exchange(exchange, outcome))

    def _respond(self, exchange: StreamExchange, respond: Respond) -> None:
        try:
            exchange.respond(respond)
        except ValueError as error:
            self.hub.logs.exception(
                MODULE, f"request {exchange.request.id} failed", error
            )
            exchange.respond(error_response(500))
        exchange.end(respond, respond.events)

    def _data(self, event: DataReceived) -> None:
        exchange = self._streams.get(event.stream_id)
        counted = event.flow_controlled_length or 0
        if exchange is None:
            self.acknowledge(event.stream_id, counted)
        else:
            exchange.body.feed(event.data or b"", counted)

    # What the streams use.

    def send_head(
        self, number: int, status: int, fields: Sequence[Header], *, ends: bool = False
    ) -> None:
        """Send a head; one that nobody waits for any more is dropped."""
        try:
            self._protocol.send_headers(
                number, [(b":status", b"%d" % status), *fields], end_stream=ends
            )
        except ProtocolError:
            self._lose(number)
            return
        self._flush_soon()

    def send_data(self, number: int, data: bytes, *, ends: bool) -> None:
        """Send a piece of a body that fits into the windows."""
        large = len(data) > COALESCE_BYTES
        try:
            size = self._protocol.max_outbound_frame_size
            while len(data) > size:
                self._protocol.send_data(number, data[:size])
                data = data[size:]
            self._protocol.send_data(number, data, end_stream=ends)
        except ProtocolError:
            self._lose(number)
            return
        if large:
            self._flush()  # so that it is seen whether the client keeps up
        else:
            self._flush_soon()

    def send_end(self, number: int, trailers: Sequence[Header]) -> None:
        """End a body, with trailers or without (RFC 9113 §8.1)."""
        if not trailers:
            self.send_data(number, b"", ends=True)
            return
        try:
            self._protocol.send_headers(number, trailers, end_stream=True)
        except ProtocolError:
            self._lose(number)
            return
        self._flush()

    def _lose(self, number: int) -> None:
        """The stream is over on the wire, whatever its exchange thinks."""
        if (exchange := self._streams.get(number)) is not None:
            exchange.reset()

    def window(self, number: int) -> int:
        """How many bytes the client takes now on this stream."""
        try:
            return self._protocol.local_flow_control_window(number)
        except ProtocolError:
            return 0

    async def wait_for_window(self, exchange: StreamExchange) -> int:
        """Wait until the client takes more; how many bytes, 0 when it is gone.

        Raises TimeoutError when it takes nothing for too long.
        """
        async with asyncio.timeout(self.hub.limits.write_timeout or None):
            while not self.lost and exchange.number in self._streams:
                room = self.window(exchange.number)
                if room > 0 and self._writable:
                    return min(room, OUTPUT_HIGH)
                waiter = asyncio.get_running_loop().create_future()
                self._room.add(waiter)
                try:
                    await waiter
                finally:
                    self._room.discard(waiter)
        return 0

    def acknowledge(self, number: int, count: int) -> None:
        """Let the client send *count* bytes more."""
        if count and not self.lost:
            try:
                self._protocol.acknowledge_received_data(count, number)
            except ProtocolError:
                return
            self._flush()

    def reset(self, number: int, *, failed: bool) -> None:
        """End a stream in the middle."""
        self._reset(
            number, ErrorCodes.INTERNAL_ERROR if failed else ErrorCodes.NO_ERROR
        )

    def _reset(self, number: int, code: ErrorCodes) -> None:
        try:
            self._protocol.reset_stream(number, code)
        except (ProtocolError, StreamClosedError):
            return
        self._flush()

    def release(self, exchange: StreamExchange) -> None:
        """The answer is complete, or will never be."""
        self._since = self.hub.clock.now
        if self._streams.pop(exchange.number, None) is None:
            return
        if not exchange.body.ended and not exchange.body.broken:
            # RFC 9113 §8.1: the answer is complete, the rest is not wanted.
            self._reset(exchange.number, ErrorCodes.NO_ERROR)
        exchange.body.drop()
        if self._going and not self._streams:
            self._close()

    # What the worker uses; as `Connection` has them.

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return not self._streams

    @property
    def evictable(self) -> bool:
        """Whether it may be closed to make room for another client."""
        return not self._streams

    @property
    def waiting(self) -> tuple[float, int]:
        """Sorts connections by how long they have waited, the longest first."""
        return self._since, self.age

    def check(self, now: float) -> None:
        """Apply the time limits; about once a second."""
        self._credit = min(
            ABUSE_CREDIT, self._credit + (now - self._checked) * CREDIT_PER_SECOND
        )
        self._checked = now
        limits = self.hub.limits
        if self._stalled(now):
            self.transport.abort()
        elif self.hub.stopping and not self._going:
            self._going = True
            self._go_away(ErrorCodes.NO_ERROR)
            if not self._streams:
                self._close()
        elif not self._streams:
            limit = limits.head_timeout if self._fresh else limits.idle_timeout
            if now - self._since >= limit:
                self._go_away(ErrorCodes.NO_ERROR)
                self._close()

    def _stalled(self, now: float) -> bool:
        pending = self.transport.get_write_buffer_size()
        if not pending or pending < self._pending or not self._pending:
            self._stalled_since = now
        self._pending = pending
        waited = now - self._stalled_since
        return bool(pending) and waited >= self.hub.limits.write_timeout

    # Going away.

    def _go_away(self, code: ErrorCodes) -> None:
        # The library's own way ends the connection for the requests under way too.
        frame = GoAwayFrame(
            0,
            last_stream_id=self._protocol.highest_inbound_stream_id,
            error_code=int(code),
        )
        self._flush()
        self.transport.write(frame.serialize())

    def _end(self, reason: str) -> None:
        """Close once what is to be said has gone out."""
        self.hub.logs.info(
            MODULE, f"ended an HTTP/2 connection of {self.client}: {reason}"
        )
        self._close()

    def _close(self) -> None:
        self._flush()
        self.transport.close()

    def _flush_soon(self) -> None:
        """Write what is to be said at the end of this turn, with all that joins it."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = self._protocol.data_to_send()
        if data and not self.lost and not self.transport.is_closing():
            self.transport.write(data)

    def _wake(self) -> None:
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
