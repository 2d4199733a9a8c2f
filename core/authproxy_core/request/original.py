"""The original request: the client's request as the first gateway received it.

A gateway describes it in X-Forwarded-* fields. Access depends on them, so only trusted
peers' fields count, and only if they are unambiguous: a repeated field, a list or a
malformed value is an error. Field names must match exactly; a name with an underscore
or a dot in place of a hyphen is another field.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, TypeAlias

from msgspec import Struct

from ..bounded_cache import BoundedCache
from ..encoding import is_token
from ..errors import RequestError
from ..messages import Request, first_header, header_values
from ..settings.root import UNIX_PEERS, Settings

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Scheme: TypeAlias = Literal["http", "https"]

# Default of trusted_proxy_ips: loopback and private ranges, never Internet peers.
PRIVATE_NETWORKS = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)
MAX_CACHED_ADDRESSES = 4096  # texts of addresses and hosts
MAX_HOPS = 256  # addresses of X-Forwarded-For that are checked
MAX_URI = 32 << 10  # bytes
MAX_HOP = 64  # bytes: an IPv6 address with brackets, a port, some spaces
MAX_HOST = 260  # characters: a name of 253, its dot, a port

_FORWARDED_PROTO = b"x-forwarded-proto"
_FORWARDED_HOST = b"x-forwarded-host"
_FORWARDED_URI = b"x-forwarded-uri"
_FORWARDED_METHOD = b"x-forwarded-method"
_FORWARDED_FOR = b"x-forwarded-for"
# Other fields in which gateways send the original request of an auth check.
_ORIGINAL_URL = b"x-original-url"
_ORIGINAL_URI = b"x-original-uri"
_ORIGINAL_METHOD = b"x-original-method"
_ENVOY_PATH = b"x-envoy-original-path"
_HOST_ONLY = frozenset({b"host"})
# A repeated field of these makes the request ambiguous.
_SINGLE_FIELDS = _HOST_ONLY | {_FORWARDED_HOST, _FORWARDED_URI, _FORWARDED_METHOD}
_URIS = (_FORWARDED_URI, _ORIGINAL_URI, _ENVOY_PATH)
_METHODS = (_FORWARDED_METHOD, _ORIGINAL_METHOD)
_AUTH_FIELDS = frozenset({*_URIS, *_METHODS, _ORIGINAL_URL})
# The fields that the host, method and URI of the original request may come from.
ORIGINAL_FIELDS = _AUTH_FIELDS | {b"host", _FORWARDED_HOST}
_CONTRADICTING = frozenset({_ORIGINAL_URI, _ORIGINAL_URL, _ENVOY_PATH})

_SCHEMES: dict[bytes, Scheme] = {b"http": "http", b"https": "https"}
_HOST = re.compile(
    rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*+\.?(?::([0-9]{1,5}))?"
    rb"|\[([0-9A-Fa-f:.]{2,45})\](?::([0-9]{1,5}))?"
)
# RFC 9112 §3.2.1 without fragment, spaces and control characters. A query may contain
# any escape, because browsers send a bare % there.
_ORIGIN_FORM = re.compile(
    rb"/(?:[^\x00-\x20\x7f%?#]++|%[0-9A-Fa-f]{2})*+(?:\?[^\x00-\x20\x7f#]*+)?"
)
_ABSOLUTE = re.compile(
    rb"(https?)://([^/?#@\\\x00-\x20\x7f]++)(/.*+)?", re.DOTALL | re.IGNORECASE
)
_HOP = re.compile(
    rb"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?"
    rb"|([0-9.]{7,15})(?::[0-9]{1,5})?"
    rb"|([0-9A-Fa-f:.]{2,45})"
)


class OriginalRequest(Struct, frozen=True):
    """The request that the client sent.

    ``host`` is a valid ``host[:port]`` as received (`host_name` normalizes it), ``uri``
    is in origin-form: path and query, never a fragment. ``client`` is the client's
    address, "" for a unix socket. ``forwarded``: X-Forwarded-Host differs from the Host
    field. ``trusted``: the peer is a trusted proxy.
    """

    method: bytes
    scheme: Scheme
    host: str
    uri: bytes
    client: str
    forwarded: bool = False
    trusted: bool = False


class AuthTarget(Struct, frozen=True):
    """The original request of an auth check, and which parts of it the gateway sent.

    The other parts of ``original`` are those of the gateway's subrequest.
    """

    original: OriginalRequest
    has_host: bool
    has_method: bool
    has_uri: bool


class _ForwardedRequest:
    """The original request of an auth check, collected from all forwarded fields."""

    def __init__(self) -> None:
        self.uris: set[bytes] = set()
        self.methods: set[bytes] = set()
        self.hosts: dict[str, str] = {}
        self._scheme: Scheme | None = None

    def add(self, name: bytes, value: bytes) -> None:
        """Add the field *name*, one of `_AUTH_FIELDS`; raises `RequestError`."""
        if name in _METHODS:
            self.methods.add(_method(value))
            return
        url = _ABSOLUTE.fullmatch(value) if name == _ORIGINAL_URL else None
        if url is None:
            self.uris.add(_forwarded_uri(value))
            return
        host = _host(url[2])
        self.hosts[host.lower()] = host
        self._scheme = _SCHEMES[url[1].lower()]
        self.uris.add(_forwarded_uri(url[3] or b"/"))

    def apply(self, original: OriginalRequest, request: Request) -> OriginalRequest:
        """Return *original* with the collected values in place of those of *request*.

        Raises `RequestError` if the fields contradict each other.
        """
        if original.trusted and _FORWARDED_HOST in dict(request.headers):
            self.hosts[original.host.lower()] = original.host
        if max(map(len, (self.uris, self.methods, self.hosts))) > 1:
            raise RequestError("forwarded headers name two different original requests")
        own_host = first_header(request.headers, b"host") or b""
        host = next(iter(self.hosts.values()), original.host)
        scheme = first_header(request.headers, _FORWARDED_PROTO) and original.scheme
        return OriginalRequest(
            next(iter(self.methods), original.method),
            scheme or self._scheme or original.scheme,
            host,
            next(iter(self.uris), original.uri),
            original.client,
            host.lower().encode() != own_host.lower(),
        )


class AddressSet:
    """A set of networks; ``in`` takes an address as text. IPv4-mapped counts as IPv4.

    Results are cached by the text, because the same peers send many requests.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        # By IP version and the number of bits behind the prefix: the prefixes.
        self._prefixes: dict[tuple[int, int], set[int]] = {}
        for network in map(_network, entries):
            host_bits = network.max_prefixlen - network.prefixlen
            prefixes = self._prefixes.setdefault((network.version, host_bits), set())
            prefixes.add(int(network.network_address) >> host_bits)
        self._known: BoundedCache[str, bool] = BoundedCache(MAX_CACHED_ADDRESSES)

    def __contains__(self, text: str) -> bool:
        known = self._known.get(text)
        if known is not None:
            return known
        address = parse_address(text)
        return self._known.put(
            text,
            address is not None
            and any(
                version == address.version and int(address) >> host_bits in prefixes
                for (version, host_bits), prefixes in self._prefixes.items()
            ),
        )


class TrustedProxies:
    """The trusted proxies, and the original requests that their fields describe."""

    def __init__(self, settings: Settings) -> None:
        self._reverse_proxy = settings.reverse_proxy
        listed = settings.trusted_proxies
        self._trusts_unix = not listed or UNIX_PEERS in listed
        self._proxies = AddressSet(
            [entry for entry in listed if entry != UNIX_PEERS]
            if listed
            else PRIVATE_NETWORKS
        )
        self._client_header = settings.real_client_ip_header.lower().encode()
        self._wanted = _SINGLE_FIELDS | {_FORWARDED_PROTO, self._client_header}

    def trusts(self, peer: str) -> bool:
        """Return whether *peer* is a trusted proxy ("": a unix socket)."""
        return self._reverse_proxy and (
            peer in self._proxies if peer else self._trusts_unix
        )

    def original(self, request: Request) -> OriginalRequest:
        """Return the original of *request*; raises `RequestError` if it is ambiguous."""
        trusted = self.trusts(request.peer)
        wanted = self._wanted if trusted else _HOST_ONLY
        found: dict[bytes, bytes] = {}
        for name, value in request.headers:
            if name in wanted:
                first = found.get(name)
                found[name] = value if first is None else _join(name, first, value)
        host = _host(found.get(b"host", b""))
        if trusted:
            return self._forwarded(request, host, found)
        return OriginalRequest(
            request.method,
            "https" if request.secure else "http",
            host,
            _origin_form(request.target),
            request.peer,
        )

    def original_for_auth(self, request: Request, tail: bytes = b"") -> OriginalRequest:
        """Return the original request of an auth check.

        *tail* is the original URI if the gateway appends it to the endpoint's path. The
        fields X-Forwarded-*, X-Original-* and X-Envoy-Original-Path of a trusted peer
        must agree: of two values, one may be the client's. Raises `RequestError`.
        """
        return self.find_original(request, tail).original

    def find_original(self, request: Request, tail: bytes) -> AuthTarget:
        """Return the original request of an auth check, and what the gateway sent of it.

        Raises `RequestError`.
        """
        original = self.original(request)
        forwarded = _ForwardedRequest()
        if tail:
            forwarded.uris.add(_forwarded_uri(tail))
        if self.trusts(request.peer):
            for name, value in request.headers:
                if name in _AUTH_FIELDS:
                    forwarded.add(name, value)
        applied = forwarded.apply(original, request)
        return AuthTarget(
            applied,
            has_host=bool(forwarded.hosts),
            has_method=bool(forwarded.methods),
            has_uri=bool(forwarded.uris),
        )

    def client(self, request: Request) -> str:
        """Return the client's address, or the peer's if it is unknown; never raises."""
        if not self.trusts(request.peer):
            return request.peer
        values = header_values(request.headers, self._client_header)
        return self._client_of_field(request.peer, b",".join(values))

    def client_for_rules(self, request: Request) -> str:
        """Return the client's address for rules, "" if the gateway does not send it.

        The address of the gateway must never be taken for that of its clients.
        """
        if not self.trusts(request.peer):
            return request.peer
        values = header_values(request.headers, self._client_header)
        if self._client_header == _FORWARDED_FOR:
            hops = b",".join(values).rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
            for text in reversed(hops):
                address = _hop_address(text)
                if not address or address not in self._proxies:
                    return address
            # Beyond MAX_HOPS trusted hops the client is unknown.
            return _hop_address(hops[0]) if len(hops) < MAX_HOPS else ""
        return _hop_address(values[0]) if len(values) == 1 else ""

    def overrides_uri(self, request: Request) -> bool:
        """Return whether a trusted peer's X-Forwarded-Uri differs from the target."""
        return self.trusts(request.peer) and any(
            name == _FORWARDED_URI and value != request.target
            for name, value in request.headers
        )

    def is_contradicted(self, request: Request, original: OriginalRequest) -> bool:
        """Return whether a trusted peer also sends another URI than that of *original*."""
        if not self.trusts(request.peer):
            return False
        forwarded = _ForwardedRequest()
        try:
            for name, value in request.headers:
                if name in _CONTRADICTING:
                    forwarded.add(name, value)
        except RequestError:
            return True
        return not forwarded.uris <= {original.uri}

    def host(self, request: Request) -> str:
        """Return the original host for logs, "" if it is malformed; never raises."""
        value = None
        if self.trusts(request.peer):
            value = first_header(request.headers, _FORWARDED_HOST)
        if value is None:
            value = first_header(request.headers, b"host")
        try:
            return _host(value or b"")
        except RequestError:
            return ""

    def _forwarded(
        self, request: Request, host_field: str, found: dict[bytes, bytes]
    ) -> OriginalRequest:
        """Return the original request by the fields *found* of a trusted peer."""
        host, method, uri = host_field, request.method, found.get(_FORWARDED_URI)
        if _FORWARDED_HOST in found:
            host = _host(found[_FORWARDED_HOST])
        client = request.peer
        if self._client_header in found:
            client = self._client_of_field(client, found[self._client_header])
        if _FORWARDED_METHOD in found:
            method = _method(found[_FORWARDED_METHOD])
        return OriginalRequest(
            method,
            _scheme(found.get(_FORWARDED_PROTO, b""), request.secure),
            host,
            _origin_form(request.target) if uri is None else _forwarded_uri(uri),
            client,
            host is not host_field and host.lower() != host_field.lower(),
            True,
        )

    def _client_of_field(self, peer: str, value: bytes) -> str:
        """Return the address in real_client_ip_header; *value* is comma-joined."""
        if self._client_header == _FORWARDED_FOR:
            return self._client_of_chain(peer, value)
        return _hop_address(value) or peer

    def _client_of_chain(self, peer: str, chain: bytes) -> str:
        """Return the first address of X-Forwarded-For that trusted proxies vouch for.

        Each proxy appends the address of its peer, so the search starts at the right and
        ends at the first address that is not a trusted proxy: everything further left may
        be forged. A malformed address ends it too.
        """
        client = peer
        hops = chain.rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
        for text in reversed(hops):
            address = _hop_address(text)
            if not address:
                return client
            client = address
            if address not in self._proxies:
                return client
        return client if len(hops) < MAX_HOPS else peer


def parse_address(text: str) -> Address | None:
    """Parse an address; IPv4-mapped becomes IPv4. None if *text* is malformed."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def host_name(host: str) -> str:
    """Return the name in *host* (valid ``host[:port]``), for rules and lists.

    It is lower-case, without port and without the dot of a fully qualified name.
    """
    if host.startswith("["):
        return host[: host.index("]") + 1].lower()
    return host.partition(":")[0].removesuffix(".").lower()


def _network(entry: str) -> Network:
    """Parse a configured network; IPv4-mapped becomes IPv4."""
    network = ipaddress.ip_network(entry)
    mapped = network.network_address
    if isinstance(mapped, ipaddress.IPv6Address) and network.prefixlen >= 96:
        inner = mapped.ipv4_mapped
        if inner is not None:
            return ipaddress.IPv4Network((inner, network.prefixlen - 96))
    return network


def _join(name: bytes, first: bytes, second: bytes) -> bytes:
    """Join two values of the field *name* (RFC 9110 §5.3); raises `RequestError`."""
    if name in _SINGLE_FIELDS:
        raise RequestError(f"more than one {name.decode()} field")
    return first + b"," + second


@lru_cache(MAX_CACHED_ADDRESSES)
def _host(value: bytes) -> str:
    """Validate a host; cached, because requests have only a few different ones."""
    match = _HOST.fullmatch(value) if len(value) <= MAX_HOST else None
    if match is None:
        raise RequestError("malformed host: expected name[:port]")
    port = match[1] or match[3]
    if port is not None and int(port) > 65535:
        raise RequestError("malformed host: port above 65535")
    if match[2] is not None and parse_address(match[2].decode()) is None:
        raise RequestError("malformed host: invalid IPv6 address in brackets")
    return value.decode()


def _method(value: bytes) -> bytes:
    if not is_token(value):
        raise RequestError("malformed method in x-forwarded-method")
    return value


def _scheme(value: bytes, secure: bool) -> Scheme:
    """Return the forwarded scheme; other values than http and https are ignored."""
    return _SCHEMES.get(value.lower()) or ("https" if secure else "http")


def _origin_form(target: bytes) -> bytes:
    if len(target) > MAX_URI or not _ORIGIN_FORM.fullmatch(target):
        raise RequestError("request target is not in origin-form")
    if not target.isascii():
        _require_utf8(target)
    return target


def _forwarded_uri(uri: bytes) -> bytes:
    """Validate *uri* as origin-form that cannot be read as an absolute URL or a list."""
    _origin_form(uri)
    if uri.startswith((b"//", b"/\\")):
        raise RequestError("x-forwarded-uri starts with two slashes")
    # Gateways join repeated fields with commas, some without a space.
    if b",/" in uri.partition(b"?")[0]:
        raise RequestError("x-forwarded-uri contains a list")
    return uri


def _require_utf8(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise RequestError("request target is not UTF-8") from None


def _hop_address(value: bytes) -> str:
    """Return the address in ``addr``, ``addr:port`` or ``[addr]:port``, or ""."""
    return _parse_hop(value) if len(value) <= MAX_HOP else ""


@lru_cache(MAX_CACHED_ADDRESSES)
def _parse_hop(value: bytes) -> str:
    """Parse a hop; cached, because parsing takes microseconds and clients come back."""
    match = _HOP.fullmatch(value.strip(b" \t"))
    if match is None:
        return ""
    address = parse_address((match[1] or match[2] or match[3]).decode())
    return "" if address is None else str(address)
