"""Authorization of sessions: email rules and query constraints of auth checks."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from ..bounded_cache import BoundedCache
from ..request.forms import constraints, parameter_names
from ..request.hosts import ListedDomains
from ..session import Session
from ..settings.root import Settings

CONSTRAINTS = ("allowed_groups", "allowed_emails", "allowed_email_domains")
_NO_LETTERS = re.compile(r"[^a-z]+")
_CONSTRAINED = ("group", "email", "domain")
MAX_CACHED_QUERIES = 256
MAX_CACHED_QUERY_BYTES = 4096  # bytes of a query worth caching


class EmailRule:
    """The email addresses that are allowed: by domain, or from a list."""

    def __init__(self, settings: Settings) -> None:
        domains = [domain.lower() for domain in settings.email_domains]
        self._any_email = "*" in domains
        self._exact = frozenset(
            domain for domain in domains if not domain.startswith(("*", "."))
        )
        self._suffixes = tuple(
            domain.removeprefix("*")
            for domain in domains
            if domain.startswith(("*", "."))
        )
        self._listed = frozenset(
            folded_email(address) for address in settings.authenticated_emails or ()
        )

    def permits(self, email: str) -> bool:
        """Return whether *email* is allowed; an empty one never is."""
        if not email:
            return False
        if self._any_email:
            return True
        domain = email_domain(email)
        if domain is None:
            return False
        return (
            domain in self._exact
            or any(
                domain.endswith(suffix) and len(domain) > len(suffix)
                for suffix in self._suffixes
            )
            or folded_email(email) in self._listed
        )


def folded_email(email: str) -> str:
    """Return *email* in lower case, if that cannot merge two different addresses."""
    return email.lower() if email.isascii() else email


def email_domain(email: str) -> str | None:
    """Return the lower-case domain of an address with exactly one ``@``, else None.

    Spaces, control characters, quotes and a domain that is not ASCII give None, because
    parsers disagree about such addresses.
    """
    local, at, domain = email.partition("@")
    if not at or not local or not domain or "@" in domain:
        return None
    if not email.isprintable() or set(email) & set(' "\\,;:<>()[]%'):
        return None
    if not domain.isascii() or domain.startswith(".") or domain.endswith("."):
        return None
    return domain.lower()


class Constraints(Struct, frozen=True):
    """The constraints in the query of the auth endpoint; None means no constraint.

    No session satisfies a constraint that is present but empty. ``misspelled`` are the
    parameters that look like a constraint but are none.
    """

    groups: frozenset[str] | None = None
    emails: frozenset[str] | None = None
    email_domains: ListedDomains | None = None
    misspelled: tuple[str, ...] = ()

    def unmet(self, session: Session) -> str:
        """Return the name of a constraint that *session* does not satisfy, or ""."""
        if self.groups is not None and self.groups.isdisjoint(session.groups):
            return "allowed_groups"
        if self.emails is not None and session.email not in self.emails:
            return "allowed_emails"
        if self.email_domains is None:
            return ""
        satisfied = email_domain(session.email) in self.email_domains
        return "" if satisfied else "allowed_email_domains"


def parse_constraints(query: bytes) -> Constraints:
    """Parse the constraints of a raw *query*; raises `RequestError`."""
    listed = {
        name: [item for value in values for item in value.split(",") if item]
        for name, values in constraints(query, CONSTRAINTS).items()
    }
    groups, emails, domains = (listed.get(name) for name in CONSTRAINTS)
    return Constraints(
        None if groups is None else frozenset(groups),
        None if emails is None else frozenset(emails),
        None if domains is None else ListedDomains(domains),
    )


def parse_auth_constraints(query: bytes) -> Constraints:
    """Parse the *query* of an auth check, also for misspelled constraints."""
    misspelled = tuple(filter(_is_misspelled, parameter_names(query)))
    return replace(parse_constraints(query), misspelled=misspelled)


def _is_misspelled(name: str) -> bool:
    """Return whether the parameter *name* looks like a constraint but is none."""
    letters = _NO_LETTERS.sub("", name.lower())
    if name in CONSTRAINTS:
        return False
    subject = letters.partition("owed")[2]
    return letters.startswith("allow") or any(one in subject for one in _CONSTRAINED)


class ConstraintCache:
    """Parsed queries: the auth requests of a gateway have only a few different ones."""

    def __init__(self, parse: Callable[[bytes], Constraints]) -> None:
        self._parse = parse
        self._parsed: BoundedCache[bytes, Constraints] = BoundedCache(
            MAX_CACHED_QUERIES
        )

    def get(self, query: bytes) -> Constraints:
        """Return the constraints of a raw *query*; raises `RequestError`."""
        parsed = self._parsed.get(query)
        if parsed is None:
            parsed = self._parse(query)
            if len(query) <= MAX_CACHED_QUERY_BYTES:
                self._parsed.put(query, parsed)
        return parsed
