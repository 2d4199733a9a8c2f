"""W3C Trace Context: which trace a request belongs to (Level 1, §3.2).

We begin no traces and no spans; what a client or gateway sent is passed on as it is. A
malformed one is dropped, together with the state that belongs to it: whoever comes next
would have to guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..messages import Header, header_values

TRACEPARENT = b"traceparent"
# A later version may have more behind the flags; ff is forbidden, and so are zeros.
_FORM = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(-[!-~]*)?"
)


def trace_id(value: bytes) -> str:
    """The trace's id in a traceparent field, "" if the field is malformed."""
    match = _FORM.fullmatch(value)
    if match is None or (match[1] == b"00" and match[3] is not None):
        return ""
    return match[2].decode()


def without_bad_trace(headers: Sequence[Header]) -> Sequence[Header]:
    """*headers* less a trace context that can't be read, or that is there twice."""
    values = header_values(headers, TRACEPARENT)
    if not values or (len(values) == 1 and trace_id(values[0])):
        return headers
    return [one for one in headers if one[0] not in (TRACEPARENT, b"tracestate")]
