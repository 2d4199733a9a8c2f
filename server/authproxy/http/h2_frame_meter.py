"""Flood protection: meter HTTP/2 frames before the `h2` library parses them.

The library buffers a whole frame, up to 16 MB, before it checks the length, and reports
no event for frames that it handles by itself. So the frame headers (RFC 9113 §4.1) are
parsed here: oversized frames raise an error at once, and frames that cause work without
progress, such as pings and resets, have a cost.
"""

from __future__ import annotations

PREFACE_BYTES = 24  # length of the client's connection preface (RFC 9113 §3.4)
FRAME_HEADER_BYTES = 9
MAX_FRAME_BYTES = 16_384  # the default SETTINGS_MAX_FRAME_SIZE, which is never raised
DATA, HEADERS, PRIORITY, RST_STREAM, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
RESET_COST = 5
HEAD_BYTES_PER_COST = 2048  # bytes of a header block that cost 1


class FrameError(Exception):
    """The peer's frames exceed a size limit."""


class FrameMeter:
    """Meter of the frames in one direction of a connection.

    *head_bytes* limits the encoded size of one header block (HEADERS and CONTINUATION
    frames together). *preface* is the number of bytes before the first frame.
    """

    def __init__(self, head_bytes: int, *, preface: int = PREFACE_BYTES) -> None:
        self._head_bytes = head_bytes
        self._skip = preface  # bytes until the next frame header
        self._header = b""  # the received part of a frame header
        self._block = 0  # bytes of the current header block

    def cost(self, data: bytes) -> int:
        """Return the cost of the frames whose header ends in *data*.

        Raises `FrameError`.
        """
        cost, at, size = 0, 0, len(data)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            part = data[at : at + FRAME_HEADER_BYTES - len(self._header)]
            self._header += part
            at += len(part)
            if len(self._header) == FRAME_HEADER_BYTES:
                cost += self._frame_cost(self._header)
                self._header = b""
        return cost

    def _frame_cost(self, header: bytes) -> int:
        length = int.from_bytes(header[:3])
        kind, flags = header[3], header[4]
        if length > MAX_FRAME_BYTES:
            raise FrameError(f"frame of {length} bytes")
        self._skip = length
        if kind in (HEADERS, CONTINUATION):
            self._block = length + (self._block if kind == CONTINUATION else 0)
            if self._block > self._head_bytes:
                raise FrameError(f"header block of more than {self._head_bytes} bytes")
            # The time to decode a header block is proportional to its size.
            return length // HEAD_BYTES_PER_COST if length or flags & END_HEADERS else 1
        if kind == DATA:
            return 0 if length or flags & END_STREAM else 1
        if kind == WINDOW_UPDATE:
            return 0
        return RESET_COST if kind == RST_STREAM else 1
