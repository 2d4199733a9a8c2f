"""Convert the configuration of traefik-forward-auth: INI file, variables or flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..config.read.resolved import ConfigError
from .configuration import NamedText
from .converted import (
    Converted,
    Setting,
    by_normalized_name,
    entries,
    is_true,
    normalized,
    printable,
    whole_number,
)
from .files import unquote
from .traefik_rules import parse_matcher

PROGRAM = "traefik-forward-auth"
# Of a line without the spaces around it.
ASSIGNMENT = re.compile(r"(?:export\s+)?(?:--)?([A-Za-z][\w.-]*)(?:\s*=\s*|\s+)(.*)")
RULE = re.compile(r"rule\.([^.]+)\.(\w+)")
COMMENTS = ("#", ";", "[")
NO_GENERIC = "it has no ID token; use a provider of OpenID Connect"
SEVERAL_PROVIDERS = "several providers need an alpha file"
DEPRECATED = {  # older name to its option
    "cookie-domains": "cookie-domain",
    "cookie-secret": "secret",
    "client-id": "providers.google.client-id",
    "client-secret": "providers.google.client-secret",
    "prompt": "providers.google.prompt",
}
# Options with one counterpart.
DIRECT: Mapping[str, tuple[str, Callable[[Any], Setting]]] = {
    "cookie-name": ("cookie_name", printable),
    "url-path": ("proxy_prefix", lambda value: "/" + printable(value).strip("/")),
    "log-format": (
        "logging_format",
        lambda value: "json" if value == "json" else "text",
    ),
}
# Options that are converted together with others.
COMBINED = (
    "auth-host", "cookie-domain", "insecure-cookie", "cookie-secure", "default-action",
    "default-provider", "domain", "lifetime", "logout-redirect",
    "match-whitelist-or-domain", "whitelist", "port", "secret",
    "providers.google.client-id", "providers.google.client-secret",
    "providers.google.prompt", "providers.oidc.issuer-url", "providers.oidc.client-id",
    "providers.oidc.client-secret", "providers.generic-oauth.client-id",
    "providers.generic-oauth.client-secret",
)  # fmt: skip
UNMAPPED: Mapping[str, str] = {
    "log-level": "there are no log levels; standard_logging, auth_logging and "
    "request_logging switch the logs",
    "config": "name the file as an argument",
    "csrf-cookie-name": "the login cookie is named after cookie_name",
    "providers.oidc.resource": "set it in loginURLParameters of an alpha file",
    **{
        f"providers.generic-oauth.{name}": NO_GENERIC
        for name in (
            "auth-url", "token-url", "user-url", "scope", "token-style", "resource",
        )
    },
}  # fmt: skip
KNOWN = (*DIRECT, *COMBINED, *DEPRECATED, *UNMAPPED)
BY_NAME = by_normalized_name(KNOWN)
DEFAULT_LIFETIME = 43200  # seconds
DEFAULT_PORT = 4181


class Options(NamedTuple):
    """The values of each option, and the parameters of each rule."""

    values: dict[str, list[str]]
    rules: dict[str, dict[str, str]]

    def last(self, name: str, default: str = "") -> str:
        return self.values.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        return [one for value in self.values.get(name, []) for one in entries(value)]


class Restriction(NamedTuple):
    """Allowed users, and whether an email or a domain is enough."""

    emails: list[str]
    domains: list[str]
    any_of: bool

    def keys(self) -> dict[str, Any]:
        """Return the keys of an access rule; without any, all users are allowed."""
        if self.emails and self.domains and self.any_of:
            return {
                "emails": self.emails,
                "email_domains": self.domains,
                "any_of": True,
            }
        if self.emails:
            return {"emails": self.emails}
        return {"email_domains": self.domains} if self.domains else {}


def convert_forward_auth(
    files: Sequence[NamedText], flags: Sequence[str] = ()
) -> Converted:
    """Convert the files and flags; raises `ConfigError` if there is no option."""
    converted = Converted(PROGRAM)
    options = _read(files, flags, converted)
    if not options.values and not options.rules:
        names = ", ".join(file.name for file in files)
        raise ConfigError((f"{names}: expected options of {PROGRAM}",))
    for name, (key, parse) in DIRECT.items():
        if name in options.values:
            converted.set(key, parse(options.last(name)), name)
    for name, why in UNMAPPED.items():
        if name in options.values:
            converted.skip(name, why)
    _convert_provider(options, converted)
    _convert_cookies(options, converted)
    _convert_gateway(options, converted)
    _convert_access(options, converted)
    return converted


def _read(
    files: Sequence[NamedText], flags: Sequence[str], converted: Converted
) -> Options:
    options = Options({}, {})
    for name, value in _pairs(files, flags):
        rule = RULE.fullmatch(name)
        known = BY_NAME.get(normalized(name))
        if rule:
            options.rules.setdefault(rule[1], {})[rule[2]] = value
        elif known is None:
            converted.skip_unknown(name, KNOWN)
        else:
            name = DEPRECATED.get(known, known)
            options.values.setdefault(name, []).append(printable(value))
    return options


def _pairs(
    files: Sequence[NamedText], flags: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield the options of lines ``name = value`` and of flags, with their values."""
    for file in files:
        for line in file.text.splitlines():
            text = line.strip()
            match = ASSIGNMENT.fullmatch(text)
            if match and not text.startswith(COMMENTS):
                yield match[1], unquote(match[2])
    rest = iter(flags)
    for flag in rest:
        name, equals, value = flag.removeprefix("--").partition("=")
        if not equals and name not in ("insecure-cookie", "match-whitelist-or-domain"):
            value = next(rest, "")
        yield name, unquote(value)


def _convert_provider(options: Options, converted: Converted) -> None:
    kind = options.last("default-provider", "google")
    if kind in ("google", "oidc"):
        converted.set("provider", kind, "default-provider")
    else:
        converted.set_no_provider(kind, "default-provider", NO_GENERIC)
    for name, key in (("issuer-url", "oidc_issuer_url"), ("client-id", "client_id")):
        full = f"providers.{kind}.{name}"
        if full in options.values:
            converted.set(key, options.last(full), full)
    secret = f"providers.{kind}.client-secret"
    if secret in options.values:
        converted.set_secret("client_secret", secret)
    if kind == "google":
        name = "providers.google.prompt"
        converted.set("prompt", options.last(name, "select_account"), name)
    for name in options.values:
        is_other = name.startswith("providers.") and name.split(".")[1] != kind
        if is_other and name not in UNMAPPED:
            converted.skip(name, SEVERAL_PROVIDERS)


def _convert_cookies(options: Options, converted: Converted) -> None:
    domains = [domain.lstrip(".") for domain in options.all("cookie-domain")]
    if domains:
        converted.extend("cookie_domains", domains, "cookie-domain")
        allowed = [f".{domain}" for domain in domains]
        converted.extend("whitelist_domains", allowed, "cookie-domain")
    name = "logout-redirect"
    host = urlsplit(options.last(name)).hostname
    if host:
        converted.extend("whitelist_domains", [host], name)
        converted.skip(name, "the link to sign_out names the URL: ?rd=URL")
    if "insecure-cookie" in options.values:
        insecure = is_true(options.last("insecure-cookie"))
        converted.set("cookie_secure", not insecure, "insecure-cookie")
    elif "cookie-secure" in options.values:
        secure = is_true(options.last("cookie-secure"))
        converted.set("cookie_secure", secure, "cookie-secure")
    try:
        lifetime = whole_number(options.last("lifetime", str(DEFAULT_LIFETIME)))
    except ValueError:
        lifetime = 0
    if not lifetime:
        converted.skip("lifetime", "expected a positive number of seconds")
    converted.set("cookie_expire", f"{lifetime or DEFAULT_LIFETIME}s", "lifetime")


def _convert_gateway(options: Options, converted: Converted) -> None:
    port = options.last("port", str(DEFAULT_PORT))
    converted.set("http_address", f"0.0.0.0:{port}", "port")
    if "auth-host" in options.values:
        prefix = options.last("url-path", "/oauth2").strip("/")
        url = f"https://{options.last('auth-host')}/{prefix}/callback"
        converted.set("redirect_url", url, "auth-host; register it")
    converted.set("reverse_proxy", True, "Traefik sends the original request")
    converted.set("upstreams", ["file:///dev/null"], "Traefik carries the traffic")
    origin = "X-Auth-Request-Email for X-Forwarded-User"
    converted.set("set_xauthrequest", True, origin)


def _convert_access(options: Options, converted: Converted) -> None:
    """Convert users and rules; what cannot be converted never allows more."""
    any_of = "match-whitelist-or-domain" in options.values and is_true(
        options.last("match-whitelist-or-domain")
    )
    general = Restriction(options.all("whitelist"), options.all("domain"), any_of)
    has_own_users = any(
        {"whitelist", "domains"} & set(one) for one in options.rules.values()
    )
    if general.domains and not general.emails and not has_own_users:
        converted.set("email_domains", general.domains, "domain")
        general = Restriction([], [], any_of)
    else:
        converted.set("email_domains", ["*"], "access rules below")
    is_complete = True
    for name, parameters in options.rules.items():
        if not _convert_rule(name, parameters, general, options, converted):
            is_complete = False
    _convert_default(options, general, converted)
    if not is_complete:
        _deny_all(converted)


def _convert_rule(
    name: str,
    parameters: Mapping[str, str],
    general: Restriction,
    options: Options,
    converted: Converted,
) -> bool:
    """Add the rule; returns whether the other rules allow no more without it."""
    is_public = parameters.get("action", "auth") == "allow"
    own = Restriction(
        entries(parameters.get("whitelist", "")),
        entries(parameters.get("domains", "")),
        general.any_of,
    )
    default = options.last("default-provider", "google")
    if parameters.get("provider", default) != default:
        note = f"rule.{name}.provider"
        converted.skip(note, SEVERAL_PROVIDERS, access=True)
    try:
        keys = parse_matcher(parameters.get("rule", ""))
    except ValueError as error:
        converted.skip(f"rule.{name}", str(error), access=True)
        return is_public
    users = (own if own.emails or own.domains else general).keys()
    policy: dict[str, Any] = {"policy": "public"} if is_public else users
    converted.rules.append({"name": name, **keys, **(policy or {"policy": "login"})})
    return True


def _convert_default(
    options: Options, general: Restriction, converted: Converted
) -> None:
    """Add the policy of requests that no rule matches."""
    if options.last("default-action", "auth") == "allow":
        converted.rules.append(
            {"name": "default", "patterns": ["/"], "policy": "public"}
        )
    elif users := general.keys():
        converted.rules.append({"name": "default", **users})


def _deny_all(converted: Converted) -> None:
    """Deny all requests, because a later rule may allow those of a missing one."""
    converted.rules.insert(0, {"name": "incomplete", "policy": "deny"})
    why = (
        "a rule that restricts access could not be converted, so the first access rule, "
        "incomplete, denies all requests; remove it after adding the rules named above"
    )
    converted.skip("access_rules", why, access=True)
