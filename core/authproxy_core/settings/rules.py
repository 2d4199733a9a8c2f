"""Settings of access rules and of the conditions of rules and upstreams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from ..encoding import is_host_name, is_token
from ..go_regex import compile_pattern
from .validation import ValidatedStruct

Policy: TypeAlias = Literal["login", "public", "deny"]

# Claims that are secrets, which do not belong into a configuration.
TOKENS = frozenset({"access_token", "id_token", "refresh_token"})


class Condition(ValidatedStruct, frozen=True, kw_only=True):
    """Criteria for requests and users: all must be met, by one item of each list.

    ``hosts`` are names without port; ``*.example.com`` matches all subdomains.
    ``methods`` with GET include HEAD. ``roles`` are the groups ``role:…``.
    ``email_domains`` are ``example.com`` or ``*.example.com``, which matches the name and
    its subdomains. ``claims`` are pairs of a name and its allowed values. With
    ``any_of``, one kind of the user criteria is enough.
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
        """Whether the condition has criteria for users."""
        return bool(
            self.groups
            or self.roles
            or self.emails
            or self.email_domains
            or self.claims
        )


class AccessRule(ValidatedStruct, frozen=True, kw_only=True):
    """The policy for requests; ``login`` also requires the user criteria of ``when``.

    ``paths`` that end in a slash match as prefixes; ``patterns`` are regular expressions
    in Go's syntax, matched at the start of the path. Without either, any path matches.
    """

    name: str = ""
    paths: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    when: Condition = Condition()
    policy: Policy = "login"


class RuleSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Rules in the order of evaluation; ``default`` applies if none matches."""

    rules: tuple[AccessRule, ...] = ()
    default: Literal["login", "deny"] = "login"

    @property
    def is_active(self) -> bool:
        """Whether the rules differ from requiring a login everywhere."""
        return bool(self.rules) or self.default == "deny"


def claims_of(conditions: Iterable[Condition]) -> set[str]:
    """Return the names of the claims in *conditions*."""
    return {name for condition in conditions for name, _ in condition.claims}


def rule_problems(settings: RuleSettings) -> list[str]:
    """Return the problems of the rules, one line each."""
    return [
        f"access_rules: {label(rule, number)}: {text}"
        for number, rule in enumerate(settings.rules, 1)
        for text in _rule_problems(rule)
    ]


def rule_warnings(settings: RuleSettings) -> Iterator[str]:
    """Yield a warning if a request for another host skips the rules with hosts."""
    skipped = [
        label(rule, number)
        for number, rule in enumerate(settings.rules, 1)
        if rule.when.hosts and (rule.policy == "deny" or rule.when.restricts_users)
    ]
    for_any_host = any(
        not (rule.when.hosts or rule.when.methods or rule.patterns)
        and (not rule.paths or "/" in rule.paths)
        for rule in settings.rules
    )
    if skipped and settings.default != "deny" and not for_any_host:
        yield (
            "a request with another Host than the listed ones skips "
            f"{', '.join(skipped)} and needs only a login; set access_rules_default to "
            "'deny', or add a last rule without hosts"
        )


def label(rule: AccessRule, number: int) -> str:
    """Return the name of a rule in logs and messages."""
    return f"rule {number} ({rule.name})" if rule.name else f"rule {number}"


def _rule_problems(rule: AccessRule) -> Iterator[str]:
    if rule.policy != "login" and rule.when.restricts_users:
        yield f"the policy {rule.policy!r} can't be used with criteria for users"
    for path in rule.paths:
        if not path.startswith("/") or set(path) & set("?#;\\%") or "//" in path:
            yield (
                f"got the path {path!r}, expected a decoded path such as '/admin/' (a "
                "prefix) or '/admin' (exact)"
            )
    for pattern in rule.patterns:
        if not pattern:
            yield "got an empty pattern, which matches every path; remove it"
        try:
            compile_pattern(pattern)
            # As rules use it: longer, and broken by an unclosed \Q.
            compile_pattern(rf"(?i)\A(?:{pattern})")
        except ValueError as error:
            yield f"got the pattern {pattern!r}, expected Go's syntax: {error}"
    yield from condition_problems(rule.when)


def condition_problems(condition: Condition) -> Iterator[str]:
    """Yield the problems of a condition, one line each."""
    for host in condition.hosts:
        name = host.removeprefix("*.")
        if not is_host_name(name) or ":" in name.rpartition("]")[2]:
            yield f"got the host {host!r}, expected a name without port, or '*.NAME'"
    for method in condition.methods:
        if not is_token(method.encode()) or method != method.upper():
            yield f"got the method {method!r}, expected one such as 'GET'"
    for domain in condition.email_domains:
        if not is_host_name(domain.removeprefix("*.")):
            yield f"got the domain {domain!r}, expected 'example.com' or '*.example.com'"
    for name, _ in condition.claims:
        if name in TOKENS or not name:
            yield f"got the claim {name!r}, expected one other than a token"
    texts = (*condition.groups, *condition.roles, *condition.emails)
    if not all(texts):
        yield "got an empty group, role or email, which matches no user"
