"""Problems of provider settings, one line each."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.settings.provider_types import PROVIDER_TYPES
from authproxy_core.settings.providers import (
    AllowRule,
    EntraIdSettings,
    GithubSettings,
    GitlabSettings,
    GoogleSettings,
    LoginGovSettings,
    LoginParameter,
    ProviderSettings,
    has_provider_choice,
    provider_problems,
)
from authproxy_core.settings.secret import Secret

BASE: dict[str, Any] = {
    "id": "one",
    "client_id": "web",
    "client_secret": Secret("s"),
    "issuer": "https://idp.example.com",
}
ADDRESSES = {
    "login_url": "https://idp.example.com/login",
    "redeem_url": "https://idp.example.com/token",
    "validate_url": "https://idp.example.com/me",
}


def problems(**changes: Any) -> list[str]:
    return provider_problems((ProviderSettings(**(BASE | changes)),))


def problem(**changes: Any) -> str:
    [text] = problems(**changes)
    return text


@pytest.mark.parametrize("kind", sorted(PROVIDER_TYPES))
def test_provider_type_minimal_settings_valid(kind: str) -> None:
    changes: dict[str, Any] = {"type": kind}
    if PROVIDER_TYPES[kind].required_options:
        changes |= ADDRESSES
    if kind == "login.gov":
        changes["login_gov"] = LoginGovSettings(jwt_key=Secret("pem"))
        changes["client_secret"] = Secret("")
    if not PROVIDER_TYPES[kind].discovers:
        changes["issuer"] = ""
    assert problems(**changes) == []


def test_provider_problems_without_providers() -> None:
    assert provider_problems(()) == [
        "provider: missing; at least one provider is needed"
    ]


def test_provider_problems_duplicate_id_and_host_reported() -> None:
    one = ProviderSettings(**BASE, hosts=("a.example.com",))
    other = ProviderSettings(**BASE, hosts=("A.example.com",))
    assert provider_problems((one, other)) == [
        "provider: the id 'one' is used twice",
        "hosts: 'a.example.com' is bound to two providers",
    ]


def test_provider_problems_name_the_provider() -> None:
    one = ProviderSettings(**BASE)
    other = ProviderSettings(**(BASE | {"id": "two", "client_id": ""}))
    assert provider_problems((one, other)) == [
        "client_id: missing; expected the id of this client (provider 'two')"
    ]


def test_has_provider_choice_needs_two_unbound_providers() -> None:
    free = ProviderSettings(**BASE)
    bound = ProviderSettings(**(BASE | {"id": "two", "hosts": ("a.example.com",)}))
    assert not has_provider_choice((free,))
    assert not has_provider_choice((free, bound))
    assert has_provider_choice((free, bound, free))


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"type": "gitbub"}, "provider: got 'gitbub', expected one of adfs, azure,"),
        ({"id": ""}, "provider: the id is empty"),
        ({"client_id": ""}, "client_id: missing"),
        ({"client_secret": Secret("")}, "client_secret: missing"),
        ({"issuer": ""}, "oidc_issuer_url: missing"),
        ({"issuer": "idp.example.com"}, "oidc_issuer_url: got 'idp.example.com'"),
        (
            {"type": "keycloak", **ADDRESSES, "validate_url": ""},
            "validate_url: missing",
        ),
        (
            {"type": "github", **ADDRESSES, "validate_url": ""},
            "validate_url: missing; with another redeem_url, the default "
            "https://api.github.com/ would receive the tokens of another server",
        ),
        ({"skip_discovery": True, **ADDRESSES}, "oidc_jwks_url: missing; needed with"),
        (
            {
                "skip_discovery": True,
                **ADDRESSES,
                "jwks_url": "https://idp.example.com/keys",
                "public_keys": ("pem",),
            },
            "oidc_public_key_files: can't be used with oidc_jwks_url",
        ),
        ({"type": "azure", "skip_discovery": True}, "oidc_jwks_url: missing"),
        ({"response_mode": "fragment"}, "auth_request_response_mode: got 'fragment'"),
        ({"allowed_groups": ("a", "")}, "allowed_groups: got an empty group"),
        ({"keycloak_groups": ("",)}, "keycloak_groups: got an empty group"),
        (
            {"github": GithubSettings(users=("",))},
            "github_users: got an empty entry, which matches no user",
        ),
        ({"hosts": ("a b",)}, "hosts: got 'a b', expected a host name"),
        (
            {"login_parameters": (LoginParameter("p"), LoginParameter("p"))},
            "loginURLParameters: the parameter 'p' is a duplicate",
        ),
        (
            {"login_parameters": (LoginParameter(""),)},
            "loginURLParameters: a parameter has no name",
        ),
        (
            {
                "login_parameters": (
                    LoginParameter("p", allow=(AllowRule("a("),)),
                    LoginParameter("q", allow=(AllowRule("a("[:1], True),)),
                    LoginParameter("r", allow=(AllowRule("a(", True),)),
                )
            },
            "loginURLParameters: r allows the pattern 'a(': missing )",
        ),
        (
            {"type": "gitlab", "gitlab": GitlabSettings(projects=("a/b=15",))},
            "gitlab_projects: got 'a/b=15', expected PATH or PATH=LEVEL",
        ),
        (
            {"type": "gitlab", "gitlab": GitlabSettings(projects=("=20", "a/b=20"))},
            "gitlab_projects: got '=20'",
        ),
        (
            {"type": "github", "github": GithubSettings(team="a:b,c")},
            "github_team: got 'c', expected 'ORG:TEAM'",
        ),
        (
            {"type": "github", "github": GithubSettings(repo="a")},
            "github_repo: got 'a', expected 'OWNER/NAME'",
        ),
        (
            {"type": "google", "google": GoogleSettings(credentials=Secret("{}"))},
            "google_admin_email: missing",
        ),
        (
            {"type": "google", "google": GoogleSettings(admin_email="a@example.com")},
            "google_service_account_json: missing",
        ),
        (
            {"type": "google", "google": GoogleSettings(groups=("a@example.com",))},
            "google_groups: needs google_admin_email",
        ),
        (
            {"type": "google", "google": GoogleSettings(use_organization_id=True)},
            "google_use_organization_id: needs google_admin_email",
        ),
        ({"type": "login.gov"}, "jwt_key: missing"),
    ],
)
def test_provider_problems_invalid_option_reported(
    changes: dict[str, Any], start: str
) -> None:
    assert problem(**changes).startswith(start)


def test_provider_problems_federated_token_replaces_client_secret() -> None:
    entra = EntraIdSettings(federated_token=lambda: b"token")
    changes = {"type": "entra-id", "client_secret": Secret(""), "entra_id": entra}
    assert problems(**changes) == []
    assert problems(**(changes | {"type": "oidc"})) != []
