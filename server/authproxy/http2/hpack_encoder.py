"""Encode header fields without state: literals that are never indexed (RFC 7541 §6.2).

So an encoded response head is valid on every connection and can be cached. The Huffman
code is optional for senders and would save a quarter of the bytes for most of the time.
Values that may be secret are marked, so that no intermediary indexes them (§7.1.3).
"""

from __future__ import annotations

from collections.abc import Iterable

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.messages import Header, Respond

from ..http.field_syntax import CONNECTION_FIELDS, OWS
from ..http.response_encoder import has_body
from .static_table import STATIC_TABLE

# Sent in the first header block: the encoder needs no dynamic table (§6.3).
EMPTY_TABLE = b"\x20"
NEVER_INDEXED, NOT_INDEXED = 0x10, 0x00
DATE_START = b"\x0f\x12\x1d"  # static index 33, 29 bytes
DATE_VALUE = slice(len("Date: "), -len("\r\n"))
SECRET_NAMES = frozenset({b"authorization", b"gap-signature", b"set-cookie"})
MAX_CACHED_NAME_BYTES = 64 << 10
STATIC_NAMES: dict[bytes, int] = {}
for _index, (_name, _) in enumerate(STATIC_TABLE, 1):
    STATIC_NAMES.setdefault(_name, _index)
INDEXED_STATUSES = {
    int(value): bytes([0x80 | index])
    for index, (name, value) in enumerate(STATIC_TABLE, 1)
    if name == b":status"
}
_prefixes: BoundedCache[bytes, bytes] = BoundedCache(MAX_CACHED_NAME_BYTES)


def encode_integer(value: int, bits: int, flags: int = 0) -> bytes:
    """Return *value* with a prefix of *bits* bits below *flags* (§5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([flags | value])
    encoded = bytearray([flags | limit])
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_string(value: bytes) -> bytes:
    """Return *value* with its length."""
    size = len(value)
    return (bytes((size,)) if size < 0x7F else encode_integer(size, 7)) + value


def field_start(name: bytes) -> bytes:
    """Return the encoded start of a field, which `encode_string` completes."""
    start = _prefixes.get(name)
    if start is None:
        start = _prefixes.put(name, _encode_start(name), len(name))
    return start


def _encode_start(name: bytes) -> bytes:
    flags = NEVER_INDEXED if name in SECRET_NAMES else NOT_INDEXED
    index = STATIC_NAMES.get(name, 0)
    start = encode_integer(index, 4, flags)
    return start if index else start + encode_string(name)


def encode_status(status: int) -> bytes:
    """Return the ``:status`` field, the first of a response."""
    return INDEXED_STATUSES.get(status) or encode_field(b":status", b"%d" % status)


def encode_field(name: bytes, value: bytes) -> bytes:
    """Return one field that needs no check."""
    return field_start(name) + encode_string(value)


def encode_fields(headers: Iterable[Header]) -> bytes:
    """Return the fields of a response without connection-specific ones.

    Raises ValueError for CR, LF or NUL in a value: the last defense against response
    splitting at a gateway that speaks HTTP/1.1.
    """
    parts: list[bytes] = []
    for name, value in headers:
        if name in CONNECTION_FIELDS:
            continue
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise ValueError(f"control character in header field {name.decode()}")
        parts += (field_start(name), encode_string(value.strip(OWS)))
    return b"".join(parts)


def encode_head(status: int, fields: bytes, length: int | None, date: bytes) -> bytes:
    """Return a header block of encoded *fields*; *length* is Content-Length.

    *date* is the Date field of HTTP/1.1 with CRLF, b"" if *fields* contain Date.
    """
    head = encode_status(status) + fields
    if length is not None:
        head += encode_field(b"content-length", b"%d" % length)
    return head + encode_date(date) if date else head


def encode_date(date: bytes) -> bytes:
    """Return the Date field; *date* is that of HTTP/1.1 with CRLF."""
    return DATE_START + date[DATE_VALUE]


def encode_respond(respond: Respond) -> bytes:
    """Return the header block of a complete response; Date has to follow.

    Raises ValueError.
    """
    length = len(respond.body) if has_body(respond.status) else None
    return encode_head(respond.status, encode_fields(respond.headers), length, b"")


def translate_fields(parts: list[bytes]) -> bytes:
    """Return fields that were encoded for HTTP/1.1: start, value and CRLF of each.

    The starts are those of `response_encoder.field_prefix`; nothing is checked.
    """
    translated: list[bytes] = []
    for start, value in zip(parts[::3], parts[1::3], strict=True):
        name = _prefixes.get(start)
        if name is None:  # a start ends with ": ", which no name does
            encoded = _encode_start(start[:-2].lower())
            name = _prefixes.put(start, encoded, len(start))
        translated += (name, encode_string(value))
    return b"".join(translated)
