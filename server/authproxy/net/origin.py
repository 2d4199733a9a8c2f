"""Origins of URLs, and the HTTP proxies of the environment."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from authproxy_core.errors import FetchError
from authproxy_core.messages import Headers

from .addresses import bracket_ipv6

PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
# Underscores are not allowed in DNS, but Docker and Windows networks use them.
HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.ASCII)


class Origin(NamedTuple):
    """Scheme, host (an IPv6 address without brackets) and port of a server."""

    scheme: str
    host: str
    port: int

    @property
    def host_port(self) -> str:
        """``host:port``, for messages and CONNECT."""
        return f"{bracket_ipv6(self.host)}:{self.port}"

    @property
    def authority(self) -> str:
        """The value for the Host field: without the scheme's default port."""
        if self.port == PORTS[self.scheme]:
            return bracket_ipv6(self.host)
        return self.host_port


class Proxy(NamedTuple):
    """An HTTP proxy, and the fields with its credentials."""

    origin: Origin
    fields: Headers


def split_url(url: str) -> tuple[Origin, str]:
    """Return the origin and the request target (path and query) of an HTTP(S) URL.

    Raises `FetchError`; its text does not contain the URL.
    """
    parts = _split(url)
    if parts is None or "@" in parts.netloc:
        raise FetchError("not an http or https URL with a host")
    origin = _origin(parts)
    return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def select_proxy(origin: Origin, proxies: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for *origin*, None for a direct connection.

    *proxies* are from `urllib.request.getproxies`. The rules are those of Go, because
    of oauth2-proxy: loopback addresses are always reached directly, the default scheme
    of a proxy is http, and NO_PROXY may contain networks. Raises `FetchError` for an
    invalid proxy URL.
    """
    url = proxies.get(origin.scheme)
    if not url or _is_loopback(origin.host):
        return None
    if any(
        _matches_no_proxy(entry, origin) for entry in proxies.get("no", "").split(",")
    ):
        return None
    parts = _split(url if "://" in url else f"http://{url}")
    if parts is None or parts.scheme != "http":
        raise FetchError(
            f"the environment's proxy for {origin.scheme} is not http://HOST:PORT"
        )
    userinfo, at, _ = parts.netloc.rpartition("@")
    if not at:
        return Proxy(_origin(parts), ())
    credentials = b"Basic " + b64encode(unquote_to_bytes(userinfo))
    return Proxy(_origin(parts), ((b"proxy-authorization", credentials),))


def _split(url: str) -> SplitResult | None:
    """Return the parts of an HTTP(S) URL with a valid host and port, else None."""
    if not all("!" <= char <= "~" for char in url):  # urlsplit drops some silently
        return None
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").lower()
        if ":" in host:
            ip_address(host)
    except ValueError:
        return None
    if parts.scheme not in PORTS or port == 0:
        return None
    return parts if ":" in host or HOST.fullmatch(host) else None


def _origin(parts: SplitResult) -> Origin:
    host = (parts.hostname or "").lower()
    return Origin(parts.scheme, host, parts.port or PORTS[parts.scheme])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _matches_no_proxy(entry: str, origin: Origin) -> bool:
    """Return whether an entry of NO_PROXY matches *origin*.

    An entry is ``*``, an address, a network, or a domain with an optional port. A
    domain includes its subdomains; with a leading dot it is the subdomains only.
    """
    entry = entry.strip().lower()
    if entry == "*":
        return True
    try:
        return ip_address(origin.host) in ip_network(entry, strict=False)
    except ValueError:
        pass  # *entry* or the host is a name
    domain, colon, port = entry.partition(":")
    if not domain or (colon and port != str(origin.port)):
        return False
    domain = domain.removeprefix("*")
    return origin.host == domain or origin.host.endswith("." + domain.lstrip("."))
