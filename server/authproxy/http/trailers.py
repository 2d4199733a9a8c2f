"""Filter trailers before they are forwarded (RFC 9110 §6.5.1).

A recipient may merge trailers into the headers. So trailers that carry identity,
framing or routing are removed.
"""

from __future__ import annotations

from collections.abc import Iterable

from authproxy_core.identity.headers import HOP_BY_HOP, folded
from authproxy_core.messages import Header, Headers

from .field_syntax import FIELD_VALUE, LOWERCASE_NAME

MAX_TRAILERS = 64
FORBIDDEN_NAMES = HOP_BY_HOP | {
    b"authorization",
    b"age",
    b"cache-control",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"forwarded",
    b"gap-auth",
    b"gap-signature",
    b"host",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"set-cookie",
    b"te",
    b"vary",
    b"via",
    b"www-authenticate",
}
FORBIDDEN_PREFIXES = (
    b"access-control-",
    b"content-",
    b"if-",
    b"proxy-",
    b"remote-",
    b"sec-",
    b"x-",
)
# Responses carry no identity headers, so the other prefixes are harmless there.
FORBIDDEN_RESPONSE_PREFIXES = (b"access-control-", b"content-", b"proxy-", b"sec-")
ALLOWED = frozenset({b"content-md5", b"content-digest"})


def forwardable_trailers(
    trailers: Iterable[Header], prefixes: tuple[bytes, ...] = FORBIDDEN_PREFIXES
) -> Headers:
    """Return the first `MAX_TRAILERS` of *trailers* that may be forwarded.

    Names are lower case. *prefixes* are those of forbidden names.
    """
    forwardable = [
        (name, value)
        for name, value in trailers
        if _is_forwardable(name, value, prefixes)
    ]
    return tuple(forwardable[:MAX_TRAILERS])


def without_protected(trailers: Headers, protected: frozenset[bytes]) -> Headers:
    """Return *trailers* without the folded names that only authproxy may send."""
    return tuple([field for field in trailers if folded(field[0]) not in protected])


def _is_forwardable(name: bytes, value: bytes, prefixes: tuple[bytes, ...]) -> bool:
    if not LOWERCASE_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
        return False
    if name in ALLOWED:
        return True
    canonical = folded(name)
    return canonical not in FORBIDDEN_NAMES and not canonical.startswith(prefixes)
