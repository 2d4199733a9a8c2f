"""The options about the identity provider, as `ProviderSettings`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from authproxy_core.settings.provider_types import PROVIDER_TYPES
from authproxy_core.settings.root import LoginParameter, ProviderSettings

from ..read.files import read_text
from ..read.resolved import ResolvedOptions
from ..read.secrets import read_secret
from ..read.sources import closest_name
from . import provider_types as own

ALGORITHMS = frozenset(
    f"{kind}{size}" for kind in ("HS", "RS", "ES", "PS") for size in (256, 384, 512)
) | {"EdDSA"}
ENDPOINTS = (
    "login_url",
    "redeem_url",
    "profile_url",
    "oidc_jwks_url",
    "validate_url",
    "pubjwk_url",
    "backend_logout_url",
)


def provider(collected: ResolvedOptions, plain: dict[str, Any]) -> ProviderSettings:
    """The provider; *plain* holds the fields that are options as they are."""
    kind = _kind(collected)
    _judge(collected)
    own.warn_of_others(collected, kind)
    name = plain["name"]
    return ProviderSettings(
        **{
            **plain,
            "id": name or f"{kind}={plain['client_id']}",
            "type": kind,
            "client_secret": read_secret(collected, "client_secret"),
            "public_keys": _public_keys(collected),
            "code_challenge_method": collected.string("code_challenge_method")
            or collected.string("force_code_challenge_method"),
            "email_claim": _email_claim(collected),
            "allowed_groups": _allowed_groups(collected, kind),
            "login_parameters": _login_parameters(collected),
            **_of_type(collected, kind),
        }
    )


def _kind(collected: ResolvedOptions) -> str:
    kind = collected.string("provider")
    if kind not in PROVIDER_TYPES:
        near = closest_name(kind, PROVIDER_TYPES)
        expected = f"one of {', '.join(sorted(PROVIDER_TYPES))}"
        expected += f"; did you mean {near!r}?" if near else ""
        collected.add_mismatch("provider", kind, expected)
        return "oidc"  # its problems are those of most types
    return kind


def _of_type(collected: ResolvedOptions, kind: str) -> dict[str, Any]:
    """The settings that only this type of provider has."""
    match kind:
        case "github":
            return {"github": own.github(collected)}
        case "gitlab":
            return {"gitlab": own.gitlab(collected)}
        case "google":
            return {"google": own.google(collected)}
        case "bitbucket":
            return {"bitbucket": own.bitbucket(collected)}
        case "azure":
            return {"azure": own.azure(collected)}
        case "entra-id":
            return {"entra_id": own.entra_id(collected)}
        case "login.gov":
            return {"login_gov": own.login_gov(collected)}
    return {}


def _public_keys(collected: ResolvedOptions) -> tuple[str, ...]:
    key = "oidc_public_key_files"
    found = [read_text(collected, key, path) for path in collected.strings(key)]
    if found and not collected.boolean("skip_oidc_discovery"):
        collected.add_warning(key, "has no effect without skip_oidc_discovery")
    return tuple(text for text in found if text is not None)


def _judge(collected: ResolvedOptions) -> None:
    """Note what makes no sense in options that are passed on as they are."""
    for key in ENDPOINTS:
        url = collected.string(key)
        if url and not is_web_address(url):
            collected.add_mismatch(key, url, "an address such as https://HOST/PATH")
    for name in collected.strings("oidc_enabled_signing_algs"):
        if name not in ALGORITHMS:
            collected.add_mismatch(
                "oidc_enabled_signing_algs", name, "an algorithm such as RS256 or ES256"
            )
    if not collected.strings("oidc_audience_claims"):
        collected.add_problem(
            "oidc_audience_claims", "empty, expected claims such as aud"
        )


def is_web_address(text: str) -> bool:
    """Whether *text* is an absolute http or https URL."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and text.isprintable()
        and " " not in text
    )


def _email_claim(collected: ResolvedOptions) -> str:
    claim = collected.string("oidc_email_claim")
    return collected.string("user_id_claim") if claim == "email" else claim


def _allowed_groups(collected: ResolvedOptions, kind: str) -> tuple[str, ...]:
    """Groups, and roles in the form that keycloak-oidc gives to them."""
    groups = collected.strings("allowed_groups")
    roles = collected.strings("allowed_roles")
    if roles and kind != "keycloak-oidc":
        collected.add_problem(
            "allowed_roles",
            f"only the provider keycloak-oidc knows roles; with {kind} nobody's would "
            "be checked",
        )
    if "" in roles:
        collected.add_problem("allowed_roles", "got an empty role")
    return (*groups, *(f"role:{role}" for role in roles))


def _login_parameters(collected: ResolvedOptions) -> tuple[LoginParameter, ...]:
    """The fixed parameters; approval_prompt is always there unless prompt is."""
    found = []
    if acr_values := collected.string("acr_values"):
        found.append(LoginParameter("acr_values", (acr_values,)))
    if prompt := collected.string("prompt"):
        found.append(LoginParameter("prompt", (prompt,)))
    else:
        approval = collected.string("approval_prompt") or "force"
        found.append(LoginParameter("approval_prompt", (approval,)))
    return tuple(found)
