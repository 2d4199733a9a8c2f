"""Protocol upgrades: which are forwarded, and from which origins.

A browser sends cookies with a WebSocket handshake from any page, and the same-origin
policy does not apply to the WebSocket. The Origin field, which scripts cannot change,
is the only protection (RFC 6455 §10.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..encoding import is_token
from ..identity.headers import connection_options
from ..messages import Header, Request, header_values

# Inside these protocols the client could send unchecked requests to the upstream.
REFUSED_PROTOCOLS = (b"h2", b"http", b"tls")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def requested_upgrade(headers: Sequence[Header]) -> bytes:
    """Return the requested protocol; b"" if the upgrade is not forwarded.

    An upgrade request with a body is forwarded without Upgrade, which a server may
    ignore (RFC 9110 §7.8).
    """
    values = header_values(headers, b"upgrade")
    if not values:
        return b""
    if len(values) > 1 or b"upgrade" not in connection_options(headers):
        return b""
    protocol = values[0]
    name, slash, version = protocol.partition(b"/")
    if not is_token(name) or (slash and not is_token(version)):
        return b""
    if name.lower().startswith(REFUSED_PROTOCOLS):
        return b""
    names = {name for name, _ in headers}
    if b"transfer-encoding" in names or not _has_empty_body(headers):
        return b""
    return protocol


def _has_empty_body(headers: Iterable[Header]) -> bool:
    return all(
        value.strip(b"0") == b"" for value in header_values(headers, b"content-length")
    )


class AllowedOrigins:
    """The origins whose pages may open WebSockets with the user's session.

    Each entry is ``scheme://host[:port]``, or ``*`` for any.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = frozenset(entry.lower().rstrip("/") for entry in entries)

    def permits(self, request: Request, host: str) -> bool:
        """Return whether the Origin of *request* is allowed; *host* is the original host.

        A request without Origin is not from a browser, so it is allowed.
        """
        values = header_values(request.headers, b"origin")
        if not values or "*" in self._entries:
            return True
        origin = values[0].decode("latin-1").lower()
        if len(values) > 1:
            return False
        return origin in self._entries or _is_same_origin(origin, host.lower())


def _is_same_origin(origin: str, host: str) -> bool:
    """Return whether *origin* is on *host*; the scheme may differ (TLS termination)."""
    scheme, separator, authority = origin.partition("://")
    if not separator or scheme not in DEFAULT_PORTS:
        return False
    default = DEFAULT_PORTS[scheme]
    return authority.removesuffix(default) == host.removesuffix(default)
