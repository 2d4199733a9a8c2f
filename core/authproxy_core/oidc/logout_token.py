"""Logout tokens: what a provider sends when a session has ended there.

OpenID Connect Back-Channel Logout 1.0. A logout token looks much like an ID token, so
each is refused in the other's place: this one has ``events`` and may have no ``nonce``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..errors import TokenError
from .jwt import (
    MAX_SUBJECT_LENGTH,
    NON_ID_TOKEN_TYPES,
    ExpectedClaims,
    check_audience,
    check_issuer,
    check_times,
)

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
REJECTED_TYPES = NON_ID_TOKEN_TYPES - {"logout+jwt"}
MAX_TOKEN_AGE = 600.0  # seconds; they are used at once, two minutes are recommended
MAX_ID_LENGTH = 256  # characters of jti and sid


class LogoutToken(Struct, frozen=True):
    """Whom a logout token means; at least one of ``subject`` and ``sid`` is there."""

    subject: str
    sid: str
    jti: str
    expires_at: float


def check_logout_token(
    claims: Mapping[str, Any], expected: ExpectedClaims, now: float
) -> LogoutToken:
    """Judge the claims of a logout token (Back-Channel Logout §2.6).

    Raises `TokenError` saying what was expected.
    """
    check_issuer(claims, expected)
    check_audience(claims, expected)
    check_times(claims, expected.leeway, now)
    if claims["iat"] < now - MAX_TOKEN_AGE - expected.leeway:
        raise TokenError("the logout token was issued long ago", reason="expired")
    _check_event(claims)
    if "nonce" in claims:
        raise TokenError("a logout token must not have a nonce", reason="nonce")
    found = LogoutToken(
        _text(claims, "sub", MAX_SUBJECT_LENGTH),
        _text(claims, "sid", MAX_ID_LENGTH),
        _text(claims, "jti", MAX_ID_LENGTH),
        float(claims["exp"]),
    )
    if not found.jti:
        raise TokenError("expected a claim jti in a logout token", reason="jti")
    if not found.subject and not found.sid:
        raise TokenError("expected one of the claims sub and sid", reason="subject")
    return found


def _check_event(claims: Mapping[str, Any]) -> None:
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise TokenError(
            f"expected an object {LOGOUT_EVENT!r} in the claim events", reason="events"
        )


def _text(claims: Mapping[str, Any], name: str, limit: int) -> str:
    """A claim that may lack, but is a short printable text when it is there."""
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise TokenError(
            f"expected a short printable text in the claim {name}", reason="malformed"
        )
    return value
