"""W3C Trace Context: the trace that a request belongs to (Level 1, §3.2).

authproxy starts no traces or spans; it forwards the received fields unchanged. A
malformed or repeated traceparent is dropped together with its tracestate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..messages import Header, header_values

TRACEPARENT = b"traceparent"
# A later version may append fields after the flags. Version ff and zero ids are invalid.
_FORM = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(-[!-~]*)?"
)


def trace_id(value: bytes) -> str:
    """Return the trace id in a traceparent field, "" if the field is malformed."""
    match = _FORM.fullmatch(value)
    if match is None or (match[1] == b"00" and match[3] is not None):
        return ""
    return match[2].decode()


def without_bad_trace(headers: Sequence[Header]) -> Sequence[Header]:
    """Return *headers* without a malformed or repeated trace context."""
    values = header_values(headers, TRACEPARENT)
    if not values or (len(values) == 1 and trace_id(values[0])):
        return headers
    return [field for field in headers if field[0] not in (TRACEPARENT, b"tracestate")]
