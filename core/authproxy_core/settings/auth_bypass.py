"""Settings of the gate: what passes without a login, and what never gets a page."""

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
    """Rules about requests, whoever sends them.

    ``skip_auth_routes`` are ``METHOD=REGEX``, ``METHOD!=REGEX`` or ``REGEX`` and
    ``skip_auth_regex`` plain ones, all in Go's syntax and searched in the decoded path.
    ``trusted_ips`` are addresses or networks of clients. ``api_routes`` are searched in
    path and query. With ``force_https`` plain requests are sent to ``https_port``.
    """

    skip_auth_routes: tuple[str, ...] = ()
    skip_auth_regex: tuple[str, ...] = ()
    skip_auth_preflight: bool = False
    trusted_ips: tuple[str, ...] = ()
    api_routes: tuple[str, ...] = ()
    force_https: bool = False
    https_port: Annotated[int, Meta(ge=1, le=65535)] = 443

    @property
    def skips(self) -> bool:
        """Whether there is any way past the login."""
        return bool(
            self.skip_auth_routes
            or self.skip_auth_regex
            or self.skip_auth_preflight
            or self.trusted_ips
        )


class SkipRule(Struct, frozen=True):
    """Which requests pass: of ``method`` ("": any), and whose path the pattern fits.

    A ``negated`` rule is for the paths that it does not fit.
    """

    method: bytes
    pattern: Pattern
    negated: bool

    def matches(self, method: bytes, path: str) -> bool:
        """Whether a request may pass by this rule."""
        if self.method and self.method != method:
            return False
        return (self.pattern.search(path) is None) == self.negated


def skip_rules(settings: AuthBypassSettings) -> tuple[SkipRule, ...]:
    """The rules of valid *settings*, those of ``skip_auth_regex`` first."""
    return (
        *(
            SkipRule(b"", compile_pattern(text), False)
            for text in settings.skip_auth_regex
        ),
        *(
            SkipRule(method.upper().encode(), compile_pattern(pattern), negated)
            for method, negated, pattern in map(parse_route, settings.skip_auth_routes)
        ),
    )


def parse_route(route: str) -> tuple[str, bool, str]:
    """Method ("": any), negation and pattern of an entry of ``skip_auth_routes``."""
    separator = _SEPARATOR.search(route)
    if separator is None:
        return "", False, route
    negated = separator[0] == "!="
    return route[: separator.start()], negated, route[separator.end() :]


def gate_problems(settings: AuthBypassSettings) -> list[str]:
    """What is wrong with *settings*, one line each, beginning with the option."""
    return [
        *_patterns("api_routes", settings.api_routes),
        *_patterns("skip_auth_regex", settings.skip_auth_regex),
        *_patterns(
            "skip_auth_routes",
            (parse_route(one)[2] for one in settings.skip_auth_routes),
        ),
        *address_problems("trusted_ips", settings.trusted_ips),
    ]


def _patterns(option: str, patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        try:
            compile_pattern(pattern)
        except ValueError as error:
            yield (
                f"{option}: got {pattern!r}, expected a regular expression in Go's "
                f"syntax: {error}"
            )


def address_problems(option: str, entries: Iterable[str]) -> Iterator[str]:
    """A line for each of *entries* that is neither an address nor a network."""
    for entry in entries:
        try:
            ipaddress.ip_network(entry)
        except ValueError:
            yield (
                f"{option}: got {entry!r}, expected an address or a network "
                "without host bits, such as 10.0.0.0/8"
            )


def auth_bypass_warnings(settings: AuthBypassSettings) -> Iterator[tuple[str, str]]:
    """Options, and what an operator should know about a rule in them."""
    for pattern in settings.skip_auth_regex:
        if not _is_anchored(pattern):
            yield "skip_auth_regex", _LOOSE.format(pattern)
    for route in settings.skip_auth_routes:
        for text in _route_advice(route):
            yield "skip_auth_routes", text


_LOOSE = (
    "{!r} is not anchored: it lets every path pass that it fits in the middle of; "
    "begin it with ^"
)


def _route_advice(route: str) -> Iterator[str]:
    method, negated, pattern = parse_route(route)
    # A negated rule that fits in more places lets fewer requests pass.
    if not negated and not _is_anchored(pattern):
        yield _LOOSE.format(route)
    if method and not is_token(method.encode("utf-8", "replace")):
        yield (
            f"{route!r} lets nothing pass: what stands before the first '=' is the "
            f"method; write ={route}"
        )
    if not negated and "!=" in pattern:
        yield (
            f"{route!r} is not negated here, as it is in oauth2-proxy: '!=' stands in "
            "the pattern"
        )


def _is_anchored(pattern: str) -> bool:
    r"""Whether every alternative of *pattern* surely begins at the path's beginning.

    Only what is plain to see counts: ``^…`` or ``\A…`` without ``|`` outside of
    parentheses, or one group around all of it behind the anchor.
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
