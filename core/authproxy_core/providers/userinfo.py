"""Claims of userinfo responses: JSON, or a signed JWT (OIDC Core §5.3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..effects import Flow
from ..errors import ProviderError, TokenError
from ..messages import Response
from ..oidc.algorithms import ALGORITHMS
from ..oidc.jwt import (
    ExpectedClaims,
    check_audience,
    check_issuer,
    numeric_date,
)
from ..oidc.protocol import check_userinfo_subject, parse_userinfo, signed_userinfo
from ..oidc.token_types import USERINFO
from .jwks import JwksCache


def read_userinfo(
    response: Response,
    keys: JwksCache,
    jwks_uri: str,
    signing_algs: tuple[str, ...],
    expected: ExpectedClaims,
    *,
    subject: str,
    access_token: str,
    now: float,
) -> Flow[dict[str, Any]]:
    """Return the claims of userinfo after verifying a signature.

    ``sub`` must be *subject*. *access_token* was sent. *signing_algs* are the configured algorithms, () for all.
    Raises `ProviderError`, or `KeysUnavailableError`.
    """
    token = signed_userinfo(response)
    if not token:
        claims = parse_userinfo(response, access_token)
    else:
        algorithms = signing_algs or tuple(ALGORITHMS)
        try:
            claims = yield from keys.verify(
                token, jwks_uri, algorithms, USERINFO, from_provider=True
            )
            _check_claims(claims, replace(expected, audience_claims=("aud",)), now)
        except TokenError as error:
            raise ProviderError(
                f"userinfo: {error}",
                reason="userinfo_invalid",
                hint=error.hint
                or "have the provider return userinfo as JSON or as a signed JWT that "
                "is not encrypted, or set skip_claims_from_profile_url",
            ) from None
    check_userinfo_subject(claims, subject)
    return claims


def _check_claims(
    claims: Mapping[str, Any], expected: ExpectedClaims, now: float
) -> None:
    """Check issuer, audience and expiry of signed userinfo, which may be missing."""
    if "iss" in claims:
        check_issuer(claims, expected)
    if "aud" in claims:
        check_audience(claims, expected)
    if "exp" in claims and numeric_date(claims, "exp") <= now - expected.leeway:
        raise TokenError("the token has expired", reason="expired")
