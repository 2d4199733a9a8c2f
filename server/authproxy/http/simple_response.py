"""Fast path: parse an upstream's response that was received in one read.

Nearly all short responses are simple: a final status, unfolded fields, Content-Length,
and the whole body in the same read. Those are parsed here at a fraction of the cost of
`ResponseReader`. All other responses, malformed or merely rare, are left to that class,
with which this parser must agree.
"""

from __future__ import annotations

from msgspec import Struct

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.encoding import is_token
from authproxy_core.identity.headers import HOP_BY_HOP

from .field_syntax import CONTENT_LENGTH, OWS
from .response_encoder import MAX_CACHED_NAME_BYTES, field_prefix, has_body
from .upstream_response import MAX_HEAD_BYTES

STATUS_LINE = b"HTTP/1.1 "
# Deleting these characters leaves CR, LF and the illegal ones (RFC 9110 §5.5).
LEGAL = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
# Handling of the fields that are not forwarded unchanged.
DROPPED, LENGTH, CONNECTION, DATE, RARE = range(5)
SPECIAL = {
    b"content-length": LENGTH,
    b"connection": CONNECTION,
    b"date": DATE,
    b"transfer-encoding": RARE,
    b"upgrade": RARE,
}
# Name as received → encoded start of the field, and its handling.
_names: BoundedCache[bytes, tuple[bytes, int | None]] = BoundedCache(
    MAX_CACHED_NAME_BYTES
)


class SimpleResponse(Struct):
    """A whole response; its connection can be reused.

    ``fields`` are the parts of the encoded fields to forward. ``has_date`` means that
    they contain Date. ``length`` is Content-Length, None without that field.
    """

    status: int
    fields: list[bytes]
    has_date: bool
    length: int | None
    body: bytes


def parse_simple_response(data: bytes, *, bodiless: bool) -> SimpleResponse | None:
    """Return the response if *data* is exactly one simple response, else None.

    *bodiless* means that Content-Length is not followed by a body (HEAD).
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or end > MAX_HEAD_BYTES - 4 or data[:9] != STATUS_LINE:
        return None
    head = data[:end]
    first, *lines = head.split(b"\r\n")
    digits = first[9:12]
    if len(head.translate(None, LEGAL)) != 2 * len(lines):
        return None  # a control character, or CR or LF alone
    if not digits.isdigit() or digits < b"200" or first[12:13] != b" ":
        return None
    status = int(digits)
    fields: list[bytes] = []
    has_date = False
    length: int | None = None
    cached = _names.get
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        value = value.strip(OWS)
        start, kind = cached(name) or _classify_field(name)
        if kind is not None:
            if kind == DROPPED:
                continue
            if kind == LENGTH:
                if length is not None or not CONTENT_LENGTH.fullmatch(value):
                    return None
                length = int(value)
                continue
            if kind == CONNECTION:
                if value.lower() != b"keep-alive":
                    return None
                continue
            if kind == RARE:
                return None
            has_date = True
        fields += (start, value, b"\r\n")
    size = len(data) - end - 4
    expected = 0 if bodiless or not has_body(status) else length
    if size != expected:
        return None
    return SimpleResponse(status, fields, has_date, length, data[end + 4 :])


def _classify_field(name: bytes) -> tuple[bytes, int | None]:
    """Return the encoded start of a field and its handling, and cache them."""
    if not is_token(name):
        return b"", RARE  # a folded line or a malformed field
    lower = name.lower()
    kind = SPECIAL.get(lower)
    if kind is None and lower in HOP_BY_HOP:
        kind = DROPPED
    return _names.put(name, (field_prefix(lower), kind), len(name))
