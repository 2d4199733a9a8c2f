"""Syntax of header fields, shared by the codecs (RFC 9110 §5)."""

from __future__ import annotations

import re

OWS = b" \t"  # optional whitespace around a field value (RFC 9110 §5.6.3)
# A token without upper case, as HTTP/2 requires (RFC 9113 §8.2.1).
LOWERCASE_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# Longer numbers are rejected: parsers disagree on overflow.
CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")
