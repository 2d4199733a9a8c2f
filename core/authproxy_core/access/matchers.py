"""Conditions, compiled: which requests and people something is for."""

from __future__ import annotations

from collections.abc import Callable

from ..identity.headers import claim_values
from ..request.hosts import listed_hosts
from ..request.original import host_name
from ..session import Session
from ..settings.rules import Condition
from .membership import email_domain, folded_email

# None: what a gateway did not tell can't be known.
MatchResult = bool | None


class UserMatcher:
    """The part of a condition that is about a session."""

    def __init__(self, condition: Condition) -> None:
        self._tests: dict[str, Callable[[Session], bool]] = {}
        if condition.groups:
            self._tests["groups"] = _in_groups(frozenset(condition.groups))
        if condition.roles:
            roles = frozenset(f"role:{role}" for role in condition.roles)
            self._tests["roles"] = _in_groups(roles)
        if condition.emails:
            emails = frozenset(map(folded_email, condition.emails))
            self._tests["emails"] = _is_one_of(emails)
        if condition.email_domains:
            self._tests["email_domains"] = _in_domains(condition.email_domains)
        for name, values in condition.claims:
            self._tests[f"claims.{name}"] = _has_claim(name, frozenset(values))
        self._combine = any if condition.any_of and self._tests else all

    def permits(self, session: Session) -> bool:
        """Whether it is for the user of *session*."""
        return self._combine(test(session) for test in self._tests.values())

    def missing(self, session: Session) -> tuple[str, ...]:
        """What the user lacks, by the names that the parts of a condition have."""
        if self.permits(session):
            return ()
        return tuple(name for name, test in self._tests.items() if not test(session))


def _in_groups(groups: frozenset[str]) -> Callable[[Session], bool]:
    return lambda session: not groups.isdisjoint(session.groups)


def _is_one_of(emails: frozenset[str]) -> Callable[[Session], bool]:
    return lambda session: folded_email(session.email) in emails


def _in_domains(domains: tuple[str, ...]) -> Callable[[Session], bool]:
    listed = listed_hosts(domains)

    def test(session: Session) -> bool:
        domain = email_domain(session.email)
        return domain is not None and any(one.matches(domain, "") for one in listed)

    return test


def _has_claim(name: str, values: frozenset[str]) -> Callable[[Session], bool]:
    return lambda session: not values.isdisjoint(claim_values(session, name))


class RequestMatcher:
    """The part of a condition that is about a request."""

    def __init__(self, condition: Condition) -> None:
        hosts = [host.removesuffix(".").lower() for host in condition.hosts]
        self._any_host = not hosts
        self._hosts = frozenset(host for host in hosts if host[:2] != "*.")
        self._below = tuple(host[1:] for host in hosts if host[:2] == "*.")
        self._methods = frozenset(method.encode() for method in condition.methods)
        if b"GET" in self._methods:
            # RFC 9110 §9.3.2: HEAD is GET without the content.
            self._methods |= {b"HEAD"}

    def at_host(self, host: str) -> bool:
        """Whether it is for *host* (``host[:port]`` in any spelling)."""
        if self._any_host:
            return True
        name = host_name(host)
        return name in self._hosts or name.endswith(self._below or "\0")

    def by_method(self, method: bytes | None) -> MatchResult:
        """Whether it is for *method*; None when that is not known and matters.

        Methods are case-sensitive (RFC 9110 §9.1), but not to every program.
        """
        if not self._methods:
            return True
        known = method is not None and method == method.upper()
        return method in self._methods if known else None


class ConditionMatcher:
    """A whole condition; None in the place of a session is nobody."""

    def __init__(self, condition: Condition) -> None:
        self._requests = RequestMatcher(condition)
        self._people = UserMatcher(condition)
        self._anybody = not condition.restricts_users

    def matches(self, host: str, method: bytes, session: Session | None) -> bool:
        """Whether it is for this request and its user."""
        if not (self._requests.at_host(host) and self._requests.by_method(method)):
            return False
        if self._anybody:
            return True
        return session is not None and self._people.permits(session)
