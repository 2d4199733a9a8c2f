"""Syntax of header fields, shared by the codecs (RFC 9110 §5)."""

from __future__ import annotations

import re
import string

from authproxy_core.encoding import TOKEN_BYTES

OWS = b" \t"  # optional whitespace around a field value (RFC 9110 §5.6.3)
FIELD_NAME = re.compile(b"[%b]+" % re.escape(TOKEN_BYTES))
# HTTP/2 allows no upper case (RFC 9113 §8.2.1).
LOWERCASE_NAME = re.compile(
    b"[%b]+" % re.escape(TOKEN_BYTES.translate(None, string.ascii_uppercase.encode()))
)
FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# Longer numbers are rejected: parsers disagree on overflow.
CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")
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
