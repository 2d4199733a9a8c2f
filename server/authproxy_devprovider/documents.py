"""Documents and claims of the provider, as dicts.

The overrides of `ProviderConfig` are merge into each of them as the last step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from authproxy_core.encoding import b64url

from .config import Endpoint, ProviderConfig, User, merge
from .grants import Login
from .signing import ALGORITHMS


def discovery_document(
    config: ProviderConfig, url: Callable[[Endpoint], str]
) -> dict[str, Any]:
    """Return the metadata (OIDC Discovery 1.0 §3); *url* maps endpoints to URLs."""
    document = {
        "issuer": config.issuer,
        "authorization_endpoint": url("authorization"),
        "token_endpoint": url("token"),
        "userinfo_endpoint": url("userinfo"),
        "jwks_uri": url("jwks"),
        "end_session_endpoint": url("end_session"),
        "scopes_supported": list(config.scopes),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ALGORITHMS),
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "none",
        ],
        "code_challenge_methods_supported": ["S256", "plain"],
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_supported": [
            *("iss", "sub", "aud", "azp", "exp", "iat", "auth_time", "nonce"),
            *("sid", "email", "email_verified", "preferred_username", "name"),
            "groups",
        ],
    }
    return merge(document, config.discovery)


def id_token_claims(
    config: ProviderConfig,
    login: Login,
    *,
    now: float,
    access_token: str,
    refreshed: bool,
) -> dict[str, Any]:
    """Return the claims of the ID token for *access_token* (OIDC Core §2, §12.2)."""
    authorization = login.authorization
    half_hash = hashlib.sha256(access_token.encode()).digest()[:16]
    claims = {
        "iss": config.issuer,
        "sub": login.user.subject,
        "aud": authorization.client.id,
        "azp": authorization.client.id,
        "iat": int(now),
        "exp": int(now + config.id_token_lifetime),
        "auth_time": int(login.auth_time),
        "acr": next(iter(authorization.acr_values.split()), None),
        "typ": "ID",
        "sid": login.sid,
        "at_hash": b64url(half_hash).decode(),
        # OIDC Core §12.2: a refreshed ID token should not have a nonce.
        "nonce": None if refreshed else authorization.nonce or None,
        **user_claims(login.user),
    }
    return merge(claims, config.id_token_claims)


def access_token_claims(
    config: ProviderConfig, login: Login, *, now: float, jti: str
) -> dict[str, Any]:
    """Return the claims of an access token, in Keycloak's format."""
    client_id, user = login.authorization.client.id, login.user
    claims = {
        "iss": config.issuer,
        "sub": user.subject,
        "aud": [client_id, "account"],
        "azp": client_id,
        "iat": int(now),
        "exp": int(now + config.access_token_lifetime),
        "auth_time": int(login.auth_time),
        "jti": jti,
        "typ": "Bearer",
        "sid": login.sid,
        "scope": " ".join(login.authorization.scopes),
        "realm_access": {"roles": [*user.roles]},
        "resource_access": {
            name: {"roles": [*roles]} for name, roles in user.client_roles.items()
        },
        **user_claims(user),
    }
    return merge(claims, config.access_token_claims)


def userinfo_claims(config: ProviderConfig, login: Login) -> dict[str, Any]:
    """Return the userinfo response (OIDC Core §5.3.2)."""
    claims = {"sub": login.user.subject, **user_claims(login.user)}
    return merge(claims, config.userinfo_claims)


def user_claims(user: User) -> dict[str, Any]:
    """Return the claims that ID token, access token and userinfo share."""
    claims: dict[str, Any] = {
        "preferred_username": user.name,
        "groups": [*user.groups],
        "name": user.full_name or None,
        "email": user.address or None,
        "email_verified": user.email_verified if user.address else None,
    }
    return merge(claims, user.claims)
