"""Which fields may stand behind a body (RFC 9110 §6.5.1).

Whoever merges trailers into the head must not learn from them who somebody is, how long
a message is, or where it goes; such fields are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from authproxy_core.identity.headers import HOP_BY_HOP, folded
from authproxy_core.messages import Header, Headers

MAX_COUNT = 64
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
FORBIDDEN = HOP_BY_HOP | {
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
FORBIDDEN_KINDS = (
    b"access-control-",
    b"content-",
    b"if-",
    b"proxy-",
    b"remote-",
    b"sec-",
    b"x-",
)
# In answers nothing else says who somebody is.
FORBIDDEN_IN_ANSWERS = (b"access-control-", b"content-", b"proxy-", b"sec-")
ALLOWED = frozenset({b"content-md5", b"content-digest"})


def forwardable_trailers(
    trailers: Iterable[Header], kinds: tuple[bytes, ...] = FORBIDDEN_KINDS
) -> Headers:
    """Those of *trailers* (lower-case names) that may go on, at most `MAX_COUNT`."""
    kept = [(name, value) for name, value in trailers if _may_pass(name, value, kinds)]
    return tuple(kept[:MAX_COUNT])


def without_protected(trailers: Headers, protected: frozenset[bytes]) -> Headers:
    """*trailers* less the names (folded) that only we say to an upstream."""
    return tuple([one for one in trailers if folded(one[0]) not in protected])


def _may_pass(name: bytes, value: bytes, kinds: tuple[bytes, ...]) -> bool:
    if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
        return False
    if name in ALLOWED:
        return True
    known = folded(name)
    return known not in FORBIDDEN and not known.startswith(kinds)
