"""Classify and check a header field when it is decoded (RFC 9113 §8.2).

A field that a client indexes is checked once; the dynamic table keeps the result.
"""

from __future__ import annotations

from typing import TypeAlias

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.messages import Header

from ..http.field_syntax import CONNECTION_FIELDS, FIELD_VALUE, LOWERCASE_NAME, OWS

# Kinds of fields. The pseudo-header fields are those below NORMAL.
METHOD, SCHEME, AUTHORITY, PATH, NORMAL, COOKIE, SINGLE, INVALID = range(8)
PSEUDO = {
    b":method": METHOD,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":path": PATH,
}
# Parsers disagree on duplicates of these (first or last wins).
SINGLE_NAMES = frozenset({b"host", b"content-length", b"expect", b"te"})
OVERHEAD = 32  # bytes of an entry in a header table (RFC 7541 §4.1)
MAX_CACHED_NAMES, MAX_CACHED_NAME_BYTES = 1024, 64

# A decoded field, its kind, and its size as RFC 7541 counts it.
Entry: TypeAlias = tuple[Header, int, int]
_kinds: BoundedCache[bytes, int] = BoundedCache(MAX_CACHED_NAMES)


def make_entry(name: bytes, value: bytes, *, visible: bool = False) -> Entry:
    """Return the checked field; *visible*: the value is visible ASCII, spaces, NUL."""
    kind = _kinds.get(name)
    if kind is None:
        kind = _classify(name)
        if len(name) <= MAX_CACHED_NAME_BYTES:
            _kinds.put(name, kind)
    if (b"\0" in value if visible else not FIELD_VALUE.fullmatch(value)) or (
        value and (value[0] in OWS or value[-1] in OWS)
    ):
        kind = INVALID
    return (name, value), kind, len(name) + len(value) + OVERHEAD


def _classify(name: bytes) -> int:
    kind = PSEUDO.get(name)
    if kind is not None:
        return kind
    if not LOWERCASE_NAME.fullmatch(name) or name in CONNECTION_FIELDS:
        return INVALID
    if name == b"cookie":
        return COOKIE
    return SINGLE if name in SINGLE_NAMES else NORMAL
