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
