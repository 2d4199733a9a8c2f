"""Where a request's body ends: decoders that take it out of the received bytes.

Both kinds take from the front of a shared buffer and never more than the body, so
that what remains is the next request. A chunked body is judged strictly (RFC 9112
§7.1); chunk extensions are checked and dropped, trailers are kept for whoever passes
the body on, who has to choose among them: some would pose as headers.
"""

from __future__ import annotations

import re
from typing import Protocol

from authproxy_core.errors import RequestError
from authproxy_core.messages import Header

CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")
TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
LINE_BYTES = 1 << 10  # of a chunk-size line or a trailer
OVERHEAD_BYTES = 16 << 10  # of all extensions and trailers of a body
NO_TRAILERS: list[Header] = []
MAX_READ_BYTES = 256 << 10  # of what is handed on at once


class Decoder(Protocol):
    """Takes the body from the front of what was received."""

    done: bool
    trailers: list[Header]

    def take(self, received: bytearray) -> bytes:
        """The next piece of the body, b"" when more must be received (or it is done).

        Raises `RequestError` on malformed framing.
        """

    def passed(self, data: bytes) -> bytes:
        """*data* if nothing in it has to be decoded or left, else b"".

        It is for what comes while nothing else waits in front of it.
        """

    def remaining(self) -> int | None:
        """How many bytes are still to come, None when that can't be known."""


class LengthDecoder:
    """A body of a known size (0 for none)."""

    __slots__ = ("_left", "done", "trailers")

    def __init__(self, length: int) -> None:
        self.trailers: list[Header] = NO_TRAILERS
        self._left = length
        self.done = length == 0

    def take(self, received: bytearray) -> bytes:
        """The next piece, at most `PIECE_BYTES`."""
        piece = _cut(received, min(self._left, MAX_READ_BYTES))
        self._left -= len(piece)
        self.done = self._left == 0
        return piece

    def passed(self, data: bytes) -> bytes:
        """All of it, if the body does not end within."""
        if len(data) > self._left:
            return b""
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def remaining(self) -> int | None:
        """How many bytes are still to come."""
        return self._left


class ChunkedDecoder:
    """A body in chunks."""

    __slots__ = (
        "_in_trailers",
        "_left",
        "_overhead",
        "_wants_line_end",
        "done",
        "trailers",
    )

    def __init__(self) -> None:
        self.trailers: list[Header] = []
        self._left = 0
        self._wants_line_end = False
        self._in_trailers = False
        self._overhead = 0
        self.done = False

    def take(self, received: bytearray) -> bytes:
        """The next piece, at most `PIECE_BYTES`."""
        while not self.done:
            if self._left:
                return self._take_data(received)
            if self._in_trailers:
                if not self._take_trailer(received):
                    return b""
            elif not self._next_chunk(received):
                return b""
        return b""

    def passed(self, data: bytes) -> bytes:
        """All of it, if it is within one chunk."""
        if len(data) >= self._left:
            return b""
        self._left -= len(data)
        return data

    def remaining(self) -> int | None:
        """Not known before the end."""
        return 0 if self.done else None

    def _take_data(self, received: bytearray) -> bytes:
        piece = _cut(received, min(self._left, MAX_READ_BYTES))
        self._left -= len(piece)
        self._wants_line_end = self._left == 0
        return piece

    def _next_chunk(self, received: bytearray) -> bool:
        if self._wants_line_end:
            if not b"\r\n".startswith(bytes(received[:2])):
                raise RequestError("chunk data without its line end")
            if len(received) < 2:
                return False
            del received[:2]
            self._wants_line_end = False
        line = self._line(received)
        if line is None:
            return False
        match = CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise RequestError("malformed chunk size")
        self._spend(len(match[2] or b""))
        self._left = int(match[1], 16)
        self._in_trailers = self._left == 0
        return True

    def _take_trailer(self, received: bytearray) -> bool:
        line = self._line(received)
        if line is None:
            return False
        self._spend(len(line))
        if not line:
            self.done = True
            return True
        trailer = TRAILER.fullmatch(line)
        if trailer is None:
            raise RequestError("malformed trailer")
        self.trailers.append((trailer[1].lower(), trailer[2].strip(b" \t")))
        return True

    def _line(self, received: bytearray) -> bytes | None:
        end = received.find(b"\n", 0, LINE_BYTES)
        if end < 0:
            if len(received) >= LINE_BYTES:
                raise RequestError("line too long in a chunked body")
            return None
        if received[end - 1 : end] != b"\r":
            raise RequestError("bare line feed in a chunked body")
        line = bytes(received[: end - 1])
        del received[: end + 1]
        return line

    def _spend(self, size: int) -> None:
        self._overhead += size
        if self._overhead > OVERHEAD_BYTES:
            raise RequestError("too many extensions and trailers in a chunked body")


def _cut(received: bytearray, size: int) -> bytes:
    """The first *size* bytes, taken out."""
    if size >= len(received):
        piece = bytes(received)
        received.clear()
        return piece
    with memoryview(received) as view:
        piece = bytes(view[:size])
    del received[:size]
    return piece


def decoder_for(length: int | None) -> Decoder:
    """The decoder for a body of *length* bytes, or of chunks when that is None."""
    return ChunkedDecoder() if length is None else LengthDecoder(length)
