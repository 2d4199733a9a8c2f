"""The server side of an HTTP/2 connection: frames in, calls and frames out (RFC 9113).

`ServerProtocol` checks frames and stream states, keeps the windows, and calls `Events`
in the order of the received frames. It does no I/O: `receive` adds bytes, `process`
handles them in turns of bounded work, ``sender`` has the frames to send. A connection
error is a `ConnectionFault`; a stream error resets the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..server_settings import Limits
from . import credit as costs
from . import frames
from .credit import Credit
from .events import Events
from .field_kinds import INVALID, NORMAL, Entry
from .frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HAS_PRIORITY,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    UINT32,
    ConnectionFault,
    ErrorCode,
    protocol_fault,
    size_fault,
    unpad,
)
from .hpack_decoder import HeaderDecoder
from .sender import MAX_BATCH_BYTES, FrameSender
from .streams import (
    CONNECTION_WINDOW,
    MAX_STREAMS,
    STREAM_WINDOW,
    DiscardedStreams,
    Stream,
)

OwnerT = TypeVar("OwnerT")
TABLE_BYTES = 16 << 10  # of the HPACK table, so that a session cookie fits
MAX_COOKIES = 300  # fields above `Limits.header_count`: clients split the Cookie field


class ServerProtocol(Generic[OwnerT]):
    """One connection. The caller counts the requests being served in ``running``."""

    def __init__(self, events: Events[OwnerT], limits: Limits) -> None:
        self.credit = Credit()
        self.sender = FrameSender(self.credit, self._on_sent)
        self.streams: dict[int, Stream[OwnerT]] = {}
        self.last_stream = 0
        self.running = 0
        self.refusing = False  # the final GOAWAY has been sent
        self._events = events
        self._head_bytes = limits.head_bytes
        self._decoder = HeaderDecoder(limits.header_count + MAX_COOKIES, TABLE_BYTES)
        self._buffer = b""
        self._expects_preface = True
        self._expects_settings = True
        self._work = 0  # left in this turn
        self._block: list[bytes] = []  # parts of an unfinished header block
        self._block_start = (0, 0)  # its stream and flags; stream 0 if there is none
        self._block_bytes = 0
        self._skipped = range(0)  # the latest stream identifiers that were never used
        self._discarded = DiscardedStreams()
        self._receive_window = CONNECTION_WINDOW
        self._owed = 0  # bytes taken, by which the window has not been extended
        settings = {
            frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            frames.MAX_HEADER_LIST_SIZE: limits.head_bytes,
            frames.HEADER_TABLE_SIZE: TABLE_BYTES,
        }
        increment = CONNECTION_WINDOW - frames.DEFAULT_WINDOW
        self.sender.frames += (
            frames.settings(settings),
            frames.window_update(0, increment),
        )

    # Received bytes.

    def receive(self, data: bytes) -> None:
        """Add received bytes, which `process` handles."""
        self._buffer = self._buffer + data if self._buffer else data

    def process(self, work: int = costs.TURN_WORK) -> bool:
        """Handle frames worth *work* units; return whether complete ones are left.

        Stops while ``sender.blocked`` is set: a client that does not read responses
        gets no further ones. Raises `ConnectionFault`.
        """
        self._work = work
        if self._expects_preface and not self._take_preface():
            return False
        buffer, at = self._buffer, 0
        end = len(buffer)
        sender, left = self.sender, False
        while end - at >= HEADER_BYTES:
            high, low, kind, flags, number = FRAME_HEADER.unpack_from(buffer, at)
            length = high << 16 | low
            if length > MAX_FRAME_BYTES:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR, f"frame of {length} bytes"
                )
            start = at + HEADER_BYTES
            if start + length > end:
                break
            if self._work <= 0 or sender.blocked or sender.queued >= MAX_BATCH_BYTES:
                left = True
                break
            at = start + length
            self._handle(kind, flags, number & MAX_WINDOW, buffer[start:at])
        self._buffer = buffer[at:]
        return left

    def _take_preface(self) -> bool:
        """Remove the client's preface; return False if it is incomplete."""
        data, size = self._buffer, len(PREFACE)
        if data[:size] != PREFACE[: len(data)]:
            raise protocol_fault("no connection preface")
        if len(data) < size:
            return False
        self._buffer = data[size:]
        self._expects_preface = False
        return True

    def _handle(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self._work -= 1
        if self._block_start[0] and (
            kind != frames.CONTINUATION or number != self._block_start[0]
        ):
            raise protocol_fault("frame inside a header block")
        if self._expects_settings:
            if kind != frames.SETTINGS or flags & ACK:
                raise protocol_fault("first frame is not SETTINGS")
            self._expects_settings = False
        if kind < len(HANDLERS):
            HANDLERS[kind](self, flags, number, payload)
        else:  # RFC 9113 §5.5: unknown frames are ignored
            self.credit.spend(1)

    # Requests.

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise protocol_fault("HEADERS on an invalid stream")
        if flags & PADDED:
            payload = unpad(payload)
        if flags & HAS_PRIORITY:
            if len(payload) < 5:
                raise protocol_fault("padding or priority exceeds the frame")
            if UINT32.unpack_from(payload)[0] & MAX_WINDOW == number:
                raise protocol_fault("stream depends on itself")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(number, flags, payload)
            return
        self._block_start = number, flags
        self._block, self._block_bytes = [], 0
        self._add_fragment(payload)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._block_start[0]:
            raise protocol_fault("unexpected CONTINUATION")
        self._add_fragment(payload, ends=bool(flags & END_HEADERS))
        if flags & END_HEADERS:
            _, start_flags = self._block_start
            self._block_start = 0, 0
            block, self._block = b"".join(self._block), []
            self._on_block(number, start_flags, block)

    def _add_fragment(self, payload: bytes, *, ends: bool = False) -> None:
        self._block.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > self._head_bytes:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"header block of more than {self._head_bytes} bytes",
            )
        if not ends and len(payload) < costs.SMALL_FRAGMENT_BYTES:
            self.credit.spend(1)

    def _on_block(self, number: int, flags: int, block: bytes) -> None:
        """Handle a complete header block: a request, or trailers."""
        decoder = self._decoder
        entries = decoder.decode(block)  # always, or later blocks could not be decoded
        self._work -= costs.REQUEST_WORK + len(block) // costs.BLOCK_BYTES_PER_WORK
        if decoder.slow_bytes:
            self._work -= decoder.slow_bytes // costs.SLOW_BYTES_PER_WORK
            self.credit.spend(decoder.slow_bytes // costs.SLOW_BYTES_PER_COST)
        ended = bool(flags & END_STREAM)
        last = self.last_stream
        if number <= last:
            self._on_trailers(number, entries, ended=ended)
            return
        expected = last + 2 if last else 1
        if number > expected:
            self._skipped = range(expected, number, 2)
        self.last_stream = number
        if self.refusing or max(len(self.streams), self.running) >= MAX_STREAMS:
            self.credit.spend(costs.REFUSAL_COST)
            self.reset(number, ErrorCode.REFUSED_STREAM, ended=ended)
            return
        self._events.on_request(number, entries, ended=ended)

    def _on_trailers(self, number: int, entries: list[Entry], *, ended: bool) -> None:
        stream = self.streams.get(number)
        if stream is None:
            if number in self._skipped:
                raise protocol_fault("HEADERS on a skipped stream")
            self._on_late_frame(number, ended=ended)
        elif stream.remote_ended:
            self._fail(stream, ErrorCode.STREAM_CLOSED)
        elif not ended or any(
            kind < NORMAL or kind == INVALID for _, kind, _ in entries
        ):
            self._fail(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            self._end_request(stream, entries)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        counted = len(payload)
        self._receive_window -= counted
        if self._receive_window < 0:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the connection's window"
            )
        data = unpad(payload) if flags & PADDED else payload
        ended = bool(flags & END_STREAM)
        if len(data) < costs.TINY_BYTES and not ended:
            self.credit.spend(1)
        stream = self.streams.get(number)
        if stream is None:
            self._check_used(number)
            self._extend_connection(counted)
            self._on_late_frame(number, ended=ended)
            return
        if stream.remote_ended:
            self._extend_connection(counted)
            self._fail(stream, ErrorCode.STREAM_CLOSED)
            return
        stream.receive_window -= counted
        if stream.receive_window < 0:
            self._extend_connection(counted)
            self._fail(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return
        if stream.remaining is not None:
            stream.remaining -= len(data)
            if stream.remaining < 0:
                self._extend_connection(counted)
                self._fail(stream, ErrorCode.PROTOCOL_ERROR)
                return
        if counted:
            self._events.on_data(stream.owner, data, counted)
        if ended:
            self._end_request(stream, [])

    def _end_request(self, stream: Stream[OwnerT], trailers: list[Entry]) -> None:
        if stream.remaining:  # RFC 9113 §8.1.1
            self._fail(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.remote_ended = True
        self._events.on_end(stream.owner, trailers)

    def _on_late_frame(self, number: int, *, ended: bool) -> None:
        """Ignore a frame that the client sent before it learned of a reset."""
        if number not in self._discarded:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "frame on a closed stream")
        self.credit.spend(1)
        if ended:
            self._discarded.remove(number)

    # Other frames.

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        """Ignore the priority, which RFC 9113 has deprecated."""
        self.credit.spend(1)
        if not number:
            raise protocol_fault("PRIORITY on stream 0")
        if len(payload) != 5:
            raise size_fault("PRIORITY")
        if UINT32.unpack_from(payload)[0] & MAX_WINDOW == number:
            raise protocol_fault("stream depends on itself")

    def _on_rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise size_fault("RST_STREAM")
        self._check_used(number)
        stream = self.streams.get(number)
        self._discarded.remove(number)
        if stream is None:
            self.credit.spend(1)
            return
        owner = stream.owner
        self._close(stream)
        self._events.on_reset(owner)
        self.credit.spend(costs.RESET_COST)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise protocol_fault("SETTINGS on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise size_fault("SETTINGS")
        self.credit.spend(1 + len(payload) // 6 // costs.SETTINGS_PER_COST)
        if flags & ACK:
            return
        for key, value in frames.SETTING.iter_unpack(payload):
            self._apply_setting(key, value)
        self.sender.frames.append(frames.SETTINGS_ACK)
        self.sender.pump()

    def _apply_setting(self, key: int, value: int) -> None:
        self._work -= 1
        if key == frames.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR, "initial window too large"
                )
            self._work -= len(self.streams)
            change = value - self.sender.initial_window
            self.sender.initial_window = value
            for stream in self.streams.values():
                if not self.sender.extend_stream(stream, change):
                    raise ConnectionFault(
                        ErrorCode.FLOW_CONTROL_ERROR, "window overflow"
                    )
        elif key == frames.MAX_FRAME_SIZE:
            if not MAX_FRAME_BYTES <= value < 1 << 24:
                raise protocol_fault("invalid MAX_FRAME_SIZE")
        elif key == frames.ENABLE_PUSH and value > 1:
            raise protocol_fault("invalid ENABLE_PUSH")

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise protocol_fault("PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        self.credit.spend(1)
        if number:
            raise protocol_fault("PING on a stream")
        if len(payload) != 8:
            raise size_fault("PING")
        if flags & ACK:
            self._events.on_ping_ack(payload)
        else:
            self.sender.frames.append(frames.ping(payload, ack=True))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        self.credit.spend(1)
        if number:
            raise protocol_fault("GOAWAY on a stream")
        if len(payload) < 8:
            raise size_fault("GOAWAY")
        self._events.on_goaway()

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        self.credit.spend(1)
        if len(payload) != 4:
            raise size_fault("WINDOW_UPDATE")
        increment: int = UINT32.unpack(payload)[0] & MAX_WINDOW
        sender = self.sender
        if not number:
            if not increment:
                raise protocol_fault("WINDOW_UPDATE of 0")
            sender.window += increment
            if sender.window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "window overflow")
        else:
            stream = self.streams.get(number)
            if stream is None:
                self._check_used(number)
                if not increment:  # an error also after the response (§6.9)
                    self.reset(number, ErrorCode.PROTOCOL_ERROR, ended=True)
                    self.credit.spend(costs.RESET_COST)
                return
            if not increment:
                self._fail(stream, ErrorCode.PROTOCOL_ERROR)
                return
            if not sender.extend_stream(stream, increment):
                self._fail(stream, ErrorCode.FLOW_CONTROL_ERROR)
                return
        if sender.waiting:
            self._work -= 1
            sender.pump()

    def _check_used(self, number: int) -> None:
        """Raise `ConnectionFault` for stream 0 and idle streams (RFC 9113 §5.1)."""
        if not number & 1 or number > self.last_stream:
            raise protocol_fault("frame on an idle stream")

    # Streams.

    def open(self, number: int, length: int | None, *, ended: bool) -> Stream[OwnerT]:
        """Open the stream of a request with a body of *length* bytes, if announced.

        The caller sets its owner.
        """
        window = self.sender.initial_window
        stream: Stream[OwnerT] = Stream(number, window, length, ended=ended)
        self.streams[number] = stream
        self._work -= costs.EXCHANGE_WORK
        return stream

    def send_head(self, stream: Stream[OwnerT], block: bytes, *, ends: bool) -> None:
        """Send the head of a response, or trailers, which end it."""
        self.sender.send_head(stream.number, block, ends=ends)
        if ends:
            stream.local_ended = True
            self._on_sent(stream)

    def acknowledge(self, stream: Stream[OwnerT], count: int) -> None:
        """Extend the windows by *count* bytes, which have been taken.

        The client learns of it when half of a window is used up.
        """
        self._extend_connection(count)
        if stream.remote_ended or stream.number not in self.streams:
            return
        stream.owed += count
        if stream.owed >= STREAM_WINDOW // 2:
            update = frames.window_update(stream.number, stream.owed)
            self.sender.frames.append(update)
            stream.receive_window += stream.owed
            stream.owed = 0

    def _extend_connection(self, count: int) -> None:
        self._owed += count
        if self._owed >= CONNECTION_WINDOW // 2:
            self.sender.frames.append(frames.window_update(0, self._owed))
            self._receive_window += self._owed
            self._owed = 0

    def reset(self, number: int, code: ErrorCode, *, ended: bool) -> None:
        """Send RST_STREAM; frames that the client has already sent are ignored."""
        self.sender.frames.append(frames.rst_stream(number, code))
        if not ended:
            self._discarded.add(number)

    def abort(self, stream: Stream[OwnerT], code: ErrorCode) -> None:
        """Reset an open stream."""
        if self._close(stream):
            self.reset(stream.number, code, ended=stream.remote_ended)

    def _fail(self, stream: Stream[OwnerT], code: ErrorCode) -> None:
        """Reset a stream for an error of the client, which has a cost."""
        owner = stream.owner
        self.abort(stream, code)
        self._events.on_reset(owner)
        self.credit.spend(costs.RESET_COST)

    def _on_sent(self, stream: Stream[OwnerT]) -> None:
        owner = stream.owner
        if stream.local_ended:
            self._close(stream)
            if not stream.remote_ended:
                # RFC 9113 §8.1: with the response complete, the body is not needed.
                self.reset(stream.number, ErrorCode.NO_ERROR, ended=False)
        self._events.on_sent(owner)

    def _close(self, stream: Stream[OwnerT]) -> bool:
        """Forget a stream; return False if it is closed already."""
        self.sender.forget(stream)
        if self.streams.pop(stream.number, None) is None:
            return False
        del stream.owner  # the owner refers to the stream
        return True

    def close(self) -> None:
        """Drop the references to the caller, so that all objects are freed at once.

        Otherwise the buffers of TLS would stay until the next garbage collection.
        """
        del self._events
        self.sender.close()


# Frame type → method.
HANDLERS: tuple[Callable[[ServerProtocol[Any], int, int, bytes], None], ...] = (
    ServerProtocol._on_data,
    ServerProtocol._on_headers,
    ServerProtocol._on_priority,
    ServerProtocol._on_rst_stream,
    ServerProtocol._on_settings,
    ServerProtocol._on_push_promise,
    ServerProtocol._on_ping,
    ServerProtocol._on_goaway,
    ServerProtocol._on_window_update,
    ServerProtocol._on_continuation,
)
