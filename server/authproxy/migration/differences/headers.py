"""Headers that name the user."""

from __future__ import annotations

from ..conditions import (
    INJECTS_CREDENTIALS,
    INJECTS_GROUPS,
    INJECTS_HEADERS,
    INJECTS_TIMES,
)
from .row import BUG, SECURITY, Difference

HEADERS: tuple[Difference, ...] = (
    Difference(
        "identity-headers-always-sent",
        "identity headers are always sent upstream and to gateways, empty if the "
        "user has no such claim",
        "a gateway that copies headers would otherwise keep the client's value",
        SECURITY,
        when=INJECTS_HEADERS,
    ),
    Difference(
        "commas-in-groups",
        "commas in group names are escaped as `%2C`; duplicate request headers "
        "are not joined with commas",
        "a group `a,b` would count as two groups (RFC 9110 §5.3)",
        SECURITY,
        when=INJECTS_GROUPS,
    ),
    Difference(
        "empty-credentials",
        "`Authorization` and `Cookie` of header rules are left out of requests if "
        "they have no value",
        "upstreams take empty credentials for invalid ones",
        BUG,
        when=INJECTS_CREDENTIALS,
    ),
    Difference(
        "times-in-headers",
        "`created_at` and `expires_on` in headers are UTC in whole seconds, empty "
        "if unknown",
        "oauth2-proxy closes the connection if they are unknown",
        BUG,
        when=INJECTS_TIMES,
    ),
)
