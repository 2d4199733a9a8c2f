"""The usual answer of an upstream: whole, plain, and read in one go.

`AnswerReader` reads whatever HTTP allows. Nearly all short answers are much simpler: a
final status, fields without any oddity, Content-Length, the body, and that is all that
came. They are read here at a fraction of the cost. Whatever is not just so, malformed
or merely rare, is None, and read (or refused) by the other way, with which this one has
to agree.
"""

from __future__ import annotations

from msgspec import Struct

from authproxy_core.encoding import is_token
from authproxy_core.identity.headers import HOP_BY_HOP

from .response_encoder import has_body, prefix
from .upstream_response import CONTENT_LENGTH, HEAD_LIMIT

STATUS_LINE = b"HTTP/1.1 "
# Deleting these leaves the line ends, and whatever may not be there (RFC 9110 §5.5).
LEGAL = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
BLANKS = b" \t"
NAMES_KEPT = 1024
NAME_BYTES_KEPT = 64
# What is to be done with a field that is not simply passed on.
DROPPED, LENGTH, CONNECTION, DATE, RARE = range(5)
SPECIAL = {
    b"content-length": LENGTH,
    b"connection": CONNECTION,
    b"date": DATE,
    b"transfer-encoding": RARE,
    b"upgrade": RARE,
}
_names: dict[bytes, tuple[bytes, int | None]] = {}


class SimpleResponse(Struct):
    """An answer; ``fields`` are the bytes of those that pass, each with its line end.

    ``dated`` says that Date is among them, ``length`` is Content-Length, None without.
    The connection may be used again.
    """

    status: int
    fields: list[bytes]
    dated: bool
    length: int | None
    body: bytes


def parse_simple_response(data: bytes, *, bodiless: bool) -> SimpleResponse | None:
    """The answer that *data* is, if it is a plain one and nothing else.

    *bodiless* says that it has no body whatever its fields say (to HEAD).
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or end > HEAD_LIMIT - 4 or data[:9] != STATUS_LINE:
        return None
    head = data[:end]
    first, *lines = head.split(b"\r\n")
    digits = first[9:12]
    if len(head.translate(None, LEGAL)) != 2 * len(lines):
        return None  # a control character, or a line end that is none
    if not digits.isdigit() or digits < b"200" or first[12:13] != b" ":
        return None
    status = int(digits)
    passed: list[bytes] = []
    dated = False
    length: int | None = None
    known = _names.get
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        value = value.strip(BLANKS)
        start, kind = known(name) or _classify_field(name)
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
            dated = True
        passed += (start, value, b"\r\n")
    size = len(data) - end - 4
    expected = 0 if bodiless or not has_body(status) else length
    if size != expected:
        return None
    return SimpleResponse(status, passed, dated, length, data[end + 4 :])


def _classify_field(name: bytes) -> tuple[bytes, int | None]:
    """How *name* is written, and what to do with its fields; remembered."""
    lower = name.lower()
    if not is_token(name):
        return b"", RARE  # a folded line, or no field at all
    kind = SPECIAL.get(lower)
    if kind is None and lower in HOP_BY_HOP:
        kind = DROPPED
    found = (prefix(lower), kind)
    if len(name) <= NAME_BYTES_KEPT:
        if len(_names) >= NAMES_KEPT:
            _names.clear()
        _names[name] = found
    return found
