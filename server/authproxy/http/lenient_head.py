"""Rewrite an upstream's response head as RFC 9112 defines it, as far as that is safe.

oauth2-proxy (Go's net/http) accepts these heads, too. The strict parser judges the
result, so no leniency reaches the client. A framing field must be well-formed.
"""

from __future__ import annotations

import re

from authproxy_core.identity.headers import HOP_BY_HOP

from .field_syntax import OWS

FRAMING_FIELDS = HOP_BY_HOP | {b"content-length"}
# Any minor version is that of HTTP/1.1 (RFC 9110 §2.5); spaces may be doubled.
STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) +([1-9][0-9]{2})(?: [^\0\r]*)?")


def normalize_head(head: bytes) -> bytes | None:
    """Return *head* with CRLF, one space, and unfolded fields; None if it can't be.

    *head* ends with an empty line. Lines may end with LF alone (RFC 9112 §2.2), fields
    may be folded (§5.2), a name may be followed by whitespace (§5.1), and equal lengths
    may be repeated (RFC 9110 §8.6).
    """
    first, *lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    status = STATUS_LINE.fullmatch(first)
    if status is None:
        return None
    fields: list[tuple[bytes, list[bytes]]] = []
    length: bytes | None = None
    for line in lines[:-2]:  # without the empty line
        if line[:1] in (b" ", b"\t"):
            if not fields or fields[-1][0] in FRAMING_FIELDS:
                return None
            fields[-1][1].append(line.strip(OWS))
            continue
        raw, colon, value = line.partition(b":")
        name, value = raw.rstrip(OWS).lower(), value.strip(OWS)
        if not colon or (len(name) != len(raw) and name in FRAMING_FIELDS):
            return None
        if name == b"content-length":
            if value == length:
                continue
            length = value
        fields.append((name, [value]))
    version = b"0" if status[1] == b"0" else b"1"
    start = b"HTTP/1.%b %b \r\n" % (version, status[2])
    return b"".join(
        (
            start,
            *(b"%b: %b\r\n" % (name, b" ".join(parts)) for name, parts in fields),
            b"\r\n",
        )
    )
