"""Requested authentication: acr_values, max_age, prompt (OIDC Core §3.1.2.1).

A provider may ignore these parameters, so the ID token must show that it did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from ..errors import TokenError


class RequestedAuthentication(Struct, frozen=True, array_like=True):
    """Requirements of an authorization request.

    ``acr_values`` are alternatives, () for any. ``max_age`` is in seconds, negative for
    none. ``since`` is the time of the request in epoch seconds with prompt=login, else 0.
    """

    acr_values: tuple[str, ...] = ()
    max_age: float = -1.0
    since: float = 0.0


def requested_authentication(
    parameters: Iterable[tuple[str, str]], now: float
) -> RequestedAuthentication:
    """Return the requirements in the *parameters* of an authorization request."""
    acr_values: list[str] = []
    max_age, since = -1.0, 0.0
    for name, value in parameters:
        if name == "acr_values":
            acr_values += value.split()
        elif name == "max_age" and value.isascii() and value.isdigit():
            max_age = float(value[:12])
        elif name == "prompt" and "login" in value.split():
            since = now
    return RequestedAuthentication(tuple(acr_values), max_age, since)


def check_authentication(
    claims: Mapping[str, Any],
    requested: RequestedAuthentication,
    leeway: float,
    now: float,
) -> None:
    """Raise `TokenError` unless ``acr`` and ``auth_time`` meet the requirements.

    ``auth_time`` is required with a ``max_age`` (§2), and optional with prompt=login.
    """
    if requested.acr_values and claims.get("acr") not in requested.acr_values:
        raise TokenError(
            f"expected one of the requested acr_values {requested.acr_values!r} in the "
            "claim acr",
            reason="acr",
            hint="configure the provider to support these acr_values and to put acr "
            "into ID tokens, or do not request them",
        )
    auth_time = claims.get("auth_time")
    if auth_time is None and requested.max_age < 0:
        return
    if isinstance(auth_time, bool) or not isinstance(auth_time, int | float):
        raise TokenError("expected a number in the claim auth_time", reason="auth_time")
    earliest = requested.since
    if requested.max_age >= 0:
        earliest = max(earliest, now - requested.max_age)
    if auth_time < earliest - leeway:
        raise TokenError(
            "the user authenticated before the time that max_age or prompt=login allows",
            reason="auth_time",
        )
