"""Parse an upstream's HTTP/1 response: heads and body.

llhttp parses the head; its lenient flags stay off. Where it accepts more than RFC 9112
allows, `_check_framing` is stricter. A head that it rejects is normalized if that is safe,
and its connection is not used again. The body decoders never take more than the body,
because the remaining bytes could pass for the response to a later request.
"""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct
from msgspec.structs import replace

from authproxy_core.errors import AuthProxyError, RequestError
from authproxy_core.identity.headers import connection_options
from authproxy_core.messages import Header, Headers, header_values

from .body_decoders import (
    NO_TRAILERS,
    PADDED_CHUNK_SIZE,
    ChunkedDecoder,
    Decoder,
    LengthDecoder,
)
from .field_syntax import CONTENT_LENGTH, OWS
from .lenient_head import FRAMING_FIELDS, normalize_head
from .response_encoder import has_body
from .trailers import FORBIDDEN_RESPONSE_PREFIXES, forwardable_trailers

MAX_HEAD_BYTES = 256 << 10  # bytes of all heads of a response, informational ones too
MAX_INFORMATIONAL = 16  # 1xx responses before the final one
VERSION = b"HTTP/1."
PERSISTENCE_OPTIONS = frozenset({b"close", b"keep-alive"})
HEAD_END = re.compile(rb"\r?\n\r?\n")


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
    """The head of a response.

    ``headers`` are the end-to-end fields. ``length`` is Content-Length in bytes, None
    if it is absent. ``chunked`` is the framing. ``keep_alive`` means that the
    connection can be reused after the body. ``upgrade`` is the value of Upgrade, b""
    if it is absent.
    """

    status: int
    headers: Headers
    length: int | None
    chunked: bool
    keep_alive: bool
    upgrade: bytes = b""


class CloseDelimitedDecoder:
    """Decoder of a body that ends when the connection closes (RFC 9112 §6.3)."""

    done = False
    trailers = NO_TRAILERS

    def pass_through(self, data: bytes) -> bytes:
        """Return *data*."""
        return data

    def take(self, received: bytearray) -> bytes:
        """Remove and return all of *received*."""
        data = bytes(received)
        received.clear()
        return data

    def remaining(self) -> int | None:
        """Return None: the length is unknown."""
        return None


class ResponseReader:
    """Parser of one response; all methods raise `UpstreamError`.

    *method* is the method of the request. *upgrade* is the requested protocol: only a
    101 response that selects it is accepted, and all later bytes belong to it.
    """

    def __init__(self, method: bytes, upgrade: bytes = b"") -> None:
        self._method = method
        self._upgrade = upgrade
        self._received = bytearray()
        self._scanned = 0  # bytes that were searched for the end of the head
        self._head_bytes = 0
        self._informational = 0
        self._decoder: Decoder = LengthDecoder(0)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._received += data

    def read_head(self) -> ResponseHead | None:
        """Return the next head, informational or final; None until it is complete."""
        received = self._received
        if not VERSION.startswith(received[: len(VERSION)]):
            raise UpstreamError("malformed_answer")
        end = HEAD_END.search(received, max(self._scanned - 3, 0))
        self._scanned = len(received)
        size = end.end() if end else len(received)
        if self._head_bytes + size > MAX_HEAD_BYTES:
            raise UpstreamError("head_too_large")
        if end is None:
            return None
        head = _parse_head(bytes(received[:size]))
        del received[:size]
        self._scanned = 0
        self._head_bytes += size
        if head.status == 101:
            if not self._upgrade or head.upgrade.lower() != self._upgrade.lower():
                raise UpstreamError("malformed_answer")
        elif head.status < 200:
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise UpstreamError("malformed_answer")
        else:
            self._decoder = self._create_decoder(head)
        return head

    def _create_decoder(self, head: ResponseHead) -> Decoder:
        """Return the decoder for the body's framing (RFC 9112 §6.3)."""
        if self._method == b"HEAD" or not has_body(head.status):
            return LengthDecoder(0)
        if head.chunked:
            return ChunkedDecoder(PADDED_CHUNK_SIZE)
        return (
            CloseDelimitedDecoder()
            if head.length is None
            else LengthDecoder(head.length)
        )

    def pass_through(self, data: bytes) -> bytes:
        """Return *data*, just received, if all of it is body bytes, else b"".

        For b"" call `feed` and `read_chunk`.
        """
        return b"" if self._received else self._decoder.pass_through(data)

    def read_chunk(self) -> bytes:
        """Return the next body bytes; b"" if more input is needed or the body is done."""
        try:
            return self._decoder.take(self._received)
        except RequestError:
            raise UpstreamError("malformed_answer") from None

    def read_buffered_body(self) -> bytes | None:
        """Return the body if it has been received completely, else None.

        Do not combine with `read_chunk`: it removes the bytes in both cases.
        """
        body = self.read_chunk()
        while not self._decoder.done:
            data = self.read_chunk()
            if not data and not self._decoder.done:
                return None
            body += data
        return body

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._decoder.done

    @property
    def is_close_delimited(self) -> bool:
        """Whether the end of the connection completes the body."""
        return isinstance(self._decoder, CloseDelimitedDecoder)

    @property
    def trailers(self) -> Headers:
        """The trailers to forward, once the body is complete."""
        return forwardable_trailers(self._decoder.trailers, FORBIDDEN_RESPONSE_PREFIXES)

    @property
    def trailing_data(self) -> bytes:
        """The bytes after the response."""
        return bytes(self._received)


class _FieldCollector:
    """Callbacks of llhttp; collects the fields with lower-case names."""

    def __init__(self) -> None:
        self.headers: list[Header] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one field; llhttp keeps whitespace at the end of a value."""
        self.headers.append((name.lower(), value.strip(OWS)))


def _parse_head(data: bytes) -> ResponseHead:
    try:
        return _parse_strictly(data)
    except HttpParserError:
        normalized = normalize_head(data)
    try:
        head = _parse_strictly(normalized or b"")
    except HttpParserError:
        raise UpstreamError("malformed_answer") from None
    # Another reader of the same bytes may have seen another end of the response.
    return replace(head, keep_alive=False)


def _parse_strictly(data: bytes) -> ResponseHead:
    """Return the head in *data*; raises HttpParserError and `UpstreamError`."""
    collector = _FieldCollector()
    parser = HttpResponseParser(collector)
    try:  # noqa: SIM105 - modules of this folder import few others
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass  # a 101 response; `ResponseReader` checks the protocol
    status, is_http10 = parser.get_status_code(), parser.get_http_version() == "1.0"
    if status < 100:
        raise UpstreamError("malformed_answer")
    return _check_framing(status, collector.headers, is_http10=is_http10)


def _check_framing(
    status: int, headers: list[Header], *, is_http10: bool
) -> ResponseHead:
    """Return the head; raises `UpstreamError` if the framing is ambiguous."""
    end_to_end: list[Header] = []
    framing: list[Header] = []
    for field in headers:
        (framing if field[0] in FRAMING_FIELDS else end_to_end).append(field)
    lengths = header_values(framing, b"content-length")
    codings = header_values(framing, b"transfer-encoding")
    if codings and (
        lengths or is_http10 or [coding.lower() for coding in codings] != [b"chunked"]
    ):
        raise UpstreamError("malformed_answer")
    if len(lengths) > 1 or not all(map(CONTENT_LENGTH.fullmatch, lengths)):
        raise UpstreamError("malformed_answer")
    options = connection_options(framing)
    if options - PERSISTENCE_OPTIONS:
        end_to_end = [field for field in end_to_end if field[0] not in options]
    return ResponseHead(
        status,
        tuple(end_to_end),
        int(lengths[0]) if lengths else None,
        bool(codings),
        not is_http10 and b"close" not in options,
        b", ".join(header_values(framing, b"upgrade")),
    )
