"""Host lists such as whitelist_domains: ``host[:port]``, some with subdomains."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

HOST_NAME = r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*"
IPV6_LITERAL = r"\[[0-9a-f:.]{2,45}\]"
# No leading zeros, which browsers drop; an empty port is valid.
PORT = r"(?:0|[1-9][0-9]{0,4})?"
_ENTRY = re.compile(
    rf"(?P<dot>\*?\.)?(?P<host>{HOST_NAME}|{IPV6_LITERAL})(?::(?P<port>{PORT}|\*))?",
    re.ASCII,
)


class ListedHost(Struct, frozen=True):
    """An entry ``host[:port]`` of an allow list.

    With ``subdomains`` the names below ``host`` match too. ``port`` "" matches only a
    URL without a port, "*" any.
    """

    host: str
    port: str = ""
    subdomains: bool = False

    def matches(self, host: str, port: str) -> bool:
        """Return whether *host* (lower-case, no port) and *port* ("": none) match."""
        if self.port not in ("*", port):
            return False
        # With the dot, badexample.com is not a subdomain of example.com.
        return host == self.host or (self.subdomains and host.endswith("." + self.host))


def listed_hosts(entries: Iterable[str]) -> tuple[ListedHost, ...]:
    """Parse the entries of an allow list; malformed entries are dropped.

    ``.example.com`` and ``*.example.com`` match that name and its subdomains.
    """
    matches = (_ENTRY.fullmatch(entry.lower()) for entry in entries)
    return tuple(
        ListedHost(match["host"], match["port"] or "", match["dot"] is not None)
        for match in matches
        if match is not None
    )


class ListedDomains:
    """The domains of an allow list, where an entry with another port matches none."""

    def __init__(self, entries: Iterable[str]) -> None:
        listed = [entry for entry in listed_hosts(entries) if entry.port in ("", "*")]
        self._names = frozenset(entry.host for entry in listed)
        self._parents = frozenset(entry.host for entry in listed if entry.subdomains)

    def __contains__(self, domain: str | None) -> bool:
        """Return whether *domain* (lower-case) is listed, or below one that is."""
        if domain is None or domain in self._names:
            return domain is not None
        parent = domain.partition(".")[2] if self._parents else ""
        while parent:
            if parent in self._parents:
                return True
            parent = parent.partition(".")[2]
        return False
