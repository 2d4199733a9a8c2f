"""A connection to an upstream that speaks HTTP/2, shared by many requests (RFC 9113).

A reader takes the frames and hands them to the calls they belong to; a call takes its
pieces when its client does, and only then may the upstream send more of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

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
from ..http.h2_protocol import create_h2_connection
from ..http.upstream_response import UpstreamError
from ..net.dial import Stream

MAX_CLIENT_STREAMS = 100  # requests of one connection at the same time
HEAD_LIMIT = 64 << 10  # bytes of an answer's head
WINDOW = 64 << 10  # bytes of an answer that may wait for its client
READ_SIZE = 64 << 10  # bytes
INTERIM_LIMIT = 16  # interim answers before the final one


class ClientStream:
    """One request on a connection, and what has come of its answer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.heads: deque[list[Header]] = deque()
        self.trailers: list[Header] = []
        self.ended = False  # the answer is complete
        self.sent = False  # the request is
        self.fault: UpstreamError | None = None
        self.unseen = False  # the upstream has not looked at it: it may be sent again
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._interim = 0
        self._changed = asyncio.Event()

    def take_head(self, fields: Sequence[Header], *, interim: bool) -> None:
        """A head has come."""
        self._interim += interim
        if self._interim > INTERIM_LIMIT:
            self.fail("malformed_answer")
            return
        self.heads.append([(bytes(name), bytes(value)) for name, value in fields])
        self._changed.set()

    def take_data(self, data: bytes, counted: int) -> None:
        """A piece of the body has come; it takes *counted* bytes of the windows."""
        self._pieces.append((data, counted))
        self._changed.set()

    def end(self) -> None:
        """The answer is complete."""
        self.ended = True
        self._changed.set()

    def fail(self, reason: str, *, unseen: bool = False) -> None:
        """There will be no more of the answer."""
        if self.fault is None and not self.ended:
            self.fault, self.unseen = UpstreamError(reason), unseen
        self._changed.set()

    @property
    def is_head_alone(self) -> bool:
        """Whether the answer ended with its head: no body, no trailers."""
        return self.ended and not (self._pieces or self.trailers)

    async def head(self) -> list[Header]:
        """The next head; raises `UpstreamFailed`."""
        while not self.heads:
            await self._wait()
        return self.heads.popleft()

    async def piece(self) -> tuple[bytes, int]:
        """The next piece and what it counts, b"" at the end; raises `UpstreamFailed`."""
        while not self._pieces:
            if self.ended:
                return b"", 0
            await self._wait()
        return self._pieces.popleft()

    def drop(self) -> int:
        """Forget the pieces that nobody took; what they count together."""
        count = sum(counted for _, counted in self._pieces)
        self._pieces.clear()
        return count

    async def _wait(self) -> None:
        if self.fault is not None:
            raise self.fault
        if self.ended:
            raise UpstreamError("malformed_answer")
        self._changed.clear()
        await self._changed.wait()


class UpstreamH2Connection:
    """One connection; *stream* is open, and its TLS has agreed on h2."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._protocol = create_h2_connection(client_side=True)
        self._protocol.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_LIMIT,
            },
        )
        self._protocol.decoder.max_header_list_size = HEAD_LIMIT
        self._meter = FrameMeter(HEAD_LIMIT, preface=0)
        self._calls: dict[int, ClientStream] = {}
        self._going = False
        self._room: set[asyncio.Future[None]] = set()
        self._protocol.initiate_connection()
        self._protocol.increment_flow_control_window(WINDOW * (MAX_CLIENT_STREAMS - 1))
        self._flush()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @property
    def takes_calls(self) -> bool:
        """Whether another request may be sent."""
        limit = min(
            MAX_CLIENT_STREAMS, self._protocol.remote_settings.max_concurrent_streams
        )
        return not self._going and not self._stream.ended and len(self._calls) < limit

    @property
    def over(self) -> bool:
        """Whether it is of no use any more."""
        return not self._calls and (self._going or self._stream.ended)

    async def close(self) -> None:
        """End the connection."""
        self._going = True
        self._reading.cancel()
        await asyncio.wait([self._reading])
        self._fail_all()
        self._stream.abort()

    def retire(self) -> None:
        """Take no more calls, and end when the last one has."""
        self._going = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._going and not self._calls:
            self._stream.abort()

    # Requests.

    def begin(self, fields: Sequence[Header], *, ends: bool) -> ClientStream:
        """Send a head; raises `UpstreamFailed`."""
        try:
            number = self._protocol.get_next_available_stream_id()
            self._protocol.send_headers(number, fields, end_stream=ends)
        except ProtocolError:
            self._going = True
            raise UpstreamError("malformed_request") from None
        call = self._calls[number] = ClientStream(number)
        call.sent = ends
        self._flush()
        return call

    async def send(self, call: ClientStream, data: bytes) -> None:
        """Send a piece of a body as the upstream takes it; raises OSError."""
        while data:
            room = await self._room_for(call)
            piece, data = data[:room], data[room:]
            self._protocol.send_data(call.number, piece)
            self._flush()
            await self._stream.drain()

    def end(self, call: ClientStream, trailers: Sequence[Header]) -> None:
        """The body is complete."""
        call.sent = True
        try:
            if trailers:
                self._protocol.send_headers(call.number, trailers, end_stream=True)
            else:
                self._protocol.end_stream(call.number)
        except ProtocolError:
            return  # the answer is complete already, or will never come
        self._flush()

    def acknowledge(self, call: ClientStream, count: int) -> None:
        """Let the upstream send *count* bytes more."""
        try:
            if count:
                self._protocol.acknowledge_received_data(count, call.number)
        except ProtocolError:
            return
        self._flush()

    def release(self, call: ClientStream) -> None:
        """The call is over; one that is not complete is cancelled."""
        if self._calls.pop(call.number, None) is None:
            return
        if not (call.ended and call.sent):
            with contextlib.suppress(ProtocolError):
                self._protocol.reset_stream(call.number, ErrorCodes.CANCEL)
        self.acknowledge(call, call.drop())
        self._flush()
        self._wake()
        self._close_if_over()

    async def _room_for(self, call: ClientStream) -> int:
        while call.number in self._calls and call.fault is None:
            try:
                window = self._protocol.local_flow_control_window(call.number)
            except ProtocolError:
                break
            if window > 0:
                return min(window, self._protocol.max_outbound_frame_size)
            waiter = asyncio.get_running_loop().create_future()
            self._room.add(waiter)
            try:
                await waiter
            finally:
                self._room.discard(waiter)
        raise BrokenPipeError

    # Frames.

    async def _read(self) -> None:
        try:
            while data := await self._stream.read(READ_SIZE):
                self._meter.cost(data)
                for event in self._protocol.receive_data(data):
                    self._handle(event)
                self._flush()
        except (OSError, ProtocolError, FrameError):
            pass
        finally:
            self._going = True
            self._fail_all()
            self._stream.abort()

    def _handle(self, event: Event) -> None:
        call = self._calls.get(getattr(event, "stream_id", None) or 0)
        match event:
            case WindowUpdated() | RemoteSettingsChanged():
                self._wake()
            case ConnectionTerminated():
                self._going = True
                last = event.last_stream_id or 0
                for number, waiting in self._calls.items():
                    if number > last:
                        waiting.fail("closed_early", unseen=True)
            case DataReceived() if call is None:
                self._protocol.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id
                )
            case ResponseReceived() if call:
                call.take_head(event.headers, interim=False)
            case InformationalResponseReceived() if call:
                call.take_head(event.headers, interim=True)
            case DataReceived() if call:
                call.take_data(event.data or b"", event.flow_controlled_length or 0)
            case TrailersReceived() if call:
                call.trailers = [(bytes(k), bytes(v)) for k, v in event.headers]
            case StreamEnded() if call:
                call.end()
            case StreamReset() if call:
                refused = event.error_code == ErrorCodes.REFUSED_STREAM
                call.fail("closed_early", unseen=refused)
                self._wake()

    def _flush(self) -> None:
        if data := self._protocol.data_to_send():
            self._stream.write(data)

    def _wake(self) -> None:
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)

    def _fail_all(self) -> None:
        for call in self._calls.values():
            call.fail("closed_early")
        self._wake()
