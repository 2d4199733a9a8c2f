"""Double of an OpenID Connect provider with discovery."""

from __future__ import annotations

from typing import Any

from support.endpoints import (
    ISSUER,
    Endpoints,
    discovery,
    jwks,
)

ALICE = {
    "email": "alice@example.com",
    "email_verified": True,
    "preferred_username": "alice",
    "groups": ["staff"],
}


def openid(
    kind: str,
    responses: dict[str, Any] | None = None,
    *,
    issuer: str = ISSUER,
    claims: dict[str, Any] | None = None,
    document: dict[str, Any] | None = None,
    **more: Any,
) -> Endpoints:
    """Return endpoints of a provider with discovery at *issuer*."""
    found = {**discovery(issuer), **(document or {})}
    idp = Endpoints(
        kind,
        {
            f"GET {issuer}/.well-known/openid-configuration": found,
            f"GET {found['jwks_uri']}": jwks(),
            **(responses or {}),
        },
        claims={"iss": issuer, **(ALICE if claims is None else claims)},
        **{"issuer": issuer, **more},
    )
    idp.responses.setdefault(f"POST {found['token_endpoint']}", idp.tokens())
    return idp
