"""Frames to send: heads at once, body data as far as the client's windows allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import frames
from .credit import EARNED_BY_DATA, Credit
from .frames import DATA, END_HEADERS, END_STREAM, HEADERS, MAX_FRAME_BYTES
from .hpack_encoder import EMPTY_TABLE
from .streams import NOTHING, Stream

MAX_BATCH_BYTES = 128 << 10  # of queued body data; then the transport is asked
WORTHWHILE_BYTES = 256  # smaller frames earn credit only if the window allows more


class FrameSender:
    """The output of one connection.

    ``frames`` are serialized frames in order, which the caller takes (`take`). Streams
    with unsent data take turns, a frame each. While ``blocked`` is set, the transport
    takes no body data; ``queued`` counts those in ``frames``. *on_sent* is called with a stream whose unsent data is sent.
    """

    __slots__ = (
        "_credit",
        "_on_sent",
        "_table_update",
        "blocked",
        "frames",
        "initial_window",
        "queued",
        "waiting",
        "window",
    )

    def __init__(self, credit: Credit, on_sent: Callable[[Stream[Any]], None]) -> None:
        self._credit = credit
        self._on_sent = on_sent
        self._table_update = EMPTY_TABLE  # in the first header block
        self.frames: list[bytes | memoryview] = []
        self.window = frames.DEFAULT_WINDOW  # of the connection; may be negative
        self.initial_window = frames.DEFAULT_WINDOW  # of new streams
        self.waiting: dict[int, Stream[Any]] = {}  # with unsent data and a window
        self.blocked = False
        self.queued = 0

    def take(self) -> bytes:
        """Remove and return all serialized frames."""
        taken, self.frames = self.frames, []
        self.queued = 0
        return b"".join(taken)

    def send_head(self, number: int, block: bytes, *, ends: bool) -> None:
        """Send a header block."""
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        flags = END_STREAM if ends else 0
        if len(block) <= MAX_FRAME_BYTES:
            flags |= END_HEADERS
            self.frames += (
                frames.frame_header(len(block), HEADERS, flags, number),
                block,
            )
            return
        kind = HEADERS
        for start in range(0, len(block), MAX_FRAME_BYTES):
            part = block[start : start + MAX_FRAME_BYTES]
            if start + MAX_FRAME_BYTES >= len(block):
                flags |= END_HEADERS
            self.frames.append(frames.frame(kind, flags, number, part))
            kind, flags = frames.CONTINUATION, 0

    def send_response(self, number: int, block: bytes, body: bytes) -> bool:
        """Send a whole response on a stream of which nothing has been sent.

        Return False, with no effect, if *body* does not fit into a frame and the windows.
        """
        size = len(body)
        if size and size > min(self.window, self.initial_window, MAX_FRAME_BYTES):
            return False
        self.send_head(number, block, ends=not size)
        if size:
            self.window -= size
            self.queued += size
            self.frames += (frames.frame_header(size, DATA, END_STREAM, number), body)
        return True

    def send_data(self, stream: Stream[Any], data: bytes, *, ends: bool) -> None:
        """Send *data*; what can't be sent at once is in ``stream.unsent``.

        The stream has no unsent data. Empty data ends the stream.
        """
        stream.ends = ends
        if not data:
            header = frames.frame_header(0, DATA, END_STREAM, stream.number)
            self.frames.append(header)
            self._finish(stream)
            return
        stream.unsent = memoryview(data)
        if stream.send_window > 0:
            self.waiting[stream.number] = stream
            self.pump()

    def pump(self) -> bool:
        """Send unsent data until `MAX_BATCH_BYTES` are queued; return whether more is.

        Then the caller writes the frames, and calls again if ``blocked`` is not set.
        """
        waiting = self.waiting
        while waiting and self.window > 0 and not self.blocked:
            if self.queued >= MAX_BATCH_BYTES:
                return True
            stream = waiting.pop(next(iter(waiting)))
            self._send_frame(stream)
            if stream.unsent and stream.send_window > 0:
                waiting[stream.number] = stream  # behind the others
        return False

    def _send_frame(self, stream: Stream[Any]) -> None:
        data = stream.unsent
        allowed = min(self.window, stream.send_window)
        size = min(len(data), allowed, MAX_FRAME_BYTES)
        rest = data[size:]  # no copy
        flags = END_STREAM if stream.ends and not rest else 0
        header = frames.frame_header(size, DATA, flags, stream.number)
        self.frames += (header, data[:size])
        self.window -= size
        self.queued += size
        stream.send_window -= size
        stream.unsent = rest
        stream.progress += size
        if size < allowed or size >= WORTHWHILE_BYTES:
            self._credit.earn(EARNED_BY_DATA)
        if not rest:
            self._finish(stream)

    def _finish(self, stream: Stream[Any]) -> None:
        if stream.ends:
            stream.local_ended = True
        self._on_sent(stream)

    def extend_stream(self, stream: Stream[Any], increment: int) -> bool:
        """Extend the window of a stream; return False on overflow."""
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            return False
        if stream.unsent and stream.send_window > 0:
            self.waiting[stream.number] = stream
        return True

    def close(self) -> None:
        """Drop all data and the reference to the caller."""
        self._on_sent = _ignore
        self.frames.clear()
        self.waiting.clear()

    def forget(self, stream: Stream[Any]) -> None:
        """Drop the unsent data of a closed stream."""
        stream.unsent = NOTHING
        self.waiting.pop(stream.number, None)


def _ignore(stream: Stream[Any]) -> None:
    """Do nothing: the connection is closed."""
