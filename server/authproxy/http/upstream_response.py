"""An upstream's answer: bytes to heads and to pieces of the body, strictly.

The head is cut out and read by llhttp, whose lenient flags stay off; what it takes
more easily than RFC 9112 allows is judged here. The body is taken by the decoders of
`bodies`, never a byte more: what is left over would be the answer to a later request.
"""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

from authproxy_core.errors import AuthProxyError, RequestError
from authproxy_core.identity.headers import HOP_BY_HOP, connection_options
from authproxy_core.messages import Header, Headers, header_values

from .body_decoders import NO_TRAILERS, ChunkedDecoder, Decoder, LengthDecoder
from .response_encoder import has_body
from .trailers import FORBIDDEN_IN_ANSWERS, forwardable_trailers

HEAD_LIMIT = 256 << 10  # bytes of all heads of an answer, interim ones included
INFORMATIONAL_LIMIT = 16  # interim answers before the final one
VERSION = b"HTTP/1."
FRAMING_FIELDS = HOP_BY_HOP | {b"content-length"}
USUAL_OPTIONS = frozenset({b"close", b"keep-alive"})
# A bare line feed is llhttp's to refuse: without this, it would be waited for more.
HEAD_END = re.compile(rb"\r?\n\r?\n")
CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")


class UpstreamError(AuthProxyError):
    """The upstream failed before the response was started downstream.

    *reason* is the reason code of the error page, the metrics and the event.
    """

    code = "upstream_failed"
    status_hint = 502

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ResponseHead(Struct, frozen=True):
    """The head of an answer.

    ``headers`` are the fields that are not for this connection alone; ``length`` is
    Content-Length, None when it is absent. ``chunked`` is the framing, ``persists``
    says that the connection may be used again after the body. ``upgrade`` is what
    Upgrade says, b"" without it.
    """

    status: int
    headers: Headers
    length: int | None
    chunked: bool
    persists: bool
    upgrade: bytes = b""


class CloseDelimitedDecoder:
    """A body that only the end of the connection ends."""

    done = False
    trailers = NO_TRAILERS

    def passed(self, data: bytes) -> bytes:
        """All of it."""
        return data

    def take(self, received: bytearray) -> bytes:
        """All that has come."""
        piece = bytes(received)
        received.clear()
        return piece

    def remaining(self) -> int | None:
        """Not known before the end."""
        return None


class ResponseReader:
    """Reads one answer from what the upstream sends; raises `UpstreamFailed`.

    *upgrade* is the protocol that was asked for: with a 101 that names it, it begins,
    and what follows is its.
    """

    def __init__(self, method: bytes, upgrade: bytes = b"") -> None:
        self._method = method
        self._upgrade = upgrade
        self._received = bytearray()
        self._scanned = 0
        self._head_bytes = 0
        self._interim = 0
        self._decoder: Decoder = LengthDecoder(0)

    def feed(self, data: bytes) -> None:
        """Take what the upstream sent."""
        self._received += data

    def head(self) -> ResponseHead | None:
        """The next head, an interim one or the final one; None until it is whole."""
        received = self._received
        if not VERSION.startswith(received[: len(VERSION)]):
            raise UpstreamError("malformed_answer")
        end = HEAD_END.search(received, max(self._scanned - 3, 0))
        self._scanned = len(received)
        size = end.end() if end else len(received)
        if self._head_bytes + size > HEAD_LIMIT:
            raise UpstreamError("head_too_large")
        if end is None:
            return None
        head = _parse(bytes(received[:size]))
        del received[:size]
        self._scanned = 0
        self._head_bytes += size
        if head.status == 101:
            if not self._upgrade or head.upgrade.lower() != self._upgrade.lower():
                raise UpstreamError("malformed_answer")
        elif head.status < 200:
            self._interim += 1
            if self._interim > INFORMATIONAL_LIMIT:
                raise UpstreamError("malformed_answer")
        else:
            self._decoder = self._decoder_for(head)
        return head

    def _decoder_for(self, head: ResponseHead) -> Decoder:
        """How the body ends (RFC 9112 §6.3)."""
        if self._method == b"HEAD" or not has_body(head.status):
            return LengthDecoder(0)
        if head.chunked:
            return ChunkedDecoder()
        return (
            CloseDelimitedDecoder()
            if head.length is None
            else LengthDecoder(head.length)
        )

    def passed(self, data: bytes) -> bytes:
        """What of *data*, just received, is the next piece of the body as it stands.

        b"" when it is not that simple; then `feed` and `piece` are for it.
        """
        return b"" if self._received else self._decoder.passed(data)

    def piece(self) -> bytes:
        """The next piece of the body; b"" when more must come, or when it is done."""
        try:
            return self._decoder.take(self._received)
        except RequestError:
            raise UpstreamError("malformed_answer") from None

    def whole(self) -> bytes | None:
        """The whole body if it has come, else None; not to be used with `piece`."""
        body = self.piece()
        while not self._decoder.done:
            piece = self.piece()
            if not piece and not self._decoder.done:
                return None
            body += piece
        return body

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._decoder.done

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection completes the body."""
        return isinstance(self._decoder, CloseDelimitedDecoder)

    @property
    def trailers(self) -> Headers:
        """The trailers that may pass, once the body is complete."""
        return forwardable_trailers(self._decoder.trailers, FORBIDDEN_IN_ANSWERS)

    @property
    def trailing_data(self) -> bytes:
        """The bytes that do not belong to this answer."""
        return bytes(self._received)


class _Fields:
    """What llhttp calls; names of fields lower-case."""

    def __init__(self) -> None:
        self.headers: list[Header] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field; llhttp leaves blanks at the value's end."""
        self.headers.append((name.lower(), value.strip(b" \t")))


def _parse(data: bytes) -> ResponseHead:
    fields = _Fields()
    parser = HttpResponseParser(fields)
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass  # a 101; what to do with it is not the parser's affair
    except HttpParserError:
        raise UpstreamError("malformed_answer") from None
    status, old = parser.get_status_code(), parser.get_http_version() == "1.0"
    if status < 100:
        raise UpstreamError("malformed_answer")
    return _judged(status, fields.headers, old=old)


def _judged(status: int, headers: list[Header], *, old: bool) -> ResponseHead:
    """Judge the framing: what could be read in two ways is refused."""
    kept: list[Header] = []
    judged: list[Header] = []
    for field in headers:
        (judged if field[0] in FRAMING_FIELDS else kept).append(field)
    lengths = header_values(judged, b"content-length")
    codings = header_values(judged, b"transfer-encoding")
    if codings and (lengths or old or [one.lower() for one in codings] != [b"chunked"]):
        raise UpstreamError("malformed_answer")
    if len(lengths) > 1 or not all(CONTENT_LENGTH.fullmatch(one) for one in lengths):
        raise UpstreamError("malformed_answer")
    options = connection_options(judged)
    if options - USUAL_OPTIONS:
        kept = [field for field in kept if field[0] not in options]
    return ResponseHead(
        status,
        tuple(kept),
        int(lengths[0]) if lengths else None,
        bool(codings),
        not old and b"close" not in options,
        b", ".join(header_values(judged, b"upgrade")),
    )
