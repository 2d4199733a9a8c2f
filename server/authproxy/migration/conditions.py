"""Conditions on a configuration: which options a difference from oauth2-proxy touches.

A condition names the options that decide, so that reports and docs/differences.md can
list them. Conditions are combined with ``&``, ``|`` and ``~``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from authproxy_core.settings import ClaimSource, HeaderRule, UpstreamSettings
from authproxy_core.settings.auth_bypass import parse_route
from authproxy_core.settings.provider_types import PROVIDER_TYPES

from .configuration import Configuration

ID_TOKEN_TYPES = tuple(  # provider types whose logins have an ID token
    name for name, kind in PROVIDER_TYPES.items() if kind.discovers or kind.issuer
)
NO_UPSTREAM = "file:///dev/null"  # of deployments that respond to auth checks only
DOMAIN = re.compile(r"\.?[^\s/:@?#,*]+")
DOLLAR_DIGIT = re.compile(r"\$[0-9]")


@dataclass(frozen=True)
class Condition:
    """``keys`` are all options that may decide.

    ``causes`` returns those that decide in a configuration, None if the condition does
    not hold.
    """

    keys: tuple[str, ...]
    causes: Callable[[Configuration], tuple[str, ...] | None]

    def holds(self, configuration: Configuration) -> bool:
        return self.causes(configuration) is not None

    def __and__(self, other: Condition) -> Condition:
        def causes(one: Configuration) -> tuple[str, ...] | None:
            first, second = self.causes(one), other.causes(one)
            return None if first is None or second is None else _join(first, second)

        return Condition(_join(self.keys, other.keys), causes)

    def __or__(self, other: Condition) -> Condition:
        def causes(one: Configuration) -> tuple[str, ...] | None:
            first, second = self.causes(one), other.causes(one)
            if first is None or second is None:
                return second if first is None else first
            return _join(first, second)

        return Condition(_join(self.keys, other.keys), causes)

    def __invert__(self) -> Condition:
        return _simple(self.keys, lambda one: not self.holds(one))


def _join(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(first + second))


def _simple(keys: tuple[str, ...], holds: Callable[[Configuration], bool]) -> Condition:
    """Return a condition that all of its options decide."""
    return Condition(keys, lambda one: keys if holds(one) else None)


EVERY = _simple((), lambda _: True)
NEVER = ~EVERY


def given(*keys: str) -> Condition:
    """Hold if one of the options has a value other than "", (), 0 and false."""
    return Condition(
        keys,
        lambda one: tuple(key for key in keys if any(one.values(key))) or None,
    )


def is_on(*keys: str) -> Condition:
    """Hold if all of the switches are on."""
    return _simple(keys, lambda one: all(any(one.values(key)) for key in keys))


def has_value(key: str, value: str) -> Condition:
    """Hold if the option has this value."""
    return _simple((key,), lambda one: value in one.values(key))


def lists(key: str, entry: str) -> Condition:
    """Hold if *entry* is in the list of the option."""
    return _simple((key,), lambda one: entry in one.entries(key))


def mentions(key: str, word: str) -> Condition:
    """Hold if the words of the option contain *word*."""
    return _simple(
        (key,), lambda one: any(word in str(text).split() for text in one.values(key))
    )


def provider_is(*types: str) -> Condition:
    """Hold if one of the providers is of one of these types."""
    return _simple(
        ("provider",),
        lambda one: any(value in types for value in one.values("provider")),
    )


# Upstreams


def _upstream(holds: Callable[[UpstreamSettings], bool], *keys: str) -> Condition:
    return _simple(
        ("upstreams", *keys), lambda one: any(map(holds, one.core.upstreams))
    )


def _is_proxied(upstream: UpstreamSettings) -> bool:
    scheme = urlsplit(upstream.uri).scheme
    return upstream.static_code is None and scheme not in ("", "file")


PROXIES = _upstream(_is_proxied)
KEEPS_HOST = _upstream(
    lambda one: _is_proxied(one) and one.pass_host_header, "pass_host_header"
)
FORWARDS_WEBSOCKETS = _upstream(
    lambda one: _is_proxied(one) and one.proxy_websockets, "proxy_websockets"
)
DROPS_WEBSOCKETS = _upstream(
    lambda one: _is_proxied(one) and not one.proxy_websockets, "proxy_websockets"
)
REWRITES_PATHS = _upstream(lambda one: bool(one.rewrite_target))
SERVES_FILES = _upstream(
    lambda one: one.uri.startswith("file:") and one.uri != NO_UPSTREAM
)


# Headers


def _header(holds: Callable[[HeaderRule], bool], *keys: str) -> Condition:
    return _simple(
        keys,
        lambda one: any(
            map(
                holds,
                (*one.core.inject_request_headers, *one.core.inject_response_headers),
            )
        ),
    )


def _claims(rule: HeaderRule) -> Iterator[str]:
    return (source.claim for source in rule.values if isinstance(source, ClaimSource))


HEADER_OPTIONS = ("pass_user_headers", "set_xauthrequest")
CREDENTIAL_OPTIONS = ("pass_authorization_header", "set_authorization_header")
INJECTS_HEADERS = _header(lambda rule: bool(rule.values), *HEADER_OPTIONS)
INJECTS_GROUPS = _header(lambda rule: "groups" in _claims(rule), *HEADER_OPTIONS)
INJECTS_TIMES = _header(
    lambda rule: bool({"created_at", "expires_on"} & set(_claims(rule)))
)
INJECTS_CREDENTIALS = _header(
    lambda rule: rule.name.lower() in ("authorization", "cookie"), *CREDENTIAL_OPTIONS
)


# Access

BYPASSES_PATHS = given("skip_auth_routes", "skip_auth_regex")
BYPASSES = (
    BYPASSES_PATHS | given("trusted_ips") | is_on("skip_auth_preflight")
)  # requests without a login
CHECKS_MEMBERSHIP = given(
    "github_org",
    "github_team",
    "github_repo",
    "gitlab_groups",
    "gitlab_projects",
    "google_groups",
    "google_group",
    "bitbucket_workspace",
    "bitbucket_team",
    "bitbucket_repository",
)
RESTRICTS_USERS = (
    given("allowed_groups", "allowed_roles", "keycloak_groups")
    | CHECKS_MEMBERSHIP
    | given("authenticated_emails_file")
    | (given("email_domains") & ~lists("email_domains", "*"))
)
LISTS = ("skip_auth_regex", "api_routes", "email_domains")
HAS_EMPTY_ENTRY = _simple(
    ("skip_auth_routes", *LISTS),
    lambda one: (
        not all(parse_route(route)[2] for route in one.entries("skip_auth_routes"))
        or not all(entry for key in LISTS for entry in one.entries(key))
    ),
)
# The options that restrict groups for these types in oauth2-proxy.
IGNORED_GROUPS = given("allowed_groups") & (
    (provider_is("gitlab") & ~given("gitlab_groups"))
    | (provider_is("keycloak") & ~given("keycloak_groups"))
    | (provider_is("google") & ~given("google_groups", "google_group"))
)


# Sessions and logins

STORES_SESSIONS = has_value("session_store_type", "redis")
USES_REDIS = given("redis_username", "redis_connection_url") & STORES_SESSIONS
HAS_UNUSUAL_COOKIE_DOMAIN = _simple(
    ("cookie_domains",),
    lambda one: any(
        not DOMAIN.fullmatch(entry) for entry in one.entries("cookie_domains")
    ),
)
REDEEMS_ELSEWHERE = _simple(
    ("redeem_url", "validate_url", "profile_url"),
    lambda one: any(
        provider.redeem_url
        and not PROVIDER_TYPES[provider.type].discovers
        and any(
            getattr(PROVIDER_TYPES[provider.type], option)
            and not getattr(provider, option)
            for option in ("validate_url", "profile_url")
        )
        for provider in one.core.providers
    ),
)
REQUESTS_AUTHENTICATION = given("acr_values") | _simple(
    ("prompt",),
    lambda one: any(
        parameter.name in ("acr_values", "max_age")
        or (parameter.name == "prompt" and "login" in parameter.values)
        for provider in one.core.providers
        for parameter in provider.login_parameters
    ),
)


# Listeners and sources

SERVES_TLS = _simple(
    ("tls_cert_file",),
    lambda one: any(listener.tls for listener in one.settings.listeners),
)
LISTENS_ON_UNIX_SOCKET = _simple(
    ("http_address",),
    lambda one: any(listener.path for listener in one.settings.listeners),
)
HAS_ALPHA_FILE = _simple((), lambda one: bool(one.alpha_text))
HAS_DOLLAR_DIGITS = _simple((), lambda one: bool(DOLLAR_DIGIT.search(one.alpha_text)))
HAS_UNKNOWN_VARIABLE = _simple((), lambda one: bool(one.unknown_variables))
HAS_POSITIONAL_ARGUMENT = _simple((), lambda one: one.has_positional_arguments)
