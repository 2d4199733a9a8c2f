"""Endpoints, algorithms and keys from settings and metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from ..errors import ProviderError, SettingsError, TokenError
from ..oidc.algorithms import ALGORITHMS
from ..oidc.jwt import KeySet, parse_public_keys, token_algorithm
from ..oidc.protocol import Metadata, with_query
from ..settings.provider_types import PROVIDER_TYPES
from ..settings.root import ProviderSettings

# Default values of the settings that do not affect discovery and the key set.
NON_DISCOVERY_FIELDS: Mapping[str, Any] = {
    field.name: field.default
    for field in msgspec.structs.fields(ProviderSettings)
    if field.name
    not in {
        "id",
        "type",
        "issuer",
        "login_url",
        "redeem_url",
        "profile_url",
        "jwks_url",
        "validate_url",
        "public_keys",
        "skip_discovery",
        "skip_issuer_verification",
        "signing_algs",
        "azure",
        "login_gov",
    }
}


def discovery_key(settings: ProviderSettings) -> ProviderSettings:
    """Return *settings* reduced to those that affect metadata and keys."""
    return msgspec.structs.replace(settings, **NON_DISCOVERY_FIELDS)


def configured_metadata(settings: ProviderSettings) -> Metadata:
    """Return metadata without discovery: configured endpoints, else the defaults."""
    kind = PROVIDER_TYPES[settings.type]
    return Metadata(
        issuer=settings.issuer or kind.issuer,
        authorization_endpoint=settings.login_url or kind.login_url,
        token_endpoint=settings.redeem_url or kind.redeem_url,
        jwks_uri=settings.jwks_url or kind.jwks_url,
        userinfo_endpoint=settings.profile_url or kind.profile_url,
    )


def prefers_body(metadata: Metadata) -> bool:
    """Return whether client credentials must be in the body (RFC 6749 §2.3.1)."""
    offered = metadata.token_endpoint_auth_methods_supported
    return "client_secret_post" in offered and "client_secret_basic" not in offered


def allowed_algorithms(
    settings: ProviderSettings, metadata: Metadata
) -> tuple[str, ...]:
    """Return the supported algorithms that are both configured and discovered.

    Symmetric ones and "none" are never allowed (RFC 8725 §3.1). Raises
    `ProviderError` if none is left.
    """
    offered = metadata.id_token_signing_alg_values_supported
    both = [
        alg
        for alg in settings.signing_algs or offered or ("RS256",)
        if alg in ALGORITHMS and (not offered or alg in offered)
    ]
    if not both:
        raise ProviderError(
            "the provider supports none of the allowed signing algorithms",
            reason="algorithms",
            hint="set oidc_enabled_signing_algs to the algorithm of the provider",
        )
    return tuple(both)


def check_algorithm(
    token: str, settings: ProviderSettings, known: Collection[str]
) -> None:
    """Raise `TokenError` unless *token* has a configured or *known* algorithm.

    *known* are those of the client's ID tokens, fewer than the provider advertises
    (Core §12.2, Back-Channel Logout §2.6). Without either, any algorithm is accepted.
    """
    accepted = settings.signing_algs or known
    if accepted and token_algorithm(token) not in accepted:
        raise TokenError(
            "the token's signing algorithm is not that of the client's ID tokens",
            reason="algorithm",
            hint="if the provider's algorithm has changed, list the old and the new one "
            "in oidc_enabled_signing_algs",
        )


def logout_url(endpoint: str, client_id: str, id_token: str, return_to: str) -> str:
    """Return the URL of RP-initiated logout (§2); "" without an *endpoint*."""
    if not endpoint:
        return ""
    params = [("client_id", client_id)]
    if id_token:
        params.append(("id_token_hint", id_token))
    if return_to:
        params.append(("post_logout_redirect_uri", return_to))
    return with_query(endpoint, params)


def fixed_keys(settings: ProviderSettings) -> KeySet | None:
    """Return the configured public keys, used only without discovery.

    Raises `SettingsError` for invalid keys.
    """
    if not settings.public_keys or not settings.skip_discovery:
        return None
    try:
        return parse_public_keys(settings.public_keys)
    except ProviderError as error:
        raise SettingsError((f"oidc_public_key_files: {error}",)) from None
