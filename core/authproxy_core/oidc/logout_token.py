"""Logout tokens of OpenID Connect Back-Channel Logout 1.0.

A logout token resembles an ID token, so each is rejected in place of the other: a logout
token has ``events`` and must not have a ``nonce``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..errors import TokenError
from .jwt import (
    MAX_SUBJECT_LENGTH,
    ExpectedClaims,
    check_audience,
    check_issuer,
    check_times,
    numeric_date,
)

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_TOKEN_AGE = 600.0  # seconds; providers send it at once, two minutes are recommended
MAX_ID_LENGTH = 256  # characters of jti and sid


class LogoutToken(Struct, frozen=True):
    """The claims of a logout token; ``subject``, ``sid`` or both are not empty."""

    subject: str
    sid: str
    jti: str
    expires_at: float  # seconds since the epoch


def check_logout_token(
    claims: Mapping[str, Any], expected: ExpectedClaims, now: float
) -> LogoutToken:
    """Validate the claims of a logout token (Back-Channel Logout §2.6).

    Raises `TokenError`.
    """
    check_issuer(claims, expected)
    check_audience(claims, expected)
    check_times(claims, expected.leeway, now)
    if numeric_date(claims, "iat") < now - MAX_TOKEN_AGE - expected.leeway:
        raise TokenError(
            f"the logout token was issued more than {MAX_TOKEN_AGE:.0f} s ago",
            reason="expired",
        )
    _check_event(claims)
    if "nonce" in claims:
        raise TokenError("the logout token has the claim nonce", reason="nonce")
    found = LogoutToken(
        _string(claims, "sub", MAX_SUBJECT_LENGTH),
        _string(claims, "sid", MAX_ID_LENGTH),
        _string(claims, "jti", MAX_ID_LENGTH),
        numeric_date(claims, "exp"),
    )
    if not found.jti:
        raise TokenError("the logout token has no claim jti", reason="jti")
    if not found.subject and not found.sid:
        raise TokenError(
            "the logout token has neither the claim sub nor sid", reason="subject"
        )
    return found


def _check_event(claims: Mapping[str, Any]) -> None:
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise TokenError(
            f"expected an object {LOGOUT_EVENT!r} in the claim events", reason="events"
        )


def _string(claims: Mapping[str, Any], name: str, limit: int) -> str:
    """Return an optional claim, "" if missing; raises `TokenError` if it is invalid."""
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise TokenError(
            f"expected a printable string of at most {limit} characters in the claim "
            f"{name}",
            reason="malformed",
        )
    return value
