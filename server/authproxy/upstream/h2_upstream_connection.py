"""An HTTP/2 connection to an upstream, shared by concurrent requests (RFC 9113).

A reader task parses the frames and distributes them to the streams. A stream's window
is extended when its client has taken the data, so that a slow client limits only its
own response. A connection without streams is closed after the idle timeout, one that
answers nothing by `Liveness`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from time import monotonic

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from authproxy_core.messages import Header

from ..http.h2_frame_meter import FrameError, FrameMeter
from ..http.h2_protocol import create_h2_connection, free_h2_connection
from ..http.upstream_response import UpstreamError
from ..loop.lazy_event import LazyEvent
from ..loop.receive_buffer import receive_buffer
from ..net.dial import Stream
from ..server_settings import ForwardSettings
from .h2_liveness import Liveness

MAX_STREAMS = 100  # concurrent requests of one connection
LAST_STREAM = 1 << 30  # stream identifier; there are none above 2^31 (RFC 9113 §5.1.1)
MAX_HEAD_BYTES = 64 << 10  # bytes of a response head
# Bytes of a response received and not yet taken by its client: until the client takes
# the first ones, and then.
FIRST_WINDOW, WINDOW = 16 << 10, 64 << 10
MAX_INFORMATIONAL = 16  # 1xx responses to one request
RESPONSE_EVENTS = (InformationalResponseReceived, ResponseReceived, DataReceived)
PING_DATA = b"\0" * 8
TIMER_SLACK = 0.001  # seconds by which the event loop may call too early


class UpstreamStream:
    """One request on a connection, and the part of its response received so far."""

    def __init__(self, number: int) -> None:
        self.number = number  # the stream identifier
        self.opened_at = monotonic()
        self.heads: deque[list[Header]] = deque()
        self.trailers: list[Header] = []
        self.ended = False  # the response is complete
        self.sent = False  # the request is complete
        self.fault = ""  # reason code: why the response will not be complete
        self.unprocessed = False  # by the upstream: the request may be sent again
        self.stale = False  # no byte was received: an idempotent one may be sent again
        self.window = FIRST_WINDOW
        self._chunks: deque[tuple[bytes, int]] = deque()  # data, bytes of the window
        self._informational = 0
        self._changed = asyncio.Event()

    # Called by the connection.

    def add_head(self, fields: Sequence[Header], *, informational: bool) -> None:
        """Add a received head."""
        self._informational += informational
        if self._informational > MAX_INFORMATIONAL:
            self.fail("malformed_answer")
            return
        self.heads.append([(bytes(name), bytes(value)) for name, value in fields])
        self._changed.set()

    def add_data(self, data: bytes, counted: int) -> None:
        """Add received body data, which used *counted* bytes of the window."""
        self._chunks.append((data, counted))
        self._changed.set()

    def end(self) -> None:
        """Mark the response as complete."""
        self.ended = True
        self._changed.set()

    def fail(self, reason: str, *, unprocessed: bool = False) -> None:
        """Mark an incomplete response as failed, with a reason code."""
        if not (self.fault or self.ended):
            self.fault, self.unprocessed = reason, unprocessed
        self._changed.set()

    def discard(self) -> int:
        """Discard the data that was not taken; return its bytes of the window."""
        counted = sum(counted for _, counted in self._chunks)
        self._chunks.clear()
        return counted

    # Called by the relay.

    @property
    def has_only_head(self) -> bool:
        """Return whether the response ended with its head: no body, no trailers."""
        return self.ended and not (self._chunks or self.trailers)

    async def next_head(self) -> list[Header]:
        """Return the next head; raises `UpstreamError`."""
        while not self.heads:
            await self._wait()
        return self.heads.popleft()

    async def next_data(self) -> tuple[bytes, int]:
        """Return the next body data and its bytes of the window; b"", 0 at the end.

        Raises `UpstreamError`.
        """
        while not self._chunks:
            if self.ended:
                return b"", 0
            await self._wait()
        return self._chunks.popleft()

    async def _wait(self) -> None:
        if self.fault:
            raise UpstreamError(self.fault)
        if self.ended:
            raise UpstreamError("malformed_answer")
        self._changed.clear()
        await self._changed.wait()


class UpstreamH2Connection:
    """One connection over *stream*, whose TLS handshake has selected HTTP/2.

    *on_change* is called when streams can be opened again, or never more. Without
    *keep_alive* it is closed after one request.
    """

    def __init__(
        self,
        stream: Stream,
        settings: ForwardSettings,
        on_change: Callable[[], None],
        *,
        keep_alive: bool = True,
    ) -> None:
        self._keep_alive = keep_alive
        self._stream = stream
        self._buffer = receive_buffer()
        self._idle_timeout = settings.idle_timeout
        self._on_change = on_change
        self._protocol = create_h2_connection(client_side=True)
        self._protocol.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: FIRST_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
            },
        )
        self._protocol.decoder.max_header_list_size = MAX_HEAD_BYTES
        self._meter = FrameMeter(MAX_HEAD_BYTES, preface=0)
        self._streams: dict[int, UpstreamStream] = {}
        self.draining = False  # no further streams are opened
        self._ready = LazyEvent()  # set by the upstream's SETTINGS, or by a failure
        self._failure: OSError | None = None
        self._closed = False
        self._liveness = Liveness(settings)
        self._idle_since = monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._window_waiters: set[asyncio.Future[None]] = set()
        self._protocol.initiate_connection()
        self._protocol.increment_flow_control_window(WINDOW * (MAX_STREAMS - 1))
        self._flush()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def wait_ready(self) -> None:
        """Wait for the upstream's SETTINGS, its first frame. Raises OSError.

        They limit the streams; an upstream of another protocol does not send them.
        """
        await self._ready.wait()
        if self._failure is not None:
            raise copy(self._failure)  # a traceback would refer to this connection
        self._rearm()

    @property
    def max_streams(self) -> int:
        """The number of streams that may be open at a time."""
        return min(MAX_STREAMS, self._protocol.remote_settings.max_concurrent_streams)

    @property
    def free_streams(self) -> int:
        """The number of streams that may be opened now."""
        if self.draining or self._liveness.is_suspect or self._stream.at_eof:
            return 0
        return max(self.max_streams - len(self._streams), 0)

    @property
    def is_finished(self) -> bool:
        """Return whether it is closed, or will be because nothing uses it."""
        unused = self.draining or self._stream.at_eof
        return self._closed or (unused and not self._streams)

    def abort(self) -> None:
        """Close the connection; open streams fail.

        The reader task ends with the stream; a cancelled one would keep its frames.
        """
        self._finish("closed_early")

    async def close(self) -> None:
        """Close the connection, and wait until its task has ended."""
        self.abort()
        await asyncio.wait([self._reading])

    def retire(self) -> None:
        """Open no more streams, and close when the last one ends."""
        self.draining = True
        self._close_if_finished()

    def _close_if_finished(self) -> None:
        if self.draining and not self._streams:
            self._stream.abort()

    # Timeouts.

    def note_timeout(self, stream: UpstreamStream) -> None:
        """Note that *stream* got no response in time: the connection may be dead."""
        if not self._liveness.note_timeout(stream.opened_at):
            self.draining = True
        self._check()

    def _check(self) -> None:
        """Apply the timeouts that have expired, and wait for the next one."""
        now = monotonic()
        if self._liveness.is_dead(now):
            self._finish("timeout")
            return
        if self._streams:
            if self._liveness.should_ping(now):
                self._protocol.ping(PING_DATA)
                self._flush()
        elif now >= self._idle_since + self._idle_timeout:
            self.retire()
            return
        self._rearm()

    def _rearm(self) -> None:
        self._stop_timer()
        if self._stream.at_eof:
            return
        due = (
            self._liveness.next_check()
            if self._streams or self._liveness.awaits_answer
            else self._idle_since + self._idle_timeout
        )
        loop = asyncio.get_running_loop()
        delay = max(due - monotonic(), TIMER_SLACK)
        self._timer = loop.call_later(delay, self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Requests.

    def open_stream(self, fields: Sequence[Header], *, ends: bool) -> UpstreamStream:
        """Send a request head; raises `UpstreamError`."""
        try:
            number = self._protocol.get_next_available_stream_id()
            self._protocol.send_headers(number, fields, end_stream=ends)
        except ProtocolError:
            self.draining = True
            raise UpstreamError("malformed_request") from None
        self.draining |= number >= LAST_STREAM or not self._keep_alive
        stream = UpstreamStream(number)
        stream.sent = ends
        self._streams[number] = stream
        self._flush()
        if len(self._streams) == 1:
            self._liveness.activate(stream.opened_at)
            self._rearm()
        return stream

    async def send(self, stream: UpstreamStream, data: bytes) -> None:
        """Send body data as the window allows.

        Raises OSError if the stream or the connection is closed.
        """
        while data:
            window = await self._wait_for_window(stream)
            chunk, data = data[:window], data[window:]
            self._protocol.send_data(stream.number, chunk)
            self._flush()
            await self._stream.drain()

    def end(self, stream: UpstreamStream, trailers: Sequence[Header]) -> None:
        """End the request body, with or without trailers."""
        stream.sent = True
        try:
            if trailers:
                self._protocol.send_headers(stream.number, trailers, end_stream=True)
            else:
                self._protocol.end_stream(stream.number)
        except ProtocolError:
            return  # the stream is closed
        self._flush()

    def acknowledge(self, stream: UpstreamStream, count: int) -> None:
        """Extend the stream's window by *count* bytes, which have been taken."""
        self._buffer.unsent -= count
        more, stream.window = WINDOW - stream.window, WINDOW
        try:
            if count:
                self._protocol.acknowledge_received_data(count, stream.number)
                if more:
                    self._protocol.increment_flow_control_window(more, stream.number)
        except ProtocolError:
            return
        self._flush()

    def release(self, stream: UpstreamStream) -> None:
        """Remove *stream*; cancel it if request or response is incomplete."""
        if self._streams.pop(stream.number, None) is None:
            return
        if not (stream.ended and stream.sent):
            with contextlib.suppress(ProtocolError):
                self._protocol.reset_stream(stream.number, ErrorCodes.CANCEL)
        self.acknowledge(stream, stream.discard())
        self._flush()
        self._wake_waiters()
        self._close_if_finished()
        if not self._streams:
            self._idle_since = monotonic()
            self._rearm()
        self._on_change()

    async def _wait_for_window(self, stream: UpstreamStream) -> int:
        """Return the bytes that may be sent in one frame, once there are any."""
        while stream.number in self._streams and not stream.fault:
            try:
                window = self._protocol.local_flow_control_window(stream.number)
            except ProtocolError:
                break
            if window > 0:
                return min(window, self._protocol.max_outbound_frame_size)
            waiter = asyncio.get_running_loop().create_future()
            self._window_waiters.add(waiter)
            try:
                await waiter
            finally:
                self._window_waiters.discard(waiter)
        raise BrokenPipeError

    # Frames.

    async def _read(self) -> None:
        try:
            while (data := await self._stream.read()) and not self._closed:
                if self._liveness.receive(monotonic()):
                    self._rearm()
                    self._on_change()
                self._meter.cost(data)
                for event in self._protocol.receive_data(data):
                    self._handle(event)
                self._flush()
        except OSError as error:
            self._failure = self._failure or error.with_traceback(None)
        except (ProtocolError, FrameError):
            self._failure = OSError(errno.EPROTO, "malformed HTTP/2")
        finally:
            self._finish("closed_early")
            free_h2_connection(self._protocol)

    def _finish(self, reason: str) -> None:
        """Close the connection; open streams fail with the reason code."""
        self.draining = self._closed = True
        self._failure = self._failure or ConnectionResetError(
            errno.ECONNRESET, "connection closed"
        )
        self._stop_timer()
        for stream in self._streams.values():
            # The first stream of a connection was not sent on an idle one.
            stream.stale = stream.number > 1 and self._liveness.is_silent_since(
                stream.opened_at
            )
            stream.fail(reason)
        self._wake_waiters()
        self._stream.abort()
        self._ready.set()
        self._on_change()

    def _handle(self, event: Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, RESPONSE_EVENTS):
            self._liveness.respond(monotonic())
        match event:
            case WindowUpdated():
                self._wake_waiters()
            case RemoteSettingsChanged():
                self._ready.set()
                self._wake_waiters()
                self._on_change()
            case ConnectionTerminated():
                self.draining = True
                last = event.last_stream_id or 0
                for number, unprocessed in self._streams.items():
                    if number > last:
                        unprocessed.fail("closed_early", unprocessed=True)
            case DataReceived() if stream is None:
                self._protocol.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id
                )
            case ResponseReceived() if stream:
                stream.add_head(event.headers, informational=False)
            case InformationalResponseReceived() if stream:
                stream.add_head(event.headers, informational=True)
            case DataReceived() if stream:
                counted = event.flow_controlled_length or 0
                self._buffer.unsent += counted
                stream.add_data(event.data or b"", counted)
            case TrailersReceived() if stream:
                stream.trailers = [(bytes(k), bytes(v)) for k, v in event.headers]
            case StreamEnded() if stream:
                stream.end()
            case StreamReset() if stream:
                refused = event.error_code == ErrorCodes.REFUSED_STREAM
                reason = "closed_early" if event.remote_reset else "malformed_answer"
                stream.fail(reason, unprocessed=refused)
                self._wake_waiters()

    def _flush(self) -> None:
        if data := self._protocol.data_to_send():
            self._stream.write(data)

    def _wake_waiters(self) -> None:
        for waiter in self._window_waiters:
            if not waiter.done():
                waiter.set_result(None)
