"""The original request: what the client asked for, before any gateway in front of us.

A gateway that only asks whether a request may pass tells about it in X-Forwarded-*
fields. Those decide over access, so they are believed from trusted peers alone, and
only when they can be read in one way: a second line, a list or a malformed value is an
error, never a choice. Fields are found by their exact names; a twin with an underscore
or a dot is another field.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, TypeAlias

from msgspec import Struct

from ..encoding import is_token
from ..errors import RequestError
from ..messages import Request, first_header, header_values
from ..settings.root import Settings

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Scheme: TypeAlias = Literal["http", "https"]

# Who is trusted when nobody is named: what a peer on the internet can't be.
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
MAX_CACHED_ADDRESSES = 4096  # addresses whose verdict is kept
MAX_HOPS = 32  # of X-Forwarded-For that are walked
MAX_URI = 32 << 10  # bytes
MAX_HOP = 64  # bytes: an IPv6 address with brackets, a port, some blanks
MAX_HOST = 260  # characters: a name of 253, its dot, a port

_FORWARDED_PROTO = b"x-forwarded-proto"
_FORWARDED_HOST = b"x-forwarded-host"
_FORWARDED_URI = b"x-forwarded-uri"
_FORWARDED_METHOD = b"x-forwarded-method"
_FORWARDED_FOR = b"x-forwarded-for"
# How gateways that ask us name the original request, besides X-Forwarded-*.
_ORIGINAL_URL = b"x-original-url"
_ORIGINAL_URI = b"x-original-uri"
_ORIGINAL_METHOD = b"x-original-method"
_ENVOY_PATH = b"x-envoy-original-path"
_OWN = frozenset({b"host"})
# A second line of these makes the request ambiguous.
_UNIQUE = _OWN | {_FORWARDED_HOST, _FORWARDED_URI, _FORWARDED_METHOD}
_URIS = (_FORWARDED_URI, _ORIGINAL_URI, _ENVOY_PATH)
_METHODS = (_FORWARDED_METHOD, _ORIGINAL_METHOD)
_NAMED = frozenset({*_URIS, *_METHODS, _ORIGINAL_URL})
# The fields that may say which host, method and URI the original has.
ORIGINAL_FIELDS = _NAMED | {b"host", _FORWARDED_HOST}
_CONTRADICTING = frozenset({_ORIGINAL_URI, _ORIGINAL_URL, _ENVOY_PATH})

_SCHEMES: dict[bytes, Scheme] = {b"http": "http", b"https": "https"}
_HOST = re.compile(
    rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*+\.?(?::([0-9]{1,5}))?"
    rb"|\[([0-9A-Fa-f:.]{2,45})\](?::([0-9]{1,5}))?"
)
# RFC 9112 §3.2.1 without fragment, blanks and control characters. The escapes of the
# query are the application's affair: browsers send a bare % there.
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
    """What the client asked for.

    ``host`` is a valid ``host[:port]`` in the spelling that came (`host_name` is the
    form for rules), ``uri`` is in origin-form: path and query, never with a fragment.
    ``client`` is the client's address, empty for a unix socket. ``forwarded`` says that
    a gateway named another host than the one that it asked us under, ``trusted`` that
    the peer is a proxy whose word counts.
    """

    method: bytes
    scheme: Scheme
    host: str
    uri: bytes
    client: str
    forwarded: bool = False
    trusted: bool = False


class _ForwardedRequest:
    """What a gateway told about the original, from all fields that may tell it."""

    def __init__(self) -> None:
        self.uris: set[bytes] = set()
        self.methods: set[bytes] = set()
        self._hosts: dict[str, str] = {}
        self._scheme: Scheme | None = None

    def add(self, name: bytes, value: bytes) -> None:
        """Take in the field *name*, one of `_NAMED`; raises `RequestError`."""
        if name in _METHODS:
            self.methods.add(_method(value))
            return
        url = _ABSOLUTE.fullmatch(value) if name == _ORIGINAL_URL else None
        if url is None:
            self.uris.add(_forwarded_uri(value))
            return
        host = _host(url[2])
        self._hosts[host.lower()] = host
        self._scheme = _SCHEMES[url[1].lower()]
        self.uris.add(_forwarded_uri(url[3] or b"/"))

    def applied(self, original: OriginalRequest, request: Request) -> OriginalRequest:
        """*original* with what was told; raises `RequestError` if that is twofold."""
        if _FORWARDED_HOST in dict(request.headers):
            self._hosts[original.host.lower()] = original.host
        if max(map(len, (self.uris, self.methods, self._hosts))) > 1:
            raise RequestError("expected one original request, got two")
        own_host = first_header(request.headers, b"host") or b""
        host = next(iter(self._hosts.values()), original.host)
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
    """Which addresses are in a set of networks; an IPv4-mapped address is IPv4.

    Verdicts are remembered by the text of the address, since peers come again.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._networks = tuple(_network(entry) for entry in entries)
        self._verdicts: dict[str, bool] = {}

    def __contains__(self, text: str) -> bool:
        verdict = self._verdicts.get(text)
        return self._judge(text) if verdict is None else verdict

    def _judge(self, text: str) -> bool:
        address = parse_address(text)
        verdict = address is not None and any(
            address in network for network in self._networks
        )
        if len(self._verdicts) >= MAX_CACHED_ADDRESSES:
            self._verdicts.clear()
        self._verdicts[text] = verdict
        return verdict


class TrustedProxies:
    """Whose forwarded fields are believed, and what they say."""

    def __init__(self, settings: Settings) -> None:
        self._reverse_proxy = settings.reverse_proxy
        self._proxies = AddressSet(settings.trusted_proxies or PRIVATE_NETWORKS)
        self._client_header = settings.real_client_ip_header.lower().encode()
        self._wanted = _UNIQUE | {_FORWARDED_PROTO, self._client_header}

    def trusts(self, peer: str) -> bool:
        """Whether the forwarded fields of *peer* are believed ("": a unix socket)."""
        return self._reverse_proxy and (not peer or peer in self._proxies)

    def original(self, request: Request) -> OriginalRequest:
        """The original of *request*; raises `RequestError` when it is not clear."""
        trusted = self.trusts(request.peer)
        wanted = self._wanted if trusted else _OWN
        found: dict[bytes, bytes] = {}
        for name, value in request.headers:
            if name in wanted:
                first = found.get(name)
                found[name] = value if first is None else _joined(name, first, value)
        host = _host(found.get(b"host", b""))
        if trusted:
            return self._forwarded(request, host, found)
        return OriginalRequest(
            request.method,
            "https" if request.secure else "http",
            host,
            _own_uri(request.target),
            request.peer,
        )

    def original_for_auth(self, request: Request, tail: bytes = b"") -> OriginalRequest:
        """The original that a gateway asks about at the forward-auth endpoint.

        *tail* is the original URI where the gateway appends it to the endpoint's path.
        Whatever else of X-Forwarded-*, X-Original-* and X-Envoy-Original-Path a trusted
        peer sends must say the same: nobody knows which of two the gateway wrote and
        which the client. Raises `RequestError`.
        """
        return self.named(request, tail)[0]

    def named(
        self, request: Request, tail: bytes
    ) -> tuple[OriginalRequest, bool, bool]:
        """The same, and whether the method and the URI were told at all.

        What was not told is that of the gateway's own request.
        """
        original = self.original(request)
        told = _ForwardedRequest()
        if tail:
            told.uris.add(_forwarded_uri(tail))
        if self.trusts(request.peer):
            for name, value in request.headers:
                if name in _NAMED:
                    told.add(name, value)
        applied = told.applied(original, request)
        return applied, bool(told.methods), bool(told.uris)

    def client(self, request: Request) -> str:
        """The client's address, else the peer's; cheap, and never raises."""
        if not self.trusts(request.peer):
            return request.peer
        values = header_values(request.headers, self._client_header)
        return self._client(request.peer, b",".join(values))

    def client_for_rules(self, request: Request) -> str:
        """The client's address for rules, "" when a gateway does not surely tell it.

        The gateway's own address must never stand in for that of its clients.
        """
        if not self.trusts(request.peer):
            return request.peer
        values = header_values(request.headers, self._client_header)
        if self._client_header == _FORWARDED_FOR:
            hops = b",".join(values).rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
            for text in reversed(hops):
                address = _hop(text)
                if not address or address not in self._proxies:
                    return address
            return _hop(hops[0])
        return _hop(values[0]) if len(values) == 1 else ""

    def overrides_uri(self, request: Request) -> bool:
        """Whether a trusted peer asks for another URI than that of *request* itself."""
        return self.trusts(request.peer) and any(
            name == _FORWARDED_URI and value != request.target
            for name, value in request.headers
        )

    def is_contradicted(self, request: Request, original: OriginalRequest) -> bool:
        """Whether a trusted peer also tells of another URI than that of *original*."""
        if not self.trusts(request.peer):
            return False
        told = _ForwardedRequest()
        try:
            for name, value in request.headers:
                if name in _CONTRADICTING:
                    told.add(name, value)
        except RequestError:
            return True
        return not told.uris <= {original.uri}

    def host(self, request: Request) -> str:
        """The original host for logs, "" if it is malformed; never raises."""
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
        self, request: Request, own_host: str, found: dict[bytes, bytes]
    ) -> OriginalRequest:
        """The original as the fields *found* of a trusted peer tell it."""
        host, method, uri = own_host, request.method, found.get(_FORWARDED_URI)
        if _FORWARDED_HOST in found:
            host = _host(found[_FORWARDED_HOST])
        client = request.peer
        if self._client_header in found:
            client = self._client(client, found[self._client_header])
        if _FORWARDED_METHOD in found:
            method = _method(found[_FORWARDED_METHOD])
        return OriginalRequest(
            method,
            _scheme(found.get(_FORWARDED_PROTO, b""), request.secure),
            host,
            _own_uri(request.target) if uri is None else _forwarded_uri(uri),
            client,
            host is not own_host and host.lower() != own_host.lower(),
            True,
        )

    def _client(self, peer: str, value: bytes) -> str:
        """The client that the configured field names, its lines joined with commas."""
        if self._client_header == _FORWARDED_FOR:
            return self._behind_hops(peer, value)
        return _hop(value) or peer

    def _behind_hops(self, peer: str, chain: bytes) -> str:
        """The client at the far end of the trusted part of X-Forwarded-For.

        Each hop was written by the one to its right, so the walk goes from the right
        and ends at the first that is not a trusted proxy: whatever is further left is
        only what that one said. A hop that is no address ends it too.
        """
        client = peer
        for text in reversed(chain.rsplit(b",", MAX_HOPS)[-MAX_HOPS:]):
            address = _hop(text)
            if not address:
                break
            client = address
            if address not in self._proxies:
                break
        return client


def parse_address(text: str) -> Address | None:
    """The address that *text* spells, IPv4 if it is IPv4-mapped; None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def host_name(host: str) -> str:
    """How rules and lists know *host* (valid ``host[:port]``).

    Lower-case, without the port and without the dot of a fully qualified name.
    """
    if host.startswith("["):
        return host[: host.index("]") + 1].lower()
    return host.partition(":")[0].removesuffix(".").lower()


def _network(entry: str) -> Network:
    """The network of a configured *entry*; IPv4-mapped ones become IPv4."""
    network = ipaddress.ip_network(entry)
    mapped = network.network_address
    if isinstance(mapped, ipaddress.IPv6Address) and network.prefixlen >= 96:
        inner = mapped.ipv4_mapped
        if inner is not None:
            return ipaddress.IPv4Network((inner, network.prefixlen - 96))
    return network


def _joined(name: bytes, first: bytes, second: bytes) -> bytes:
    """Two lines of the field *name* as one (RFC 9110 §5.3), where that may be."""
    if name in _UNIQUE:
        raise RequestError(f"expected one {name.decode()} field, got more")
    return first + b"," + second


@lru_cache(MAX_CACHED_ADDRESSES)
def _host(value: bytes) -> str:
    """*value* if it is a host; the same few come all the time."""
    match = _HOST.fullmatch(value) if len(value) <= MAX_HOST else None
    if match is None:
        raise RequestError("expected a host of the form name[:port]")
    port = match[1] or match[3]
    if port is not None and int(port) > 65535:
        raise RequestError("expected a port of at most 65535 in the host")
    if match[2] is not None and parse_address(match[2].decode()) is None:
        raise RequestError("expected an IPv6 address between the brackets of the host")
    return value.decode()


def _method(value: bytes) -> bytes:
    if not is_token(value):
        raise RequestError("expected one method in x-forwarded-method")
    return value


def _scheme(value: bytes, secure: bool) -> Scheme:
    """The forwarded scheme; what is neither http nor https counts as not sent."""
    return _SCHEMES.get(value.lower()) or ("https" if secure else "http")


def _own_uri(target: bytes) -> bytes:
    if len(target) > MAX_URI or not _ORIGIN_FORM.fullmatch(target):
        raise RequestError("expected a request target in origin-form")
    if not target.isascii():
        _demand_utf8(target)
    return target


def _forwarded_uri(uri: bytes) -> bytes:
    """*uri* if it is clean origin-form, which leaves no room for another host."""
    _own_uri(uri)
    if uri.startswith((b"//", b"/\\")):
        raise RequestError("expected one slash at the start of x-forwarded-uri")
    # Gateways join repeated fields with commas, some without a blank.
    if b",/" in uri.partition(b"?")[0]:
        raise RequestError("expected one path in x-forwarded-uri, got a list")
    return uri


def _demand_utf8(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise RequestError("expected a request target in UTF-8") from None


def _hop(value: bytes) -> str:
    """The address of ``addr``, ``addr:port`` or ``[addr]:port``, "" if it is none."""
    return _spelt(value) if len(value) <= MAX_HOP else ""


@lru_cache(MAX_CACHED_ADDRESSES)
def _spelt(value: bytes) -> str:
    """`_hop` for short values; clients come again, and parsing takes microseconds."""
    match = _HOP.fullmatch(value.strip(b" \t"))
    if match is None:
        return ""
    address = parse_address((match[1] or match[2] or match[3]).decode())
    return "" if address is None else str(address)
