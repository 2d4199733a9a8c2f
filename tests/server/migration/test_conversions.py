"""``authproxy migrate --from``: configurations of vouch-proxy and traefik-forward-auth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.migration import forward_auth, vouch
from authproxy.migration.traefik_rules import parse_matcher
from support.conversions import (
    FORWARD_AUTH,
    VOUCH,
    from_forward_auth,
    from_vouch,
    load,
)
from support.programs import ROOT

KEYCLOAK = """
vouch:
  listen: 127.0.0.1
  port: 9091
  domains: [example.com]
  document_root: /sso
  writeTimeout: 15
  readTimeout: 16
  idleTimeout: 17
  cookie: {name: Session, secure: false, httpOnly: false, maxAge: 60, sameSite: Strict}
  session: {maxAge: 5, key: top-secret}
  jwt: {secret: top-secret}
  headers: {claims: [groups], idtoken: X-Id, accesstoken: X-Access}
  post_logout_redirect_uris: ["https://bye.example.org/login"]
  loglevel: debug
  unknwn: 1
oauth:
  provider: oidc
  client_id: web
  client_secret: top-secret
  auth_url: https://idp.example.com/realms/r/protocol/openid-connect/auth
  token_url: https://idp.example.com/realms/r/protocol/openid-connect/token
  user_info_url: https://idp.example.com/realms/r/protocol/openid-connect/userinfo
  end_session_endpoint: https://idp.example.com/logout
  scopes: [openid, email, groups]
  callback_url: https://vouch.example.com/sso/auth
  code_challenge_method: S256
"""


def test_vouch_options_arrive(tmp_path: Path) -> None:
    converted = from_vouch(KEYCLOAK)
    settings = load(converted, tmp_path)
    core = settings.core
    [provider] = core.providers
    assert provider.type == "keycloak-oidc"
    assert provider.issuer == "https://idp.example.com/realms/r"
    assert (provider.client_id, provider.scope) == ("web", "openid email groups")
    assert provider.code_challenge_method == "S256"
    cookie = core.cookie
    assert (cookie.name, cookie.secure, cookie.httponly) == ("Session", False, False)
    assert (cookie.expire, cookie.csrf_expire, cookie.samesite) == (3600, 300, "strict")
    assert cookie.domains == ("example.com",)
    assert core.whitelist_domains == (".example.com", "bye.example.org")
    assert core.email_domains == ("example.com", "*.example.com")
    assert core.proxy_prefix == "/sso"
    assert core.redirect_url == "https://vouch.example.com/sso/callback"
    assert core.logout.at_provider
    assert core.reverse_proxy
    [listener] = [one for one in settings.listeners if not one.metrics]
    assert (listener.host, listener.port) == ("127.0.0.1", 9091)
    limits = settings.limits
    assert (limits.write_timeout, limits.head_timeout, limits.idle_timeout) == (
        15,
        16,
        17,
    )
    headers = {rule.name for rule in core.inject_response_headers}
    assert {
        "X-Auth-Request-Email",
        "X-Auth-Request-Access-Token",
        "Authorization",
    } <= headers
    assert set(converted.unmapped) == {
        "vouch.unknwn",
        "vouch.logLevel",
        "vouch.jwt.secret",
        "vouch.session.key",
        "vouch.headers.claims",
    }
    assert "OAUTH2_PROXY_CLIENT_SECRET" in converted.variables


@pytest.mark.parametrize(
    ("provider", "oauth", "expected"),
    [
        ("google", "", ("google", "https://accounts.google.com")),
        (
            "azure",
            ", auth_url: https://login.microsoftonline.com/t/oauth2/v2.0/authorize",
            ("entra-id", "https://login.microsoftonline.com/t/v2.0"),
        ),
        (
            "adfs",
            ", auth_url: https://a.example/adfs/oauth2/authorize/",
            ("adfs", "https://a.example/adfs"),
        ),
        (
            "oidc",
            ", auth_url: https://o.example/oauth2/default/v1/authorize",
            ("oidc", "https://o.example/oauth2/default"),
        ),
    ],
)
def test_vouch_provider_has_its_issuer(
    provider: str, oauth: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    text = VOUCH.format(vouch="", provider=provider, oauth=oauth)
    [one] = load(from_vouch(text), tmp_path).core.providers
    assert one.type == expected[0]
    assert provider == "google" or one.issuer == expected[1]


def test_vouch_endpoints_of_github_enterprise_arrive(tmp_path: Path) -> None:
    oauth = (
        ", auth_url: https://git.example/a, token_url: https://git.example/t, "
        "user_info_url: 'https://git.example/api/v3/user?access_token='"
    )
    text = VOUCH.format(
        vouch=", teamWhitelist: [org/a, org/b]", provider="github", oauth=oauth
    )
    [provider] = load(from_vouch(text), tmp_path).core.providers
    assert provider.login_url == "https://git.example/a"
    assert provider.redeem_url == "https://git.example/t"
    assert provider.validate_url == "https://git.example/api/v3/"
    assert provider.github.team == "org:a,org:b"


@pytest.mark.parametrize(
    ("ages", "minutes", "skipped"),
    [
        ("", 240, set()),
        ("cookie: {maxAge: 0}", 240, set()),
        ("cookie: {maxAge: 0}, jwt: {maxAge: 90}", 90, set()),
        ("cookie: {maxAge: 600}", 240, set()),
        ("cookie: {maxAge: 60}, jwt: {maxAge: 90}", 60, set()),
        ("jwt: {maxAge: 0}", 240, set()),
        (
            "cookie: {maxAge: -1}, jwt: {maxAge: soon}",
            240,
            {"vouch.cookie.maxAge", "vouch.jwt.maxAge"},
        ),
        ("cookie: {maxAge: 5}, writeTimeout: -1", 5, {"vouch.writeTimeout"}),
    ],
)
def test_vouch_session_ends_with_cookie_or_jwt(
    ages: str, minutes: int, skipped: set[str], tmp_path: Path
) -> None:
    vouch = f", {ages}" if ages else ""
    converted = from_vouch(VOUCH.format(vouch=vouch, provider="google", oauth=""))
    assert load(converted, tmp_path).core.cookie.expire == 60 * minutes
    assert set(converted.unmapped) == skipped


def test_vouch_variables_are_read(tmp_path: Path) -> None:
    converted = from_vouch(
        "VOUCH_DOMAINS=example.com,example.org\nVOUCH_COOKIE_MAXAGE=0\n"
        "OAUTH_PROVIDER=google\nOAUTH_CLIENT_ID=web\nOAUTH_CLIENT_SECRET=top-secret\n"
        "VOUCH_LISTEN=unix:/run/a\nVOUCH_SOCKETMODE=0660\n"
    )
    settings = load(converted, tmp_path)
    assert settings.core.cookie.domains == ("example.com", "example.org")
    assert settings.core.cookie.expire == 240 * 60
    [listener] = [one for one in settings.listeners if not one.metrics]
    assert (listener.path, listener.mode) == ("/run/a", 0o660)


@pytest.mark.parametrize("value", ["0", "-1", "soon"])
def test_forward_auth_lifetime_without_counterpart_is_default(
    value: str, tmp_path: Path
) -> None:
    converted = from_forward_auth(f"{FORWARD_AUTH}lifetime = {value}\n")
    assert load(converted, tmp_path).core.cookie.expire == 12 * 3600
    assert set(converted.unmapped) == {"lifetime"}


def test_forward_auth_options_arrive(tmp_path: Path) -> None:
    text = FORWARD_AUTH + (
        "cookie-domain = example.com\ncookie-name = fa\ninsecure-cookie = true\n"
        "lifetime = 600\nport = 4182\nauth-host = auth.example.com\nurl-path = _oauth\n"
        "log-format = json\nlogout-redirect = https://bye.example.org/\n"
        "domain = example.com\nlog-level = debug\ncsrf-cookie-name = csrf\nunknwn = 1\n"
    )
    converted = from_forward_auth(text)
    settings = load(converted, tmp_path)
    core = settings.core
    [provider] = core.providers
    assert (provider.type, provider.client_id) == ("oidc", "web")
    assert provider.issuer == "https://idp.example.com"
    cookie = core.cookie
    assert (cookie.name, cookie.secure, cookie.expire) == ("fa", False, 600)
    assert cookie.domains == ("example.com",)
    assert core.whitelist_domains == (".example.com", "bye.example.org")
    assert core.proxy_prefix == "/_oauth"
    assert core.redirect_url == "https://auth.example.com/_oauth/callback"
    assert core.email_domains == ("example.com",)
    assert settings.listeners[0].port == 4182
    assert settings.logs.format == "json"
    assert set(converted.unmapped) == {
        "unknwn",
        "log-level",
        "csrf-cookie-name",
        "logout-redirect",
    }


@pytest.mark.parametrize("form", ["flags", "variables", "older names"])
def test_forward_auth_options_have_several_forms(form: str, tmp_path: Path) -> None:
    match form:
        case "flags":
            flags = ["--providers.google.client-id=web", "--domain", "example.com"]
            flags += ["--insecure-cookie", "--providers.google.prompt", "consent"]
            converted = forward_auth.convert_forward_auth([], flags)
        case "variables":
            converted = from_forward_auth(
                "PROVIDERS_GOOGLE_CLIENT_ID=web\nexport DOMAIN=example.com\n"
                "INSECURE_COOKIE=true\nPROVIDERS_GOOGLE_PROMPT=consent\n"
            )
        case _:
            converted = from_forward_auth(
                "client-id web\ndomain example.com\ncookie-secure false\n"
                "prompt consent\n"
            )
    core = load(converted, tmp_path).core
    [provider] = core.providers
    assert (provider.type, provider.client_id) == ("google", "web")
    assert core.email_domains == ("example.com",)
    assert not core.cookie.secure
    prompts = [one.values for one in provider.login_parameters if one.name == "prompt"]
    assert prompts == [("consent",)]


def test_names_of_options_add_no_lines() -> None:
    text = KEYCLOAK + '"a\\nemail_domains = 1": 2\n'
    converted = from_vouch(text)
    assert converted.format().count("\nemail_domains = ") == 1
    assert converted.problems() == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Host(`a.example`, `b.example`)", {"hosts": ["a.example", "b.example"]}),
        ('Path("/a.b")', {"patterns": [r"/a\.b$"]}),
        ("Methods(GET, `post`)", {"methods": ["GET", "POST"]}),
    ],
)
def test_matcher_of_traefik_converted(
    text: str, expected: dict[str, list[str]]
) -> None:
    assert parse_matcher(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Host(`a`) || Host(`b`)",
        "!Host(`a`)",
        "Host(`a`) && Host(`b`)",
        "(Host(`a`))",
        "Host()",
        "Path(`/{id}`)",
        "Query(`a=b`)",
        "Host(`a`) Path(`/b`)",
    ],
)
def test_matcher_without_counterpart_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_matcher(text)


@pytest.mark.parametrize(
    ("arguments", "text", "problem"),
    [
        (("vouch",), "a: [", "not YAML"),
        (("vouch",), "a: 1", "expected the keys vouch and oauth"),
        (("tfa",), "# nothing", "expected options of traefik-forward-auth"),
        (("pomerium",), "", "expected vouch or tfa"),
        (("vouch", "--json"), "", "usage: authproxy migrate"),
    ],
)
def test_unreadable_configuration_exits_with_2(
    arguments: tuple[str, ...],
    text: str,
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file.yml"
    file.write_text(text)
    assert main(["migrate", "--from", *arguments, str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert problem in err


@pytest.mark.parametrize(
    ("page", "options"),
    [
        ("vouch-proxy", vouch.KNOWN),
        ("traefik-forward-auth", forward_auth.KNOWN),
    ],
)
def test_page_names_each_option(page: str, options: Sequence[str]) -> None:
    text = (ROOT / "docs" / "switching" / f"{page}.md").read_text()
    missing = [name for name in options if f"`{name}`" not in text]
    assert missing == []
