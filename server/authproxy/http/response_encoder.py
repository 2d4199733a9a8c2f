"""Answers to bytes (HTTP/1.1, RFC 9112).

A head is the status line, the fields, the framing, Date, and Connection where it is
needed. Names go out capitalised word by word. There is no Server field.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Literal, TypeAlias

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
NAMES_KEPT = 1024
# The names whose capitals are not those of the words.
SPECIAL_NAMES = {
    b"etag": b"ETag: ",
    b"te": b"TE: ",
    b"www-authenticate": b"WWW-Authenticate: ",
}
_prefixes: dict[bytes, bytes] = dict(SPECIAL_NAMES)


def prefix(name: bytes) -> bytes:
    """What a field of this name begins with, such as ``Set-Cookie:`` and a blank."""
    known = _prefixes.get(name)
    if known is None:
        if len(_prefixes) >= NAMES_KEPT:
            _prefixes.clear()
            _prefixes.update(SPECIAL_NAMES)
        words = name.lower().split(b"-")
        known = b"-".join(word.capitalize() for word in words) + b": "
        _prefixes[name] = known
    return known


def status_line(status: int) -> bytes:
    """The status line, with its line end; an unregistered status has no phrase."""
    return STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()


def fields(headers: Sequence[Header]) -> bytes:
    """The fields, each with its line end.

    The last guard against a split answer: a value with a line end is a bug of the
    core, and raises ValueError.
    """
    parts: list[bytes] = []
    known = _prefixes.get
    for name, value in headers:
        parts += (known(name) or prefix(name), value, b"\r\n")
    text = b"".join(parts)
    count = len(headers)
    # One look at all of it is quicker than one at each value.
    if text.count(b"\n") != count or text.count(b"\r") != count or b"\0" in text:
        raise ValueError(f"a line end inside the header field {_broken(headers)}")
    return text


def _broken(headers: Sequence[Header]) -> str:
    """The name of the first field that is more than one line."""
    for name, value in headers:
        if any(end in name + value for end in (b"\n", b"\r", b"\0")):
            return name.decode("latin-1")
    return ""


def has_body(status: int) -> bool:
    """Whether an answer with *status* may have a body (RFC 9110 §6.4.1)."""
    return status >= 200 and status not in (204, 304)


def encode_response(
    respond: Respond, date: bytes, *, head_only: bool, persistence: Persistence
) -> bytes:
    """The whole answer; *date* is the Date field with its line end."""
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
    """Status line, fields and Content-Length: what is the same for every client."""
    head = status_line(respond.status) + fields(respond.headers)
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
    """The head of an answer whose body is streamed; *length* None leaves it open."""
    framing = b""
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length is not None and status >= 200 and status != 204:
        framing = b"Content-Length: %d\r\n" % length
    dated = any(name == b"date" for name, _ in headers)
    return b"".join(
        (
            status_line(status),
            fields(headers),
            framing,
            b"" if dated else date,
            CONNECTION_FIELDS[persistence],
            b"\r\n",
        )
    )


def encode_relayed(
    status: int,
    ours: bytes,
    theirs: list[bytes],
    date: bytes,
    body: bytes,
    *,
    length: int | None,
    persistence: Persistence,
) -> bytes:
    """An upstream's answer that is whole already.

    *ours* and *theirs* are the fields, encoded; *date* is b"" when it is among them,
    *length* is Content-Length, None without.
    """
    framing = b""
    if length is not None and status != 204:
        framing = b"Content-Length: %d\r\n" % length
    return b"".join(
        (
            status_line(status),
            ours,
            *theirs,
            framing,
            date,
            CONNECTION_FIELDS[persistence],
            b"\r\n",
            body,
        )
    )


def informational(status: int, headers: Headers = ()) -> bytes:
    """An interim answer (1xx)."""
    return status_line(status) + fields(headers) + b"\r\n"


def switching(headers: Headers) -> bytes:
    """The head that ends HTTP on a connection; *headers* say what follows."""
    return status_line(101) + fields(headers) + b"Connection: Upgrade\r\n\r\n"


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
