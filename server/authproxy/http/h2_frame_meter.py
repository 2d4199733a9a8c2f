"""Watches the frames of an HTTP/2 client before the library gets them (RFC 9113 §4.1).

The library takes a frame whole before it looks at its length, which may be 16 MB, and
says nothing of frames that it answers by itself. So the heads of the frames are read
here: one that is too long ends the connection at once, and those that cost us something
and bring nothing are counted.
"""

from __future__ import annotations

PREFACE = 24  # bytes that a client sends first (RFC 9113 §3.4)
HEAD = 9  # bytes of a frame's head
MAX_FRAME = 16_384  # bytes; what our settings allow
DATA, HEADERS, PRIORITY, RST_STREAM, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
RESET_COST = 5
HEAD_UNIT = 2048  # bytes of a packed head that cost 1


class FrameError(Exception):
    """The client's frames are longer than allowed."""


class FrameMeter:
    """Reads the heads of frames in a stream of bytes.

    *head_bytes* bounds the frames of one header block together, as they come;
    *preface* is how many bytes come before the first frame.
    """

    def __init__(self, head_bytes: int, *, preface: int = PREFACE) -> None:
        self._head_bytes = head_bytes
        self._skip = preface
        self._head = b""
        self._block = 0

    def cost(self, data: bytes) -> int:
        """What the frames that begin in *data* cost; raises `FrameError`."""
        cost, at, size = 0, 0, len(data)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            piece = data[at : at + HEAD - len(self._head)]
            self._head += piece
            at += len(piece)
            if len(self._head) == HEAD:
                cost += self._begun(self._head)
                self._head = b""
        return cost

    def _begun(self, head: bytes) -> int:
        length = int.from_bytes(head[:3])
        kind, flags = head[3], head[4]
        if length > MAX_FRAME:
            raise FrameError(f"a frame of {length} bytes")
        self._skip = length
        if kind in (HEADERS, CONTINUATION):
            self._block = length + (self._block if kind == CONTINUATION else 0)
            if self._block > self._head_bytes:
                raise FrameError(f"a head of more than {self._head_bytes} bytes")
            # Unpacking takes time in proportion.
            return length // HEAD_UNIT if length or flags & END_HEADERS else 1
        if kind == DATA:
            return 0 if length or flags & END_STREAM else 1
        if kind == WINDOW_UPDATE:
            return 0
        return RESET_COST if kind == RST_STREAM else 1
