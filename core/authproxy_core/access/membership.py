"""Does this session satisfy the rules: e-mail, groups, and what a query asks for."""

from __future__ import annotations

from msgspec import Struct

from ..request.forms import constraints
from ..request.hosts import ListedHost, listed_hosts
from ..session import Session
from ..settings.root import Settings

CONSTRAINTS = ("allowed_groups", "allowed_emails", "allowed_email_domains")
MAX_CACHED_QUERIES = 256


class EmailRule:
    """Which e-mail addresses may come in: by domain, or from a list."""

    def __init__(self, settings: Settings) -> None:
        domains = [domain.lower() for domain in settings.email_domains]
        self._anyone = "*" in domains
        self._exact = frozenset(domain for domain in domains if domain[:1] not in "*.")
        self._below = tuple(
            domain.removeprefix("*") for domain in domains if domain[:1] in "*."
        )
        self._listed = frozenset(
            folded_email(address) for address in settings.authenticated_emails or ()
        )

    def permits(self, email: str) -> bool:
        """Whether the address is not empty and one that is let in."""
        if not email:
            return False
        if self._anyone:
            return True
        domain = email_domain(email)
        if domain is None:
            return False
        return (
            domain in self._exact
            or any(
                domain.endswith(suffix) and len(domain) > len(suffix)
                for suffix in self._below
            )
            or folded_email(email) in self._listed
        )


def folded_email(email: str) -> str:
    """Lower-case, if that cannot make two different addresses one."""
    return email.lower() if email.isascii() else email


def email_domain(email: str) -> str | None:
    """The lower-case domain of an address with exactly one ``@``, else None.

    Blanks, control characters, quotes and anything that is not ASCII in the domain make
    it None: such addresses are read in different ways by different programs.
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
    """What the query of the auth endpoint demands; None means no demand.

    A demand that is there but empty is satisfied by nobody.
    """

    groups: frozenset[str] | None = None
    emails: frozenset[str] | None = None
    email_domains: tuple[ListedHost, ...] | None = None

    def permits(self, session: Session) -> bool:
        """Whether the session satisfies every demand."""
        if self.groups is not None and self.groups.isdisjoint(session.groups):
            return False
        if self.emails is not None and session.email not in self.emails:
            return False
        if self.email_domains is None:
            return True
        domain = email_domain(session.email)
        return domain is not None and any(
            entry.matches(domain, "") for entry in self.email_domains
        )


def parse_constraints(query: bytes) -> Constraints:
    """The demands in a raw query; raises `RequestError` when it can't be read."""
    found = {
        name: [piece for value in values for piece in value.split(",") if piece]
        for name, values in constraints(query, CONSTRAINTS).items()
    }
    groups, emails, domains = (found.get(name) for name in CONSTRAINTS)
    return Constraints(
        None if groups is None else frozenset(groups),
        None if emails is None else frozenset(emails),
        None if domains is None else listed_hosts(domains),
    )


class ConstraintCache:
    """Parsed queries: a gateway asks with the same few over and over."""

    def __init__(self) -> None:
        self._parsed: dict[bytes, Constraints] = {}

    def get(self, query: bytes) -> Constraints:
        """The demands in *query*; raises `RequestError`."""
        found = self._parsed.get(query)
        if found is None:
            found = parse_constraints(query)
            if len(self._parsed) >= MAX_CACHED_QUERIES or len(query) > 4096:
                self._parsed.clear()
            self._parsed[query] = found
        return found
