"""Settings of access rules, and of what upstreams are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from ..encoding import host_is_valid, is_token
from ..go_regex import compile_pattern
from .validation import ValidatedStruct

Policy: TypeAlias = Literal["login", "public", "deny"]

# Claims that are secrets: nobody should write them into a configuration.
TOKENS = frozenset({"access_token", "id_token", "refresh_token"})


class Condition(ValidatedStruct, frozen=True, kw_only=True):
    """Requests and people: everything that is given must hold, one of each list.

    ``hosts`` are names without port, ``*.example.com`` means all below. ``methods``
    with GET include HEAD. ``roles`` are the groups called ``role:…``. ``email_domains``
    are ``example.com`` or ``*.example.com``, the name and all below. ``claims`` are pairs of a
    name and values. With ``any_of`` one of the kinds that are about people is enough.
    """

    hosts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    email_domains: tuple[str, ...] = ()
    claims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    any_of: bool = False

    @property
    def restricts_users(self) -> bool:
        """Whether it asks anything of a session."""
        return bool(
            self.groups
            or self.roles
            or self.emails
            or self.email_domains
            or self.claims
        )


class AccessRule(ValidatedStruct, frozen=True, kw_only=True):
    """What a place demands: a login (and what ``when`` says of people), or nothing.

    ``paths`` that end in a slash mean what is below as well; ``patterns`` are regular
    expressions in Go's syntax, fitted from the path's beginning. Neither: any path.
    """

    name: str = ""
    paths: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    when: Condition = Condition()
    policy: Policy = "login"


class RuleSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Rules in the order of asking; ``default`` is for what none of them is about."""

    rules: tuple[AccessRule, ...] = ()
    default: Literal["login", "deny"] = "login"

    @property
    def any(self) -> bool:
        """Whether they make any difference."""
        return bool(self.rules) or self.default == "deny"


def claims_of(conditions: Iterable[Condition]) -> set[str]:
    """The names of the claims that *conditions* ask for."""
    return {name for condition in conditions for name, _ in condition.claims}


def rule_problems(settings: RuleSettings) -> list[str]:
    """What is wrong with the rules, one line each."""
    return [
        f"access_rules: {label(rule, number)}: {text}"
        for number, rule in enumerate(settings.rules, 1)
        for text in _rule_problems(rule)
    ]


def label(rule: AccessRule, number: int) -> str:
    """How a rule is called in logs and messages."""
    return f"rule {number} ({rule.name})" if rule.name else f"rule {number}"


def _rule_problems(rule: AccessRule) -> Iterator[str]:
    if rule.policy != "login" and rule.when.restricts_users:
        yield f"the policy {rule.policy!r} can't be for some people only"
    for path in rule.paths:
        if not path.startswith("/") or set(path) & set("?#;\\%") or "//" in path:
            yield (
                f"got the path {path!r}, expected one as it looks decoded, such as "
                "'/admin/' (that and all below) or '/admin' (that alone)"
            )
    for pattern in rule.patterns:
        try:
            compile_pattern(pattern)
        except ValueError as error:
            yield f"got the pattern {pattern!r}, expected Go's syntax: {error}"
    yield from condition_problems(rule.when)


def condition_problems(condition: Condition) -> Iterator[str]:
    """What is wrong with a condition, one line each."""
    for host in condition.hosts:
        name = host.removeprefix("*.")
        if not host_is_valid(name) or ":" in name.rpartition("]")[2]:
            yield f"got the host {host!r}, expected a name without port, or '*.NAME'"
    for method in condition.methods:
        if not is_token(method.encode()) or method != method.upper():
            yield f"got the method {method!r}, expected one such as 'GET'"
    for domain in condition.email_domains:
        if not host_is_valid(domain.removeprefix("*.")):
            yield f"got the domain {domain!r}, expected 'example.com' or '*.example.com'"
    for name, _ in condition.claims:
        if name in TOKENS or not name:
            yield f"got the claim {name!r}, expected one that is no token"
    texts = (*condition.groups, *condition.roles, *condition.emails)
    if not all(texts):
        yield "an empty group, role or address means nobody"
