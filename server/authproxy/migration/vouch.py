"""Convert the configuration of vouch-proxy: config.yml, or VOUCH_* and OAUTH_* variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..config.read.resolved import ConfigError
from ..config.read.yaml_text import read_yaml
from .configuration import NamedText
from .converted import (
    Converted,
    Setting,
    by_normalized_name,
    duration,
    entries,
    is_true,
    normalized,
    printable,
    whole_number,
)
from .files import ASSIGNMENT, unquote

PROGRAM = "vouch-proxy"
PREFIXES = ("VOUCH_", "OAUTH_")
Values = Mapping[str, Any]  # option (such as vouch.cookie.name) to its value

# Options with one counterpart.
DIRECT: Mapping[str, tuple[str, Callable[[Any], Setting]]] = {
    "oauth.client_id": ("client_id", printable),
    "oauth.code_challenge_method": ("code_challenge_method", printable),
    "oauth.scopes": ("scope", lambda value: " ".join(entries(value))),
    "oauth.relying_party_id": ("resource", printable),
    "vouch.document_root": (
        "proxy_prefix",
        lambda value: "/" + printable(value).strip("/"),
    ),
    "vouch.writeTimeout": ("write_timeout", lambda value: duration(value, "s")),
    "vouch.readTimeout": ("head_timeout", lambda value: duration(value, "s")),
    "vouch.idleTimeout": ("idle_timeout", lambda value: duration(value, "s")),
    "vouch.cookie.name": ("cookie_name", printable),
    "vouch.cookie.secure": ("cookie_secure", is_true),
    "vouch.cookie.httpOnly": ("cookie_httponly", is_true),
    "vouch.cookie.sameSite": (
        "cookie_samesite",
        lambda value: printable(value).lower(),
    ),
    "vouch.session.maxAge": ("cookie_csrf_expire", lambda value: duration(value, "m")),
}
# Options that are converted together with others.
COMBINED = (
    "oauth.provider", "oauth.client_secret", "oauth.auth_url", "oauth.token_url",
    "oauth.user_info_url", "oauth.callback_url", "oauth.callback_urls",
    "oauth.end_session_endpoint", "vouch.listen", "vouch.port", "vouch.socket_mode",
    "vouch.domains", "vouch.allowAllUsers", "vouch.whiteList", "vouch.teamWhitelist",
    "vouch.tls.cert", "vouch.tls.key", "vouch.tls.profile", "vouch.cookie.domain",
    "vouch.cookie.maxAge", "vouch.jwt.maxAge", "vouch.headers.accesstoken",
    "vouch.headers.idtoken", "vouch.post_logout_redirect_uris",
)  # fmt: skip
HEADER_NAMES = (
    "response headers have fixed names, such as X-Auth-Request-Email; others are "
    "injectResponseHeaders of an alpha file"
)
SEALED = "sessions are sealed with cookie_secret, not signed as JWTs"
UNMAPPED: Mapping[str, str] = {
    "vouch.logLevel": "there are no log levels; standard_logging, auth_logging and "
    "request_logging switch the logs",
    "vouch.testing": "authproxy explain shows the decision for a request",
    "vouch.test_url": "authproxy explain shows the decision for a request",
    "vouch.test_urls": "authproxy explain shows the decision for a request",
    "vouch.socket_group": "the group of the socket's directory decides",
    "vouch.publicAccess": "it lets every request pass; list public paths in "
    "skip_auth_routes",
    "vouch.jwt.signing_method": SEALED,
    "vouch.jwt.secret": SEALED,
    "vouch.jwt.public_key_file": SEALED,
    "vouch.jwt.private_key_file": SEALED,
    "vouch.jwt.issuer": SEALED,
    "vouch.jwt.compress": SEALED,
    "vouch.session.name": "the login cookie is named after cookie_name",
    "vouch.session.key": "cookie_secret seals the login cookie",
    "vouch.headers.jwt": "a session is accepted in cookies only",
    "vouch.headers.querystring": "a session is accepted in cookies only",
    "vouch.headers.redirect": "the gateway sends the URL in X-Forwarded-* headers",
    "vouch.headers.user": HEADER_NAMES,
    "vouch.headers.success": HEADER_NAMES,
    "vouch.headers.error": HEADER_NAMES,
    "vouch.headers.claims": HEADER_NAMES,
    "vouch.headers.claimheader": HEADER_NAMES,
    "oauth.claims": "set it in loginURLParameters of an alpha file",
    "oauth.preferredDomain": "set hd in loginURLParameters of an alpha file",
    "oauth.user_team_url": "the URLs of teams follow validate_url",
    "oauth.user_org_url": "the URLs of organizations follow validate_url",
    "oauth.azure_token": "the ID token is verified",
    "oauth.discord_use_ids": "there is no provider type for Discord",
}
KNOWN = (*DIRECT, *COMBINED, *UNMAPPED)
BY_NAME = by_normalized_name(KNOWN)
PROVIDERS = {  # those with a counterpart
    "google": "google",
    "github": "github",
    "adfs": "adfs",
    "azure": "entra-id",
    "oidc": "oidc",
    "nextcloud": "nextcloud",
}
KEYCLOAK_PATH = "/protocol/openid-connect/auth"
ISSUER_PATHS = (  # path of the authorization endpoint, after the issuer; its replacement
    (KEYCLOAK_PATH, ""),
    ("/oauth2/v2.0/authorize", "/v2.0"),
    ("/adfs/oauth2/authorize", "/adfs"),
    ("/v1/authorize", ""),
    ("/oauth2/authorize", ""),
    ("/oauth/authorize", ""),
    ("/authorize", ""),
)
DEFAULT_JWT_AGE = 240  # minutes
NOT_A_NUMBER = "not a number"


def convert_vouch(file: NamedText) -> Converted:
    """Convert the text of *file*; raises `ConfigError` if it is not readable."""
    converted = Converted(PROGRAM)
    values = _read(file, converted)
    for name, (key, parse) in DIRECT.items():
        if name in values:
            try:
                converted.set(key, parse(values[name]), name)
            except ValueError:
                converted.skip(name, NOT_A_NUMBER)
    for name, why in UNMAPPED.items():
        if name in values:
            is_public = name == "vouch.publicAccess" and is_true(values[name])
            converted.skip(name, why, access=is_public)
    _convert_provider(values, converted)
    _convert_callback(values, converted)
    _convert_users(values, converted)
    _convert_cookies(values, converted)
    _convert_listener(values, converted)
    _convert_headers(values, converted)
    return converted


def _read(file: NamedText, converted: Converted) -> dict[str, Any]:
    found = {}
    for name, value in _pairs(file):
        if value is None or value == "":
            continue
        known = BY_NAME.get(normalized(name))
        if known is None:
            converted.skip_unknown(name, KNOWN)
        else:
            found[known] = value
    return found


def _pairs(file: NamedText) -> Iterator[tuple[str, Any]]:
    """Yield the options and values of a YAML file, or of variables."""
    lines = [ASSIGNMENT.fullmatch(line) for line in file.text.splitlines()]
    variables = [match for match in lines if match and match[1].startswith(PREFIXES)]
    if variables:
        for match in variables:
            yield match[1].lower().replace("_", ".", 1), unquote(match[2].strip())
        return
    try:
        document = read_yaml(file.text)
    except ValueError as error:
        raise ConfigError((f"{file.name}: not YAML: {error}",)) from None
    if not isinstance(document, dict) or not {"vouch", "oauth"} & set(document):
        raise ConfigError((f"{file.name}: expected the keys vouch and oauth",))
    yield from _flatten(document, "")


def _flatten(document: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and name != "oauth.claims":
            yield from _flatten(value, name)
        else:
            yield name, value


def _convert_provider(values: Values, converted: Converted) -> None:
    name = "oauth.provider"
    kind = printable(values.get(name, ""))
    auth_url = printable(values.get("oauth.auth_url", ""))
    if "oauth.client_secret" in values:
        converted.set_secret("client_secret", "oauth.client_secret")
    if "oauth.end_session_endpoint" in values:
        converted.set("sign_out_at_provider", True, "oauth.end_session_endpoint")
    if kind not in PROVIDERS:
        why = f"there is no provider type for {kind or 'nothing'}"
        converted.set_no_provider(kind, name, why)
        return
    provider = PROVIDERS[kind]
    if KEYCLOAK_PATH in auth_url and provider == "oidc":
        provider = "keycloak-oidc"
    converted.set("provider", provider, name)
    if provider in ("github", "nextcloud"):
        _convert_endpoints(values, provider, converted)
    elif provider != "google" and auth_url:
        origin = "from oauth.auth_url; compare it with the provider's metadata"
        converted.set("oidc_issuer_url", _issuer(auth_url), origin)


def _convert_endpoints(values: Values, provider: str, converted: Converted) -> None:
    for name, key in (
        ("oauth.auth_url", "login_url"),
        ("oauth.token_url", "redeem_url"),
        ("oauth.user_info_url", "validate_url"),
    ):
        if name in values:
            url = printable(values[name])
            if provider == "github" and key == "validate_url":
                url = url.partition("?")[0].removesuffix("user")
            converted.set(key, url, name)


def _issuer(auth_url: str) -> str:
    """Return the issuer that usually belongs to an authorization endpoint."""
    url = auth_url.partition("?")[0].rstrip("/")
    for path, replacement in ISSUER_PATHS:
        if url.endswith(path):
            return url.removesuffix(path) + replacement
    return url


def _convert_callback(values: Values, converted: Converted) -> None:
    """Set the callback URL; with several ones, it follows the host of the request."""
    urls = entries(values.get("oauth.callback_urls", []))
    single = printable(values.get("oauth.callback_url", ""))
    if single and not urls:
        parts = urlsplit(single)
        prefix = printable(values.get("vouch.document_root", "/oauth2")).strip("/")
        url = f"{parts.scheme}://{parts.netloc}/{prefix}/callback"
        converted.set("redirect_url", url, "oauth.callback_url; register it")
    elif urls:
        converted.skip(
            "oauth.callback_urls",
            "the callback URL is /oauth2/callback on the host of the request; register "
            "it for each host",
        )


def _convert_users(values: Values, converted: Converted) -> None:
    """Set the users in the order of vouch-proxy: all, users, teams, domains."""
    domains = entries(values.get("vouch.domains", []))
    users = entries(values.get("vouch.whiteList", []))
    teams = entries(values.get("vouch.teamWhitelist", []))
    everybody = is_true(values.get("vouch.allowAllUsers", "false"))
    if everybody:
        converted.set("email_domains", ["*"], "vouch.allowAllUsers")
    elif users and all("@" in user for user in users):
        converted.set("email_domains", ["*"], "access rule below")
        converted.rules.append({"name": "whiteList", "emails": users})
    elif users:
        _deny_all("vouch.whiteList", "users are named by email", converted)
    elif teams and values.get("oauth.provider") != "github":
        why = "teams exist for the provider type github only"
        _deny_all("vouch.teamWhitelist", why, converted)
    elif teams:
        converted.set("email_domains", ["*"], "vouch.teamWhitelist")
        _convert_teams(teams, converted)
    elif domains:
        both = [entry for domain in domains for entry in (domain, f"*.{domain}")]
        converted.set("email_domains", both, "vouch.domains")
    else:
        converted.set("email_domains", ["*"], "no restriction in vouch-proxy")


def _convert_teams(teams: list[str], converted: Converted) -> None:
    """Set the teams of GitHub; an organization has none, a team is ORG/TEAM."""
    name = "vouch.teamWhitelist"
    pairs = [team.partition("/") for team in teams]
    if len(pairs) == 1 and not pairs[0][1]:
        converted.set("github_org", pairs[0][0], name)
    elif all(slash for _, slash, _ in pairs):
        text = ",".join(f"{org}:{team}" for org, _, team in pairs)
        converted.set("github_team", text, name)
    else:
        _deny_all(
            name, "github_org is one organization, github_team lists teams", converted
        )


def _deny_all(name: str, why: str, converted: Converted) -> None:
    """Deny all requests instead of allowing more users than before."""
    converted.set("email_domains", ["*"], name)
    converted.set("access_rules_default", "deny", f"{name}, until you add a rule")
    note = f"{why}; all access is denied until you add an access rule"
    converted.skip(name, note, access=True)


def _convert_cookies(values: Values, converted: Converted) -> None:
    for name in ("vouch.domains", "vouch.cookie.domain"):
        domains = [one.lstrip(".") for one in entries(values.get(name, []))]
        if domains:
            converted.extend("cookie_domains", domains, name)
            converted.extend(
                "whitelist_domains", [f".{domain}" for domain in domains], name
            )
    name = "vouch.post_logout_redirect_uris"
    hosts = [urlsplit(url).hostname for url in entries(values.get(name, []))]
    if any(hosts):
        converted.extend("whitelist_domains", filter(None, hosts), name)
    _convert_lifetime(values, converted)


def _convert_lifetime(values: Values, converted: Converted) -> None:
    """Set the lifetime to the shorter one of the cookie and the JWT in it."""
    names = ("vouch.cookie.maxAge", "vouch.jwt.maxAge")
    cookie, token = (_minutes(values, name, converted) for name in names)
    token = token or DEFAULT_JWT_AGE
    # A cookie of age 0 ends with the browser's session; the JWT limits it.
    lifetime = min(cookie or token, token)
    converted.set("cookie_expire", f"{lifetime}m", ", ".join(names))


def _minutes(values: Values, name: str, converted: Converted) -> int:
    """Return the value of an option; 0 if it is absent or, with a note, invalid."""
    try:
        return whole_number(values.get(name, 0))
    except ValueError:
        converted.skip(name, NOT_A_NUMBER)
        return 0


def _convert_listener(values: Values, converted: Converted) -> None:
    listen = printable(values.get("vouch.listen", "0.0.0.0"))  # noqa: S104 - as there
    port = printable(values.get("vouch.port", 9090))
    has_tls = "vouch.tls.cert" in values
    if listen.startswith("unix:"):
        path = listen.removeprefix("unix:")
        mode = _octal(values.get("vouch.socket_mode"))
        converted.set("http_address", f"unix://{path}{mode}", "vouch.listen")
    else:
        key = "https_address" if has_tls else "http_address"
        converted.set(key, f"{listen}:{port}", "vouch.listen, vouch.port")
    if has_tls:
        for name in ("cert", "key"):
            text = printable(values.get(f"vouch.tls.{name}", ""))
            converted.set(f"tls_{name}_file", text, f"vouch.tls.{name}")
        if values.get("vouch.tls.profile") == "modern":
            converted.set("tls_min_version", "TLS1.3", "vouch.tls.profile")
    converted.set("reverse_proxy", True, "nginx sends the original request")
    converted.set("upstreams", ["file:///dev/null"], "nginx carries the traffic")


def _octal(mode: object) -> str:
    if isinstance(mode, int):  # read from YAML as an octal number
        return f",mode={mode:04o}"
    return f",mode={mode}" if mode and re.fullmatch("[0-7]+", str(mode)) else ""


def _convert_headers(values: Values, converted: Converted) -> None:
    converted.set("set_xauthrequest", True, "X-Auth-Request-Email for X-Vouch-User")
    if "vouch.headers.accesstoken" in values:
        converted.set(
            "pass_access_token", True, "X-Auth-Request-Access-Token for accesstoken"
        )
    if "vouch.headers.idtoken" in values:
        converted.set(
            "set_authorization_header", True, "Authorization: Bearer for idtoken"
        )
