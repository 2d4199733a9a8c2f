"""Build a `RequestHead` from the header list of an HTTP/2 stream (RFC 9113 §8.3).

The rules of HTTP/1.1 apply here, too, because a request may be forwarded in HTTP/1.1:
field names are tokens, values contain no CR or LF, there is one host. The `h2` library
has validated pseudo-header fields and connection-specific fields before.
"""

from __future__ import annotations

from collections.abc import Iterable

from authproxy_core.messages import Header

from ..server_settings import Limits
from .field_syntax import CONTENT_LENGTH, FIELD_VALUE, LOWERCASE_NAME, OWS
from .request_head import (
    FORBIDDEN_METHODS,
    HOST,
    MAX_HOST_BYTES,
    METHOD,
    VISIBLE,
    HeadError,
    RequestHead,
    normalize_target,
)

HTTP_2 = 2  # value of `RequestHead.minor`
# Connection-specific fields are not allowed in HTTP/2 (RFC 9113 §8.2.2).
CONNECTION_FIELDS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)
SINGLE_FIELDS = frozenset({b"host", b"content-length", b"expect", b"te"})


def build_request_head(
    received: Iterable[Header], limits: Limits, *, ended: bool
) -> RequestHead:
    """Return the head of a request; *ended* means that no body follows.

    Raises `HeadError`.
    """
    pseudo, headers = _split_fields(received, limits)
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not METHOD.fullmatch(method):
        raise HeadError(400, "malformed method")
    if method in FORBIDDEN_METHODS:
        raise HeadError(405, f"method {method.decode()}")
    if target[:1] != b"/" or not VISIBLE.fullmatch(target):
        target, authority = normalize_target(method, target)
        if authority is not None:
            raise HeadError(400, "malformed request target")
    if len(target) > limits.target_bytes:
        raise HeadError(414, f"request target of {len(target)} bytes")
    if len(headers) > limits.header_count:
        raise HeadError(431, f"{len(headers)} header fields")
    host = _host(pseudo, headers)
    fields = dict(headers)
    head = RequestHead(method, target, headers, fields, host, HTTP_2, True)
    head.length = _body_length(fields, ended=ended)
    if b"expect" in fields:
        if fields[b"expect"].lower() != b"100-continue":
            raise HeadError(417, "unknown expectation")
        head.expects_continue = not ended
    return head


def _split_fields(
    received: Iterable[Header], limits: Limits
) -> tuple[dict[bytes, bytes], list[Header]]:
    """Return pseudo-header fields and header fields, with one Cookie field."""
    pseudo: dict[bytes, bytes] = {}
    headers: list[Header] = []
    cookies: list[bytes] = []
    size = 0
    for raw_name, raw_value in received:
        # The library returns subclasses of tuple and sometimes of bytes.
        name, value = bytes(raw_name), bytes(raw_value)
        size += len(name) + len(value) + 32  # RFC 9113 §6.5.2
        if not FIELD_VALUE.fullmatch(value) or value != value.strip(OWS):
            raise HeadError(400, "malformed field value")
        if name[:1] == b":":
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)
        elif not LOWERCASE_NAME.fullmatch(name) or name in CONNECTION_FIELDS:
            raise HeadError(400, "malformed field name")
        else:
            headers.append((name, value))
    if size > limits.head_bytes:
        raise HeadError(431, f"head of more than {limits.head_bytes} bytes")
    names = [name for name, _ in headers]
    if any(names.count(name) > 1 for name in SINGLE_FIELDS):
        raise HeadError(400, "repeated field that must be single")
    if cookies:  # RFC 9113 §8.2.3
        headers.append((b"cookie", b"; ".join(cookies)))
    return pseudo, headers


def _host(pseudo: dict[bytes, bytes], headers: list[Header]) -> str:
    """Return the authority; insert it as the Host field if that is missing."""
    host = dict(headers).get(b"host")
    authority = pseudo.get(b":authority", host)
    if authority is None:
        raise HeadError(400, "neither :authority nor Host")
    if host is None:
        headers.insert(0, (b"host", authority))
    elif host.lower() != authority.lower():
        raise HeadError(400, "Host differs from :authority")
    if not HOST.fullmatch(authority) or len(authority) > MAX_HOST_BYTES:
        raise HeadError(400, "malformed :authority")
    return authority.decode("ascii")


def _body_length(fields: dict[bytes, bytes], *, ended: bool) -> int | None:
    """Return the body's size in bytes; None if only the stream's end delimits it."""
    length = fields.get(b"content-length")
    if length is None:
        return 0 if ended else None
    if not CONTENT_LENGTH.fullmatch(length) or (ended and int(length)):
        raise HeadError(400, "malformed Content-Length")
    return int(length)
