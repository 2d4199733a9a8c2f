"""Settings of the auth bypass, API routes and the HTTPS redirect."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Annotated

from msgspec import Meta, Struct

from ..encoding import is_token
from ..go_regex import Pattern, compile_pattern
from .validation import ValidatedStruct

_SEPARATOR = re.compile(r"!?=")


class AuthBypassSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Options that depend on the request only, not on its session.

    ``skip_auth_routes`` are ``METHOD=REGEX``, ``METHOD!=REGEX`` or ``REGEX``, and
    ``skip_auth_regex`` are ``REGEX``, all in Go's syntax and searched in the decoded
    path. ``trusted_ips`` are addresses or networks of clients. ``api_routes`` are
    searched in path and query. ``force_https`` redirects http requests to
    ``https_port``.
    """

    skip_auth_routes: tuple[str, ...] = ()
    skip_auth_regex: tuple[str, ...] = ()
    skip_auth_preflight: bool = False
    trusted_ips: tuple[str, ...] = ()
    api_routes: tuple[str, ...] = ()
    force_https: bool = False
    https_port: Annotated[int, Meta(ge=1, le=65535)] = 443

    @property
    def is_active(self) -> bool:
        """Whether a request may need no login."""
        return bool(
            self.skip_auth_routes
            or self.skip_auth_regex
            or self.skip_auth_preflight
            or self.trusted_ips
        )


class SkipRule(Struct, frozen=True):
    """A rule for requests with ``method`` (b"": any) whose path the pattern matches.

    A ``negated`` rule is for paths that the pattern does not match. ``text`` is the
    pattern as written.
    """

    method: bytes
    pattern: Pattern
    negated: bool
    text: str

    def matches(self, method: bytes, path: str) -> bool:
        """Return whether a request with a decoded *path* needs no login."""
        if self.method and self.method != method:
            return False
        return (self.pattern.search(path) is None) == self.negated


def skip_rules(settings: AuthBypassSettings) -> tuple[SkipRule, ...]:
    """Compile the rules of valid *settings*, those of ``skip_auth_regex`` first."""
    return (
        *(
            SkipRule(b"", compile_pattern(text), False, text)
            for text in settings.skip_auth_regex
        ),
        *(
            SkipRule(method.upper().encode(), compile_pattern(text), negated, text)
            for method, negated, text in map(parse_route, settings.skip_auth_routes)
        ),
    )


def parse_route(route: str) -> tuple[str, bool, str]:
    """Split an entry of ``skip_auth_routes``: method ("": any), is negated, pattern."""
    separator = _SEPARATOR.search(route)
    if separator is None:
        return "", False, route
    negated = separator[0] == "!="
    return route[: separator.start()], negated, route[separator.end() :]


def auth_bypass_problems(settings: AuthBypassSettings) -> list[str]:
    """Return the problems of *settings*, one line each, starting with the option."""
    return [
        *_pattern_problems("api_routes", settings.api_routes),
        *_pattern_problems("skip_auth_regex", settings.skip_auth_regex),
        *_pattern_problems(
            "skip_auth_routes",
            (parse_route(route)[2] for route in settings.skip_auth_routes),
        ),
        *address_problems("trusted_ips", settings.trusted_ips),
    ]


def _pattern_problems(option: str, patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        if not pattern:
            yield (
                f"{option}: got an empty pattern, which matches every path; remove the "
                "entry or a surplus comma, or write '.*'"
            )
        try:
            compile_pattern(pattern)
        except ValueError as error:
            yield (
                f"{option}: got {pattern!r}, expected a regular expression in Go's "
                f"syntax: {error}"
            )


def address_problems(option: str, entries: Iterable[str]) -> Iterator[str]:
    """Yield a line for each of *entries* that is neither an address nor a network."""
    for entry in entries:
        try:
            ipaddress.ip_network(entry)
        except ValueError:
            yield (
                f"{option}: got {entry!r}, expected an address or a network "
                "without host bits, such as 10.0.0.0/8"
            )


def auth_bypass_warnings(settings: AuthBypassSettings) -> Iterator[tuple[str, str]]:
    """Yield option and warning for each rule that may not do what it looks like."""
    for pattern in settings.skip_auth_regex:
        if not _is_anchored(pattern):
            yield "skip_auth_regex", _UNANCHORED.format(pattern)
    for route in settings.skip_auth_routes:
        for text in _route_warnings(route):
            yield "skip_auth_routes", text


_UNANCHORED = (
    "{!r} is not anchored: it also matches in the middle of a path; start it with ^"
)


def _route_warnings(route: str) -> Iterator[str]:
    method, negated, pattern = parse_route(route)
    # A negated rule whose pattern matches more paths exempts fewer requests.
    if not negated and not _is_anchored(pattern):
        yield _UNANCHORED.format(route)
    if method and not is_token(method.encode("utf-8", "replace")):
        yield (
            f"{route!r} matches no request: the text before the first '=' is the "
            f"method; write ={route}"
        )
    if not negated and "!=" in pattern:
        yield (
            f"{route!r} is not negated, unlike in oauth2-proxy: '!=' is part of the "
            "pattern"
        )


def _is_anchored(pattern: str) -> bool:
    r"""Return whether every alternative of *pattern* is anchored at the path's start.

    Recognizes ``^…`` and ``\A…`` without ``|`` outside of parentheses; other anchored
    patterns give False.
    """
    text = re.sub(r"^\(\?[a-zA-Z]+\)", "", pattern)
    text = re.sub(r"\\.", "x", text if text[:2] != r"\A" else f"^{text[2:]}")
    if not text.startswith("^"):
        return False
    depth = 0
    for letter in re.sub(r"\[[^\]]*\]", "x", text):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            return False
    return True
