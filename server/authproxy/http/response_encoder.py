"""Encode responses in HTTP/1.1 (RFC 9112).

A head consists of the status line, the fields, the framing, Date, and Connection if it
is needed. Field names are capitalized. There is no Server field.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Literal, TypeAlias

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.messages import Header, Headers, Respond

Persistence: TypeAlias = Literal["", "keep-alive", "close"]

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
}
CONNECTION_FIELDS = {
    "": b"",
    "keep-alive": b"Connection: keep-alive\r\n",
    "close": b"Connection: close\r\n",
}
ERROR_FIELDS: Headers = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
# Names whose established spelling is not the capitalized one.
SPECIAL_PREFIXES = {
    b"etag": b"ETag: ",
    b"te": b"TE: ",
    b"www-authenticate": b"WWW-Authenticate: ",
}
MAX_CACHED_NAME_BYTES = 64 << 10
_prefixes: BoundedCache[bytes, bytes] = BoundedCache(MAX_CACHED_NAME_BYTES)


def field_prefix(name: bytes) -> bytes:
    """Return the encoded start of a field, such as ``b"Set-Cookie: "``."""
    prefix = _prefixes.get(name)
    if prefix is None:
        prefix = _prefixes.put(name, _encode_prefix(name.lower()), len(name))
    return prefix


def _encode_prefix(name: bytes) -> bytes:
    special = SPECIAL_PREFIXES.get(name)
    if special is not None:
        return special
    return b"-".join([part.capitalize() for part in name.split(b"-")]) + b": "


def status_line(status: int) -> bytes:
    """Return the status line with CRLF; an unregistered status has no phrase."""
    return STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()


def encode_fields(headers: Sequence[Header]) -> bytes:
    """Return the fields, each with CRLF.

    Raises ValueError for CR, LF or NUL inside a field: the last defense against
    response splitting.
    """
    parts: list[bytes] = []
    cached = _prefixes.get
    for name, value in headers:
        parts += (cached(name) or field_prefix(name), value, b"\r\n")
    text = b"".join(parts)
    count = len(headers)
    # One check of the whole text is faster than one per value.
    if text.count(b"\n") != count or text.count(b"\r") != count or b"\0" in text:
        raise ValueError(f"control character in header field {_broken_name(headers)}")
    return text


def _broken_name(headers: Sequence[Header]) -> str:
    """Return the name of the first field that contains CR, LF or NUL."""
    for name, value in headers:
        if any(char in name + value for char in (b"\n", b"\r", b"\0")):
            return name.decode("latin-1")
    return ""


def has_body(status: int) -> bool:
    """Return whether a response with *status* may have a body (RFC 9110 §6.4.1)."""
    return status >= 200 and status not in (204, 304)


def encode_response(
    respond: Respond, date: bytes, *, head_only: bool, persistence: Persistence
) -> bytes:
    """Return the whole response; *date* is the Date field with CRLF."""
    return b"".join(
        (
            encode_head(respond),
            date,
            CONNECTION_FIELDS[persistence],
            b"\r\n",
            respond.body if not head_only and has_body(respond.status) else b"",
        )
    )


def encode_head(respond: Respond) -> bytes:
    """Return status line, fields and Content-Length, which can be cached.

    Date, Connection and the empty line have to follow.
    """
    head = status_line(respond.status) + encode_fields(respond.headers)
    if has_body(respond.status):
        head += b"Content-Length: %d\r\n" % len(respond.body)
    return head


def encode_stream_head(
    status: int,
    headers: Headers,
    date: bytes,
    *,
    length: int | None,
    chunked: bool,
    persistence: Persistence,
) -> bytes:
    """Return the head of a response whose body follows in parts.

    *length* is Content-Length in bytes, None if the length is unknown. *date* is
    ignored if *headers* contain Date.
    """
    framing = b""
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length is not None and status >= 200 and status != 204:
        framing = b"Content-Length: %d\r\n" % length
    has_date = any(name == b"date" for name, _ in headers)
    return b"".join(
        (
            status_line(status),
            encode_fields(headers),
            framing,
            b"" if has_date else date,
            CONNECTION_FIELDS[persistence],
            b"\r\n",
        )
    )


def encode_relayed(
    status: int,
    added_fields: bytes,
    upstream_fields: list[bytes],
    date: bytes,
    body: bytes,
    *,
    length: int | None,
    persistence: Persistence,
) -> bytes:
    """Return an upstream's response that was received as a whole.

    *added_fields* and *upstream_fields* are encoded. *date* is b"" if they contain
    Date. *length* is Content-Length, None without that field.
    """
    framing = b""
    if length is not None and status != 204:
        framing = b"Content-Length: %d\r\n" % length
    return b"".join(
        (
            status_line(status),
            added_fields,
            *upstream_fields,
            framing,
            date,
            CONNECTION_FIELDS[persistence],
            b"\r\n",
            body,
        )
    )


def encode_informational(status: int, headers: Headers = ()) -> bytes:
    """Return an informational response (1xx)."""
    return status_line(status) + encode_fields(headers) + b"\r\n"


def encode_switching_protocols(headers: Headers) -> bytes:
    """Return a 101 response; *headers* contain Upgrade."""
    return status_line(101) + encode_fields(headers) + b"Connection: Upgrade\r\n\r\n"


def error_response(status: int) -> Respond:
    """Return the plain-text response for errors that no page describes."""
    headers = ERROR_FIELDS
    if status == 405:
        headers += ((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)
    text = f"{status} {HTTPStatus(status).phrase}\n"
    return Respond(status, headers, text.encode())


def encode_error(status: int, date: bytes) -> bytes:
    """Return the encoded `error_response`, which closes the connection."""
    return encode_response(
        error_response(status), date, head_only=False, persistence="close"
    )
