"""Build `ProviderSettings` from the options of the identity provider."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from authproxy_core.settings import ProviderSettings
from authproxy_core.settings.provider_types import PROVIDER_TYPES
from authproxy_core.settings.providers import LoginParameter

from ..read.files import read_secret, read_text
from ..read.resolved import ResolvedOptions
from ..read.sources import closest_name
from . import provider_types

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


def build_provider(
    options: ResolvedOptions, fields: dict[str, Any]
) -> ProviderSettings:
    """Build the provider; *fields* are the values of the options set unchanged."""
    kind = _provider_type(options)
    _check_values(options)
    provider_types.warn_unused_options(options, kind)
    name = fields["name"]
    return ProviderSettings(
        **{
            **fields,
            "id": name or f"{kind}={fields['client_id']}",
            "type": kind,
            "client_secret": read_secret(options, "client_secret"),
            "public_keys": _read_public_keys(options),
            "code_challenge_method": options.string("code_challenge_method")
            or options.string("force_code_challenge_method"),
            "email_claim": _email_claim(options),
            "allowed_groups": _allowed_groups(options, kind),
            "login_parameters": build_login_parameters(options),
            **_type_fields(options, kind),
        }
    )


def _provider_type(options: ResolvedOptions) -> str:
    kind = options.string("provider")
    if kind not in PROVIDER_TYPES:
        near = closest_name(kind, PROVIDER_TYPES)
        expected = f"one of {', '.join(sorted(PROVIDER_TYPES))}"
        expected += f"; did you mean {near!r}?" if near else ""
        options.add_mismatch("provider", kind, expected)
        return "oidc"  # has the checks that most types share
    return kind


def _type_fields(options: ResolvedOptions, kind: str) -> dict[str, Any]:
    """Return the field with the settings of this type of provider, if it has one."""
    match kind:
        case "github":
            return {"github": provider_types.build_github(options)}
        case "gitlab":
            return {"gitlab": provider_types.build_gitlab(options)}
        case "google":
            return {"google": provider_types.build_google(options)}
        case "bitbucket":
            return {"bitbucket": provider_types.build_bitbucket(options)}
        case "azure":
            return {"azure": provider_types.build_azure(options)}
        case "entra-id":
            return {"entra_id": provider_types.build_entra_id(options)}
        case "login.gov":
            return {"login_gov": provider_types.build_login_gov(options)}
    return {}


def _read_public_keys(options: ResolvedOptions) -> tuple[str, ...]:
    key = "oidc_public_key_files"
    texts = [read_text(options, key, path) for path in options.strings(key)]
    if texts and not options.boolean("skip_oidc_discovery"):
        options.add_warning(key, "has no effect without skip_oidc_discovery")
    return tuple(text for text in texts if text is not None)


def _check_values(options: ResolvedOptions) -> None:
    """Check the options that are set unchanged."""
    for key in ENDPOINTS:
        url = options.string(key)
        if url and not is_http_url(url):
            options.add_mismatch(key, url, "a URL such as https://HOST/PATH")
    for name in options.strings("oidc_enabled_signing_algs"):
        if name not in ALGORITHMS:
            options.add_mismatch(
                "oidc_enabled_signing_algs", name, "an algorithm such as RS256 or ES256"
            )
    if not options.strings("oidc_audience_claims"):
        options.add_problem(
            "oidc_audience_claims", "empty, expected claims such as aud"
        )


def is_http_url(text: str) -> bool:
    """Return whether *text* is an absolute http or https URL."""
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


def _email_claim(options: ResolvedOptions) -> str:
    claim = options.string("oidc_email_claim")
    return options.string("user_id_claim") if claim == "email" else claim


def _allowed_groups(options: ResolvedOptions, kind: str) -> tuple[str, ...]:
    """Return the groups, and the roles as groups ``role:NAME`` (keycloak-oidc)."""
    groups = options.strings("allowed_groups")
    roles = options.strings("allowed_roles")
    if roles and kind != "keycloak-oidc":
        options.add_problem(
            "allowed_roles",
            f"requires the provider keycloak-oidc; {kind} has no roles, and oauth2-proxy "
            "ignores this option with it; remove it, or set allowed_groups",
        )
    if "" in roles:
        options.add_problem("allowed_roles", "got an empty role")
    return (*groups, *(f"role:{role}" for role in roles))


def build_login_parameters(options: ResolvedOptions) -> tuple[LoginParameter, ...]:
    """Build the fixed parameters; ``approval_prompt`` is the default of ``prompt``."""
    parameters = []
    if acr_values := options.string("acr_values"):
        parameters.append(LoginParameter("acr_values", (acr_values,)))
    if prompt := options.string("prompt"):
        parameters.append(LoginParameter("prompt", (prompt,)))
    else:
        approval = options.string("approval_prompt") or "force"
        parameters.append(LoginParameter("approval_prompt", (approval,)))
    return tuple(parameters)
