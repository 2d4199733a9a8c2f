"""Build a `RequestHead` from the fields of an HTTP/2 request (RFC 9113 §8.3).

The rules of HTTP/1.1 apply here, too, because a request may be forwarded in HTTP/1.1:
field names are tokens, values contain no CR or LF, there is one host.
"""

from __future__ import annotations

from collections.abc import Iterable

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.messages import Header

from ..http.field_syntax import CONTENT_LENGTH
from ..http.request_head import (
    FORBIDDEN_METHODS,
    HOST,
    MAX_CACHED_HOSTS,
    MAX_COOKIES,
    MAX_HOST_BYTES,
    METHOD,
    VISIBLE,
    HeadError,
    RequestHead,
    normalize_target,
)
from ..server_settings import Limits
from .field_kinds import COOKIE, NORMAL, SINGLE, Entry

HTTP_2 = 2  # value of `RequestHead.minor`
SCHEMES = (b"https", b"http")
USUAL_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"})
_hosts: BoundedCache[bytes, str] = BoundedCache(MAX_CACHED_HOSTS)  # valid authorities


def build_request_head(
    entries: Iterable[Entry], limits: Limits, *, ended: bool
) -> RequestHead:
    """Return the head of a request; *ended* means that no body follows.

    Cookies are joined to one field, which is the last. Raises `HeadError`, with status
    400 for what RFC 9113 §8.1.1 calls malformed.
    """
    pseudo: list[bytes | None] = [None, None, None, None]
    headers: list[Header] = []
    cookies: list[bytes] = []
    single: list[Header] = []
    total = 0
    for field, kind, size in entries:
        total += size
        if kind == NORMAL:
            headers.append(field)
        elif kind < NORMAL:
            if headers or cookies or pseudo[kind] is not None:
                raise HeadError(400, "repeated or late pseudo-header field")
            pseudo[kind] = field[1]
        elif kind == COOKIE:
            cookies.append(field[1])
        elif kind == SINGLE:
            headers.append(field)
            single.append(field)
        else:
            raise HeadError(400, "malformed or forbidden field")
    if total > limits.head_bytes:
        raise HeadError(431, f"head of more than {limits.head_bytes} bytes")
    if cookies:  # RFC 9113 §8.2.3
        cookie = cookies[0] if len(cookies) == 1 else b"; ".join(filter(None, cookies))
        if cookie.count(b";") >= MAX_COOKIES:
            raise HeadError(431, f"{cookie.count(b';') + 1} cookies")
        headers.append((b"cookie", cookie))
    method, scheme, authority, target = pseudo
    if method is None or scheme is None or target is None:
        raise HeadError(400, "missing pseudo-header field")
    if method not in USUAL_METHODS:
        _check_method(method)
    if scheme not in SCHEMES:
        raise HeadError(400, "unknown scheme")
    if target[:1] != b"/" or not VISIBLE.fullmatch(target):
        target = _normalize_target(method, target)
    if len(target) > limits.target_bytes:
        raise HeadError(414, f"request target of {len(target)} bytes")
    if len(headers) > limits.header_count:
        raise HeadError(431, f"{len(headers)} header fields")
    host = _host(authority, headers, single)
    head = RequestHead(
        method, target, headers, dict(headers), host, HTTP_2, True, 0 if ended else None
    )
    if single:
        _check_single(head, single, ended=ended)
    return head


def _check_method(method: bytes) -> None:
    if method in FORBIDDEN_METHODS:
        raise HeadError(405, f"method {method.decode()}")
    if not METHOD.fullmatch(method):
        raise HeadError(400, "malformed method")


def _normalize_target(method: bytes, target: bytes) -> bytes:
    target, authority = normalize_target(method, target)
    if authority is not None:
        raise HeadError(400, "malformed request target")
    return target


def _host(authority: bytes | None, headers: list[Header], single: list[Header]) -> str:
    """Return the authority; insert it as the Host field if that is missing."""
    host = None
    if single:
        host = next((value for name, value in single if name == b"host"), None)
    if authority is None:
        authority = host
    if authority is None:
        raise HeadError(400, "neither :authority nor Host")
    if host is None:
        headers.insert(0, (b"host", authority))
    elif host.lower() != authority.lower():
        raise HeadError(400, "Host differs from :authority")
    return _hosts.get(authority) or _check_host(authority)


def _check_host(authority: bytes) -> str:
    if not HOST.fullmatch(authority) or len(authority) > MAX_HOST_BYTES:
        raise HeadError(400, "malformed :authority")
    return _hosts.put(authority, authority.decode("ascii"))


def _check_single(head: RequestHead, single: list[Header], *, ended: bool) -> None:
    """Check the fields that must not be repeated, and set what they tell."""
    fields = dict(single)
    if len(fields) != len(single):
        raise HeadError(400, "repeated field that must be single")
    if fields.get(b"te", b"trailers") != b"trailers":
        raise HeadError(400, "TE other than trailers")
    length = fields.get(b"content-length")
    if length is not None:
        if not CONTENT_LENGTH.fullmatch(length) or (ended and int(length)):
            raise HeadError(400, "malformed Content-Length")
        head.length = int(length)
    expect = fields.get(b"expect")
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise HeadError(417, "unknown expectation")
        head.expects_continue = not ended
