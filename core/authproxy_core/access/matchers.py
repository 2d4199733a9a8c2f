"""Compiled conditions: match requests and users."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..identity.headers import claim_values
from ..request.hosts import ListedDomains
from ..request.original import host_name
from ..session import Session
from ..settings.rules import Condition
from .membership import email_domain, folded_email

# None: unknown, because the gateway did not send that part of the original request.
MatchResult: TypeAlias = bool | None


class UserMatcher:
    """The criteria of a condition that a session must satisfy."""

    def __init__(self, condition: Condition) -> None:
        self._criteria: dict[str, Callable[[Session], bool]] = {}
        if condition.groups:
            self._criteria["groups"] = _in_groups(frozenset(condition.groups))
        if condition.roles:
            roles = frozenset(f"role:{role}" for role in condition.roles)
            self._criteria["roles"] = _in_groups(roles)
        if condition.emails:
            emails = frozenset(map(folded_email, condition.emails))
            self._criteria["emails"] = _has_email(emails)
        if condition.email_domains:
            self._criteria["email_domains"] = _in_domains(condition.email_domains)
        for name, values in condition.claims:
            self._criteria[f"claims.{name}"] = _has_claim(name, frozenset(values))
        self._combine = any if condition.any_of and self._criteria else all

    def permits(self, session: Session) -> bool:
        """Return whether the user of *session* satisfies the criteria."""
        return self._combine(test(session) for test in self._criteria.values())

    def missing(self, session: Session) -> tuple[str, ...]:
        """Return the criteria that deny *session*, by their keys in the configuration."""
        if self.permits(session):
            return ()
        return tuple(name for name, test in self._criteria.items() if not test(session))


def _in_groups(groups: frozenset[str]) -> Callable[[Session], bool]:
    return lambda session: not groups.isdisjoint(session.groups)


def _has_email(emails: frozenset[str]) -> Callable[[Session], bool]:
    return lambda session: folded_email(session.email) in emails


def _in_domains(domains: tuple[str, ...]) -> Callable[[Session], bool]:
    listed = ListedDomains(domains)
    return lambda session: email_domain(session.email) in listed


def _has_claim(name: str, values: frozenset[str]) -> Callable[[Session], bool]:
    return lambda session: not values.isdisjoint(claim_values(session, name))


class RequestMatcher:
    """The criteria of a condition that a request must satisfy."""

    def __init__(self, condition: Condition) -> None:
        hosts = [host.removesuffix(".").lower() for host in condition.hosts]
        self._any_host = not hosts
        self._hosts = frozenset(host for host in hosts if host[:2] != "*.")
        self._suffixes = tuple(host[1:] for host in hosts if host[:2] == "*.")
        self._methods = frozenset(method.encode() for method in condition.methods)
        if b"GET" in self._methods:
            # RFC 9110 §9.3.2: HEAD is GET without the content.
            self._methods |= {b"HEAD"}

    def matches_host(self, host: str | None) -> MatchResult:
        """Return whether *host* (``host[:port]`` in any spelling) matches.

        The result is None if the host is unknown.
        """
        if self._any_host:
            return True
        if host is None:
            return None
        name = host_name(host)
        return name in self._hosts or name.endswith(self._suffixes or "\0")

    def matches_method(self, method: bytes | None) -> MatchResult:
        """Return whether *method* matches, None if that is unknown.

        Methods are case-sensitive (RFC 9110 §9.1), but some servers ignore the case.
        """
        if not self._methods:
            return True
        known = method is not None and method == method.upper()
        return method in self._methods if known else None


class ConditionMatcher:
    """A compiled condition. A session of None is an unauthenticated request."""

    def __init__(self, condition: Condition) -> None:
        self._requests = RequestMatcher(condition)
        self._users = UserMatcher(condition)
        self._any_user = not condition.restricts_users

    def matches(self, host: str, method: bytes, session: Session | None) -> MatchResult:
        """Return whether the request and its user satisfy the condition.

        The result is None if that depends on a method in lower case.
        """
        if not self._requests.matches_host(host):
            return False
        if not self._any_user and (session is None or not self._users.permits(session)):
            return False
        return self._requests.matches_method(method)
