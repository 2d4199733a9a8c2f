"""Each difference from oauth2-proxy touches the configurations that it concerns.

The cases are options in TOML beside a base configuration: options that the difference
touches, its level, and options that it does not touch.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from authproxy.migration.check import Finding, find_differences
from authproxy.migration.configuration import (
    NamedText,
    Sources,
    load_configuration,
)
from authproxy.migration.differences.table import DIFFERENCES
from support.configuration import BASE

APP = 'upstreams = "http://127.0.0.1:8080/"\n'
GATEWAY = "reverse_proxy = true\n"
PUBLIC = 'skip_auth_routes = "GET=^/public/"\n'
REDIS = 'session_store_type = "redis"\nredis_connection_url = "redis://127.0.0.1"\n'
PAGES = 'custom_templates_dir = "/templates"\n'
BEARER = "skip_jwt_bearer_tokens = true\n"


def typed(provider: str) -> str:
    return f'provider = "{provider}"\n'


class Case(NamedTuple):
    """Options that the difference touches, its level, and untouched options."""

    touched: str
    level: str = "note"
    untouched: str = ""


CASES = {
    "semicolons-in-queries": Case("", "note", "allow_query_semicolons = true"),
    "https-redirect-path": Case(GATEWAY + "force_https = true", "note", GATEWAY),
    "unauthorized-page": Case("", "note", "force_json_errors = true"),
    "trusted-proxies": Case(GATEWAY, "look"),
    "client-addresses": Case(GATEWAY + 'trusted_ips = "10.0.0.0/8"', "look"),
    "unix-gateways": Case(
        GATEWAY + 'http_address = "unix:///run/a"\ntrusted_proxy_ips = "10.0.0.1"',
        "look",
        GATEWAY + 'http_address = "unix:///run/a"\ntrusted_proxy_ips = "unix"',
    ),
    "nonce-and-pkce": Case("", "look", "insecure_oidc_skip_nonce = true"),
    "login-cookie-names": Case("", "note", "cookie_csrf_per_request = true"),
    "id-token-claims": Case("", "note", typed("github")),
    "requested-authentication": Case('acr_values = "gold"', "look"),
    "lost-logins": Case("", "note", "restart_lost_logins = false"),
    "denied-user-keeps-session": Case(
        'allowed_groups = "a"',
        "look",
        'allowed_groups = "a"\nforbidden_session = "clear"',
    ),
    "bypass-ambiguous-path": Case(PUBLIC),
    "preflights": Case("skip_auth_preflight = true", "look"),
    "bypass-without-uri": Case(GATEWAY + PUBLIC, "look", PUBLIC),
    "empty-patterns": Case('skip_auth_routes = ["GET="]', "look", PUBLIC),
    "challenges": Case(BEARER),
    "bypass-own-target": Case(GATEWAY + PUBLIC + APP, "look", APP + PUBLIC),
    "trusted-ips-of-clients": Case(GATEWAY + 'trusted_ips = "10.0.0.1"', "look"),
    "bearer-authorized-party": Case(
        BEARER, "look", BEARER + 'bearer_authorized_parties = "*"'
    ),
    "htpasswd-attempts": Case('htpasswd_file = "/users"\n' + PAGES, "look"),
    "bearer-clock-skew": Case(BEARER, "note", BEARER + 'clock_skew = "0s"'),
    "id-token-in-sign-out": Case(
        'whitelist_domains = "a.example"',
        "look",
    ),
    "unseen-cookie-kept": Case(REDIS),
    "cookie-domain-labels": Case('cookie_domains = "example.com"'),
    "cookie-domain-forms": Case(
        'cookie_domains = "*.example.com"', "look", 'cookie_domains = ".example.com"'
    ),
    "refreshed-algorithm": Case('cookie_refresh = "1h"'),
    "logout-token-algorithm": Case(
        "backchannel_logout = true",
        "note",
        'backchannel_logout = true\noidc_enabled_signing_algs = "RS256"',
    ),
    "session-format": Case("", "note", 'cookie_format = "oauth2-proxy"'),
    "store-outage": Case(REDIS),
    "redis-permissions": Case(REDIS),
    "identity-headers-always-sent": Case(
        "", "note", "pass_basic_auth = false\npass_user_headers = false"
    ),
    "commas-in-groups": Case(
        "", "note", "pass_basic_auth = false\npass_user_headers = false"
    ),
    "empty-credentials": Case("set_authorization_header = true"),
    "cookies-not-forwarded": Case(APP),
    "identity-headers-stripped": Case(
        APP + PUBLIC, "look", APP + PUBLIC + "strip_identity_headers = false"
    ),
    "forwarded-headers-sent": Case(APP, "look"),
    "upstream-host": Case(
        APP + GATEWAY, "look", APP + GATEWAY + "pass_host_header = false"
    ),
    "websocket-without-session": Case(APP, "note", APP + "proxy_websockets = false"),
    "clean-path-after-login": Case(APP),
    "clean-path-escapes": Case(APP),
    "clean-path-dots": Case(APP),
    "compression": Case(APP),
    "request-lines": Case(APP),
    "websocket-origins": Case(APP, "look", APP + 'websocket_origins = "*"'),
    "websocket-checks": Case(APP, "note", APP + 'upgrade_check_interval = "0s"'),
    "websockets-disabled": Case(APP + "proxy_websockets = false", "look", APP),
    "ambiguous-upstream-responses": Case(APP),
    "symlinks-in-files": Case(
        'upstreams = "file:///srv/www/#/"', "look", 'upstreams = "file:///dev/null"'
    ),
    "roles-without-keycloak": Case(
        'allowed_roles = "a"', "look", typed("keycloak-oidc") + 'allowed_roles = "a"'
    ),
    "keycloak-roles": Case(typed("keycloak-oidc") + 'allowed_roles = "a"', "look"),
    "keycloak-role-groups": Case(typed("keycloak-oidc")),
    "gitlab-project-groups": Case(typed("gitlab")),
    "verified-id-tokens": Case(typed("google") + 'scope = "email"', "look"),
    "allowed-groups-apply": Case(
        typed("gitlab") + 'allowed_groups = "a"',
        "look",
        typed("gitlab") + 'allowed_groups = "a"\ngitlab_groups = "a"',
    ),
    "redeem-url-alone": Case(
        typed("github") + 'redeem_url = "https://git.example/token"',
        "look",
        typed("github") + 'redeem_url = "https://git.example/token"\n'
        'validate_url = "https://git.example/"\nprofile_url = "https://git.example/"',
    ),
    "entra-tenants": Case(typed("entra-id")),
    "bitbucket-workspaces": Case(typed("bitbucket") + 'bitbucket_workspace = "a"'),
    "signed-userinfo": Case("", "note", typed("github")),
    "token-types": Case(BEARER, "look", typed("github")),
    "email-claim-types": Case("", "note", typed("github")),
    "unverified-email": Case(
        typed("digitalocean"),
        "look",
        typed("digitalocean") + "insecure_oidc_allow_unverified_email = true",
    ),
    "membership-at-refresh": Case(typed("github") + 'github_org = "a"'),
    "static-files": Case(PAGES, "look"),
    "content-security-policy": Case(PAGES, "look"),
    "ready-after-metadata": Case("", "note", 'ready_path = ""'),
    "auth-log": Case("", "note", "auth_logging = false"),
}
OTHER_SOURCES = {  # touched by an alpha file, a variable or a flag; tested below
    "times-in-headers",
    "rewritten-dots",
    "dollars-in-alpha-files",
    "converted-secrets",
    "unknown-variables",
    "positional-arguments",
}
ALPHA = """
providers:
- id: main
  provider: oidc
  clientID: web
  clientSecret: secret
  oidcConfig:
    issuerURL: https://idp.example.com
"""
ALWAYS = sorted(
    row.id for row in DIFFERENCES if row.id not in CASES and row.id not in OTHER_SOURCES
)


def findings(
    toml: str = "",
    *,
    alpha: str = "",
    environ: dict[str, str] | None = None,
    flags: tuple[str, ...] = (),
) -> dict[str, Finding]:
    """Return the differences that touch a configuration, by ID."""
    base = BASE if not alpha else {}
    lines = [
        f'{name.removeprefix("OAUTH2_PROXY_").lower()} = "{value}"'
        for name, value in base.items()
        if f"{name.removeprefix('OAUTH2_PROXY_').lower()} = " not in toml
    ]
    sources = Sources(
        flags,
        environ or {},
        NamedText("oauth2-proxy.cfg", "\n".join([*lines, toml])),
        NamedText("alpha.yaml", alpha) if alpha else None,
    )
    return {
        one.difference.id: one for one in find_differences(load_configuration(sources))
    }


@pytest.mark.parametrize("name", CASES)
def test_difference_touches_configuration_with_its_options(name: str) -> None:
    case = CASES[name]
    found = findings(case.touched)
    assert name in found
    assert found[name].level == case.level
    if case.untouched:
        assert name not in findings(case.untouched)


@pytest.mark.parametrize(
    "name",
    [name for name, case in CASES.items() if case.touched and not case.untouched],
)
def test_difference_does_not_need_look_without_its_options(name: str) -> None:
    finding = findings().get(name)
    assert finding is None or (finding.level, CASES[name].level) == ("note", "look")


def test_differences_without_options_touch_any_configuration() -> None:
    found = findings()
    assert set(ALWAYS) <= set(found)
    assert {found[name].level for name in ALWAYS} == {"note"}
    assert len(ALWAYS) + len(CASES) + len(OTHER_SOURCES) == len(DIFFERENCES)


def test_differences_have_unique_ids() -> None:
    ids = [row.id for row in DIFFERENCES]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("name", "level", "alpha"),
    [
        (
            "times-in-headers",
            "note",
            ALPHA
            + "injectRequestHeaders:\n- name: X-Since\n  values:\n"
            + "  - claimSource: {claim: created_at}\n",
        ),
        (
            "rewritten-dots",
            "note",
            ALPHA
            + "upstreamConfig:\n  upstreams:\n  - id: a\n    path: ^/a/(.*)$\n"
            + "    uri: http://127.0.0.1\n    rewriteTarget: /$1\n",
        ),
        (
            "dollars-in-alpha-files",
            "look",
            ALPHA + "injectRequestHeaders: # $2 is kept\n",
        ),
        ("nonce-and-pkce", "look", ALPHA),
        (
            "requested-authentication",
            "look",
            ALPHA.replace(
                "  clientID", "  loginURLParameters: [{name: max_age}]\n  clientID"
            ),
        ),
        (
            "websockets-disabled",
            "look",
            ALPHA
            + "upstreamConfig:\n  upstreams:\n  - id: a\n    path: /\n"
            + "    uri: http://127.0.0.1\n    proxyWebSockets: false\n",
        ),
        (
            "denied-user-keeps-session",
            "look",
            ALPHA.replace("  clientID", "  allowedGroups: [a]\n  clientID"),
        ),
    ],
)
def test_difference_touches_alpha_file(name: str, level: str, alpha: str) -> None:
    assert findings(alpha=alpha)[name].level == level
    plain = findings(alpha=ALPHA).get(name)
    assert plain is None or alpha == ALPHA


def test_converted_secrets_concern_flat_options_only() -> None:
    assert "converted-secrets" in findings()
    assert "converted-secrets" not in findings(alpha=ALPHA)


def test_unknown_variable_needs_look() -> None:
    found = findings(environ={"OAUTH2_PROXY_EMAIL_DOMAN": "example.com"})
    assert found["unknown-variables"].level == "look"


@pytest.mark.parametrize("flags", [("serve",), ("--cookie-secure", "false")])
def test_positional_argument_needs_look(flags: tuple[str, ...]) -> None:
    found = findings(flags=(*flags, "--reverse-proxy"))
    assert found["positional-arguments"].level == "look"
    assert "trusted-proxies" in found  # the other flags count


def test_finding_names_the_options_that_cause_it_with_their_origin() -> None:
    found = findings('allowed_groups = "a"\n' + GATEWAY)
    [groups] = found["denied-user-keeps-session"].options
    assert groups.startswith("allowed_groups (oauth2-proxy.cfg:")
    proxy, ips = found["trusted-proxies"].options
    assert proxy.startswith("reverse_proxy (oauth2-proxy.cfg:")
    assert ips == "trusted_proxy_ips (default: empty)"
