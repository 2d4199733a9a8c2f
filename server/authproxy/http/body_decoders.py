"""Decoders that take a message body from the front of the received bytes.

A decoder never takes more than the body, so the remaining bytes are the next message.
Chunked bodies are parsed strictly (RFC 9112 §7.1). Chunk extensions are checked and
dropped. Trailers are stored; the caller filters them before it forwards them.
"""

from __future__ import annotations

import re
from typing import Protocol

from authproxy_core.errors import RequestError
from authproxy_core.messages import Header

from .field_syntax import FIELD_NAME, FIELD_VALUE, OWS

CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
# Some servers pad the size to a fixed width (RFC 9112 §7.1.1: only before an extension).
PADDED_CHUNK_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,16})[\t ]{0,16}(;[\t\x20-\x7e\x80-\xff]*)?\r\n"
)
TRAILER = re.compile(b"(%b):(%b)" % (FIELD_NAME.pattern, FIELD_VALUE.pattern))
MAX_LINE_BYTES = 1 << 10  # bytes of a chunk-size line or a trailer
MAX_OVERHEAD_BYTES = 16 << 10  # bytes of all extensions and trailers of a body
MAX_TRAILERS = 100
MAX_READ_BYTES = 256 << 10  # bytes that `take` returns at once
MAX_READ_LINES = 256  # chunk-size lines and trailers that `take` parses at once
NO_TRAILERS: list[Header] = []


class Decoder(Protocol):
    """Decoder of one message body.

    ``done`` is true once the body is complete; ``trailers`` are complete then, too.
    """

    done: bool
    trailers: list[Header]

    def take(self, received: bytearray) -> bytes:
        """Remove and return body bytes; b"" if more input is needed or the body is done.

        Raises `RequestError` on malformed framing.
        """

    def pass_through(self, data: bytes) -> bytes:
        """Return *data* if all of it is body bytes that need no decoding, else b"".

        Call it only while the buffer for `take` is empty.
        """

    def remaining(self) -> int | None:
        """Return the number of missing body bytes; None if it is unknown."""


class LengthDecoder:
    """Decoder of a body of *length* bytes."""

    __slots__ = ("_left", "done", "trailers")

    def __init__(self, length: int) -> None:
        self.trailers: list[Header] = NO_TRAILERS
        self._left = length
        self.done = length == 0

    def take(self, received: bytearray) -> bytes:
        """Remove and return at most `MAX_READ_BYTES` of the body."""
        data = _take_front(received, min(self._left, MAX_READ_BYTES))
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def pass_through(self, data: bytes) -> bytes:
        """Return *data* if the body does not end within it, else b""."""
        if len(data) > self._left:
            return b""
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def remaining(self) -> int | None:
        """Return the number of missing body bytes."""
        return self._left


class ChunkedDecoder:
    """Decoder of a body in the chunked transfer coding; *size_line* matches its sizes."""

    __slots__ = (
        "_expects_crlf",
        "_in_trailers",
        "_left",
        "_overhead",
        "_size_line",
        "done",
        "trailers",
    )

    def __init__(self, size_line: re.Pattern[bytes] = CHUNK_SIZE) -> None:
        self.trailers: list[Header] = []
        self.done = False
        self._size_line = size_line
        self._left = 0  # bytes of the current chunk
        self._expects_crlf = False  # after a chunk's data
        self._in_trailers = False
        self._overhead = 0  # bytes of extensions and trailers

    def take(self, received: bytearray) -> bytes:
        """Remove and return at most `MAX_READ_BYTES` of the body.

        At most `MAX_READ_LINES` lines are parsed at once. The result is empty only if
        more input is needed or the body is done.
        """
        body, at = bytearray(), 0
        for _ in range(MAX_READ_LINES):
            if self.done:  # the following bytes are the next message
                break
            if self._left:
                end = min(at + self._left, at + MAX_READ_BYTES - len(body))
                data = received[at:end]
                body += data
                at += len(data)
                self._left -= len(data)
                if self._left:
                    break
                self._expects_crlf = True
            parse_line = self._parse_trailer if self._in_trailers else self._parse_size
            after = parse_line(received, at)
            if after == at:
                break
            at = after
        del received[:at]
        return bytes(body)

    def pass_through(self, data: bytes) -> bytes:
        """Return *data* if the current chunk does not end within it, else b""."""
        if len(data) >= self._left:
            return b""
        self._left -= len(data)
        return data

    def remaining(self) -> int | None:
        """Return 0 once the body is complete, else None."""
        return 0 if self.done else None

    def _parse_size(self, received: bytearray, at: int) -> int:
        """Parse the chunk-size line at index *at*; return the index after it.

        Return *at* if more input is needed. Raises `RequestError`.
        """
        start = at
        if self._expects_crlf:
            start += 2
            line_end = received[at:start]
            if line_end != b"\r\n":
                if b"\r\n".startswith(line_end):
                    return at
                raise RequestError("no CRLF after the data of a chunk")
        match = self._size_line.match(received, start, start + MAX_LINE_BYTES)
        if match is None:
            if _find_line_end(received, start) < 0:
                return at
            raise RequestError("malformed chunk size")
        if match[2]:
            self._add_overhead(len(match[2]))
        self._left = int(match[1], 16)
        self._in_trailers = self._left == 0
        self._expects_crlf = False
        return match.end()

    def _parse_trailer(self, received: bytearray, at: int) -> int:
        """Parse the trailer or the final empty line at index *at*, as `_parse_size`."""
        end = _find_line_end(received, at)
        if end < 0:
            return at
        line = bytes(received[at : end - 1])
        self._add_overhead(len(line))
        if not line:
            self.done = True
            return end + 1
        trailer = TRAILER.fullmatch(line)
        if trailer is None:
            raise RequestError("malformed trailer")
        if len(self.trailers) == MAX_TRAILERS:
            raise RequestError("too many trailers in a chunked body")
        self.trailers.append((trailer[1].lower(), trailer[2].strip(OWS)))
        return end + 1

    def _add_overhead(self, size: int) -> None:
        self._overhead += size
        if self._overhead > MAX_OVERHEAD_BYTES:
            raise RequestError("too many extensions and trailers in a chunked body")


def _find_line_end(received: bytearray, start: int) -> int:
    """Return the index of the line feed that ends the line at *start*; -1 if none.

    Raises `RequestError` for a line that is too long or has no carriage return.
    """
    end = received.find(b"\n", start, start + MAX_LINE_BYTES)
    if end < 0:
        if len(received) - start >= MAX_LINE_BYTES:
            raise RequestError("line too long in a chunked body")
    elif end == start or received[end - 1] != ord("\r"):
        raise RequestError("bare line feed in a chunked body")
    return end


def _take_front(received: bytearray, size: int) -> bytes:
    """Remove and return the first *size* bytes, or all if there are fewer."""
    if size >= len(received):
        data = bytes(received)
        received.clear()
        return data
    with memoryview(received) as view:
        data = bytes(view[:size])
    del received[:size]
    return data


def create_decoder(length: int | None) -> Decoder:
    """Return a decoder for a body of *length* bytes; None means chunked."""
    return ChunkedDecoder() if length is None else LengthDecoder(length)
