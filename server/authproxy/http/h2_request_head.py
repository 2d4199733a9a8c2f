"""A stream's header list to a `Head`, or a refusal (RFC 9113 §8.3).

What HTTP/1.1 forbids is forbidden here too, for requests may go on to an upstream that
speaks it: a name that is no token, a line end in a value, two hosts. The `h2` library
judges pseudo-header fields and fields about the connection before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from authproxy_core.messages import Header

from ..server_settings import Limits
from .request_head import (
    CONTENT_LENGTH,
    FORBIDDEN_METHODS,
    HOST,
    METHOD,
    VISIBLE,
    HeadError,
    RequestHead,
)

HTTP_2 = 2  # what stands in ``Head.minor``
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# RFC 9113 §8.2.2: what is about one HTTP/1.1 connection has no place here.
CONNECTION_FIELDS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)
ONCE = frozenset({b"host", b"content-length", b"expect", b"te"})


def head_of(received: Iterable[Header], limits: Limits, *, ended: bool) -> RequestHead:
    """The head of a request; *ended* says that no body follows.

    Raises `HeadError`.
    """
    pseudo, headers = _divided(received, limits)
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not METHOD.fullmatch(method):
        raise HeadError(400, "malformed method")
    if method in FORBIDDEN_METHODS:
        raise HeadError(405, f"method {method.decode()}")
    if len(target) > limits.target_bytes:
        raise HeadError(414, f"request target of {len(target)} bytes")
    if target[:1] != b"/" or not VISIBLE.fullmatch(target):
        raise HeadError(400, "malformed request target")
    if len(headers) > limits.header_count:
        raise HeadError(431, f"{len(headers)} header fields")
    host = _host(pseudo, headers)
    fields = dict(headers)
    head = RequestHead(method, target, headers, fields, host, HTTP_2, True)
    head.length = _length(fields, ended=ended)
    if b"expect" in fields:
        if fields[b"expect"].lower() != b"100-continue":
            raise HeadError(417, "unknown expectation")
        head.expects = not ended
    return head


def _divided(
    received: Iterable[Header], limits: Limits
) -> tuple[dict[bytes, bytes], list[Header]]:
    pseudo: dict[bytes, bytes] = {}
    headers: list[Header] = []
    crumbs: list[bytes] = []
    size = 0
    for raw_name, raw_value in received:
        # The library hands out subclasses of tuple and, when asked, of bytes.
        name, value = bytes(raw_name), bytes(raw_value)
        size += len(name) + len(value) + 32
        if not VALUE.fullmatch(value) or value != value.strip(b" \t"):
            raise HeadError(400, "malformed field value")
        if name[:1] == b":":
            pseudo[name] = value
        elif name == b"cookie":
            crumbs.append(value)
        elif not NAME.fullmatch(name) or name in CONNECTION_FIELDS:
            raise HeadError(400, "malformed field name")
        else:
            headers.append((name, value))
    if size > limits.head_bytes:
        raise HeadError(431, f"a head of more than {limits.head_bytes} bytes")
    names = [name for name, _ in headers]
    if any(names.count(name) > 1 for name in ONCE):
        raise HeadError(400, "a field more than once")
    if crumbs:  # RFC 9113 §8.2.3
        headers.append((b"cookie", b"; ".join(crumbs)))
    return pseudo, headers


def _host(pseudo: dict[bytes, bytes], headers: list[Header]) -> str:
    """The authority, which becomes the Host field if that is missing."""
    given = dict(headers).get(b"host")
    authority = pseudo.get(b":authority", given)
    if authority is None:
        raise HeadError(400, "neither :authority nor Host")
    if given is None:
        headers.insert(0, (b"host", authority))
    elif given.lower() != authority.lower():
        raise HeadError(400, "Host is not the :authority")
    if not HOST.fullmatch(authority) or len(authority) > 300:
        raise HeadError(400, "malformed :authority")
    return authority.decode("ascii")


def _length(fields: dict[bytes, bytes], *, ended: bool) -> int | None:
    """The body's size; None when it ends where the stream does."""
    length = fields.get(b"content-length")
    if length is None:
        return 0 if ended else None
    if not CONTENT_LENGTH.fullmatch(length) or (ended and int(length)):
        raise HeadError(400, "malformed Content-Length")
    return int(length)
