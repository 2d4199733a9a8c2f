"""``authproxy migrate --from``: configurations of vouch-proxy and traefik-forward-auth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.commands.explain import explain_request, parse_arguments
from authproxy.config.load import load_settings
from authproxy.migration import forward_auth, vouch
from authproxy.migration.configuration import NamedText
from authproxy.migration.converted import PLACEHOLDERS, Converted
from authproxy.migration.traefik_rules import parse_matcher
from authproxy.server_settings import ServerSettings
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
VOUCH = """
vouch: {{domains: [example.com]{vouch}}}
oauth: {{provider: {provider}, client_id: web, client_secret: top-secret{oauth}}}
"""
FORWARD_AUTH = """
# traefik-forward-auth
default-provider = oidc
providers.oidc.issuer-url = https://idp.example.com
providers.oidc.client-id = web
providers.oidc.client-secret = "top-secret"
secret = top-secret
"""


def load(converted: Converted, folder: Path) -> ServerSettings:
    """Load the printed configuration, which contains no secret."""
    text = converted.format()
    assert "top-secret" not in text
    assert converted.problems() == ()
    file = folder / "authproxy.cfg"
    file.write_text(text)
    return load_settings(["--config", str(file)], PLACEHOLDERS)


def from_vouch(text: str) -> Converted:
    return vouch.convert_vouch(NamedText("config.yml", text))


def from_forward_auth(text: str, flags: Sequence[str] = ()) -> Converted:
    return forward_auth.convert_forward_auth([NamedText("file.ini", text)], flags)


def decision(settings: ServerSettings, *arguments: str) -> str:
    """Return the decision for an auth check, such as "allowed"."""
    request, _ = parse_arguments(arguments)
    *_, line = explain_request(settings.core, request)
    return line.removeprefix("auth check of a gateway: ").partition(":")[0]


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
    ("users", "allowed", "denied"),
    [
        ("", "a@example.com", "a@example.net"),
        (", allowAllUsers: true", "a@example.net", ""),
        (", whiteList: [a@example.net]", "a@example.net", "b@example.com"),
        (", whiteList: [bob]", "", "a@example.com"),
        (", teamWhitelist: [one, two/b]", "", "a@example.com"),
    ],
)
def test_vouch_users_are_those_of_before(
    users: str, allowed: str, denied: str, tmp_path: Path
) -> None:
    text = VOUCH.format(vouch=users, provider="google", oauth="")
    settings = load(from_vouch(text), tmp_path)
    url = "https://app.example.com/"
    if allowed:
        assert decision(settings, "GET", url, "--email", allowed) == "allowed"
    if denied:
        assert decision(settings, "GET", url, "--email", denied) == "denied"


def test_vouch_variables_are_read(tmp_path: Path) -> None:
    converted = from_vouch(
        "VOUCH_DOMAINS=example.com,example.org\nVOUCH_COOKIE_MAXAGE=0\n"
        "OAUTH_PROVIDER=google\nOAUTH_CLIENT_ID=web\nOAUTH_CLIENT_SECRET=top-secret\n"
        "VOUCH_LISTEN=unix:/run/a\nVOUCH_SOCKETMODE=0660\n"
    )
    settings = load(converted, tmp_path)
    assert settings.core.cookie.domains == ("example.com", "example.org")
    assert settings.core.cookie.expire == 0
    [listener] = [one for one in settings.listeners if not one.metrics]
    assert (listener.path, listener.mode) == ("/run/a", 0o660)


def test_vouch_provider_without_counterpart_is_to_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yml"
    file.write_text(VOUCH.format(vouch="", provider="discord", oauth=""))
    assert main(["migrate", "--from", "vouch", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "#   oauth.provider: there is no provider type for discord" in out
    assert "to complete: provider: without a counterpart" in err


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


RULES = """
whitelist = boss@example.com
rule.open.action = allow
rule.open.rule = Host(`app.example.com`) && Path(`/open`)
rule.api.rule = PathPrefix(`/api`) && Method(`GET`)
rule.api.domains = example.net
"""


@pytest.mark.parametrize(
    ("text", "request_", "email", "expected"),
    [
        (RULES, ("GET", "https://app.example.com/open"), "", "allowed"),
        (RULES, ("GET", "https://app.example.com/open/x"), "", "requires a login"),
        (RULES, ("GET", "https://other.example.com/open"), "", "requires a login"),
        (RULES, ("GET", "https://a.example.com/api/x"), "a@example.net", "allowed"),
        (RULES, ("GET", "https://a.example.com/api/x"), "boss@example.com", "denied"),
        (RULES, ("POST", "https://a.example.com/api/x"), "boss@example.com", "allowed"),
        (RULES, ("GET", "https://a.example.com/"), "a@example.net", "denied"),
        (
            "default-action = allow\nrule.a.rule = PathPrefix(`/a`)",
            ("GET", "https://a.example.com/"),
            "",
            "allowed",
        ),
        (
            "default-action = allow\nrule.a.rule = PathPrefix(`/a`)",
            ("GET", "https://a.example.com/a"),
            "",
            "requires a login",
        ),
        (
            "whitelist = a@example.com\ndomain = example.net",
            ("GET", "https://a.example.com/"),
            "b@example.net",
            "denied",
        ),
        (
            "whitelist = a@example.com\ndomain = example.net\n"
            "match-whitelist-or-domain = true",
            ("GET", "https://a.example.com/"),
            "b@example.net",
            "allowed",
        ),
        # A rule that cannot be converted never allows more than before.
        (
            "rule.a.action = allow\nrule.a.rule = HostRegexp(`.*`)",
            ("GET", "https://a.example.com/"),
            "",
            "requires a login",
        ),
        (
            "default-action = allow\nrule.a.rule = HostRegexp(`.*`)",
            ("GET", "https://a.example.com/"),
            "a@example.com",
            "denied",
        ),
    ],
)
def test_forward_auth_rules_decide_as_before(
    text: str, request_: tuple[str, str], email: str, expected: str, tmp_path: Path
) -> None:
    settings = load(from_forward_auth(FORWARD_AUTH + text), tmp_path)
    user = ("--email", email) if email else ()
    assert decision(settings, *request_, *user) == expected


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
