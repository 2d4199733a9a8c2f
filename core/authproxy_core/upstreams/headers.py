"""Request headers for upstreams: filter the client's fields, add authproxy's.

Forwarded headers are accepted from trusted proxies only; from other clients they are
dropped. Identity headers of clients are always dropped, because upstreams trust those
that authproxy injects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..bounded_cache import BoundedCache
from ..identity.headers import HOP_BY_HOP, HeaderInjector, connection_options, folded
from ..messages import Header, Headers, Request
from ..request.original import OriginalRequest
from ..request.trace import TRACEPARENT, without_bad_trace
from ..session import Session

# Identity headers of authproxy and oauth2-proxy, and those of other authentication proxies
# that applications trust.
IDENTITY_FIELDS = frozenset(
    {
        b"gap-auth",
        b"gap-signature",
        b"remote-email",
        b"remote-groups",
        b"remote-name",
        b"remote-user",
        b"x-auth-request-access-token",
        b"x-auth-request-email",
        b"x-auth-request-groups",
        b"x-auth-request-preferred-username",
        b"x-auth-request-user",
        b"x-forwarded-access-token",
        b"x-forwarded-email",
        b"x-forwarded-groups",
        b"x-forwarded-preferred-username",
        b"x-forwarded-user",
    }
)
# Forwarded headers: spoofed unless a trusted proxy sets them. Some frameworks even route
# by X-Original-URL and X-Rewrite-URL.
ORIGIN_FIELDS = frozenset(
    {
        b"forwarded",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-forwarded-method",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-forwarded-uri",
        b"x-original-host",
        b"x-original-method",
        b"x-original-uri",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    }
)
REPLACED = frozenset(
    {b"host", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
)
MAX_FIELD_NAMES = 1024  # entries of the policy cache
# Policies for a client's field.
PASS, DROP, COOKIE, CONNECTION, TE, CHAIN, FORWARDED, TRACE = range(8)
TRAILERS: Headers = ((b"te", b"trailers"),)
SPECIAL_FIELDS = {
    b"cookie": COOKIE,
    b"connection": CONNECTION,
    b"te": TE,
    b"x-forwarded-for": CHAIN,
    TRACEPARENT: TRACE,
}


class _FieldPolicies:
    """Policy by field name; the cache ``known`` serves repeated names."""

    def __init__(
        self, dropped: frozenset[bytes], dropped_exactly: frozenset[bytes]
    ) -> None:
        self._dropped = dropped
        self._dropped_exactly = dropped_exactly
        self.known: BoundedCache[bytes, int] = BoundedCache(MAX_FIELD_NAMES)

    def classify(self, name: bytes) -> int:
        """Return and cache the policy for a client's field of this name."""
        kind = SPECIAL_FIELDS.get(name, PASS)
        if kind in (PASS, TRACE):
            # Some upstreams fold "_" to "-", so variants of Content-Length and the like
            # are dropped too.
            canonical = folded(name)
            passes = (
                canonical not in self._dropped
                and canonical not in HOP_BY_HOP
                and name not in self._dropped_exactly
                and (canonical == name or canonical != b"content-length")
            )
            if not passes:
                kind = DROP
            elif name == b"forwarded":
                kind = FORWARDED
        return self.known.put(name, kind)


class UpstreamHeaders:
    """Builds the request headers; *via* is the name in the Via field, b"" omits it.

    With *strips_identity* all identity headers of the client are dropped, else only
    those that *injector* strips.
    """

    def __init__(
        self,
        injector: HeaderInjector,
        is_session_cookie: Callable[[bytes], bool],
        *,
        strips_identity: bool = True,
        via: bytes = b"",
    ) -> None:
        dropped = injector.stripped | REPLACED
        if strips_identity:
            dropped |= IDENTITY_FIELDS - injector.kept - injector.stripped_exactly
        self.protected = dropped | ORIGIN_FIELDS
        self._trusted = _FieldPolicies(dropped, injector.stripped_exactly)
        self._untrusted = _FieldPolicies(self.protected, injector.stripped_exactly)
        self._injector = injector
        self._is_session_cookie = is_session_cookie
        self._via: Headers = ((b"via", b"1.1 " + via),) if via else ()

    def build(
        self,
        request: Request,
        original: OriginalRequest,
        session: Session | None,
        host: bytes,
        upgrade: bytes = b"",
    ) -> tuple[Headers, Headers]:
        """Return all header fields except the framing, and the identity headers alone.

        *host* is the Host field, *upgrade* the protocol to request (b"": none).
        authproxy's fields come last, so the client's Connection options cannot remove
        them (RFC 9110 §7.6.1).
        """
        trusted = original.trusted
        client = _FieldFilter(self._trusted if trusted else self._untrusted)
        client.read(request.headers, self._is_session_cookie)
        identity = self._injector.headers(session)
        fields = (
            *client.fields(),
            (b"host", host),
            *client.forwarded_for(request.peer, trusted=trusted),
            (b"x-forwarded-host", original.host.encode()),
            (b"x-forwarded-proto", original.scheme.encode()),
            *self._via,
            *(((b"upgrade", upgrade),) if upgrade else ()),
            *client.trailers,
            *identity,
        )
        return fields, identity


class _FieldFilter:
    """Filters a client's fields in a single pass."""

    __slots__ = (
        "_connection_options",
        "_forwarded",
        "_hops",
        "_passed",
        "_policies",
        "_traced",
        "trailers",
    )

    def __init__(self, policies: _FieldPolicies) -> None:
        self._policies = policies
        self._passed: list[Header] = []
        self._hops: list[bytes] = []  # of X-Forwarded-For
        self._connection_options: set[bytes] = set()
        self._traced = self._forwarded = False
        self.trailers: Headers = ()  # the only value of TE that is forwarded

    def read(
        self, headers: Iterable[Header], is_session_cookie: Callable[[bytes], bool]
    ) -> None:
        """Read the client's *headers*; session cookies are dropped."""
        known, passed = self._policies.known.get, self._passed
        for field in headers:
            name, value = field
            kind = known(name)
            if kind is None:
                kind = self._policies.classify(name)
            if kind == PASS:
                passed.append(field)
            elif kind == COOKIE:
                passed += _strip_session_cookies(value, is_session_cookie)
            elif kind == CHAIN:
                self._hops.append(value)
            elif kind == CONNECTION:
                self._connection_options |= connection_options((field,))
            elif kind == TE:
                if b"trailers" in [part.strip().lower() for part in value.split(b",")]:
                    self.trailers = TRAILERS
            elif kind != DROP:
                passed.append(field)
                self._traced |= kind == TRACE
                self._forwarded |= kind == FORWARDED

    def fields(self) -> Sequence[Header]:
        """Return the fields that pass."""
        passed: Sequence[Header] = self._passed
        options = self._connection_options
        if options:
            passed = [field for field in passed if field[0] not in options]
        return without_bad_trace(passed) if self._traced else passed

    def forwarded_for(self, peer: str, *, trusted: bool) -> Headers:
        """Return X-Forwarded-For, and Forwarded if a trusted proxy sent it."""
        node = peer.encode()
        if not trusted:
            return ((b"x-forwarded-for", node),) if node else ()
        hops = [*self._hops, node] if node else self._hops
        fields: Headers = ((b"x-forwarded-for", b", ".join(hops)),) if hops else ()
        if node and self._forwarded:
            # RFC 7239 §4: each proxy appends an element, here as a separate field.
            node = b'"[%b]"' % node if b":" in node else node
            fields += ((b"forwarded", b"for=" + node),)
        return fields


def _strip_session_cookies(
    value: bytes, is_session_cookie: Callable[[bytes], bool]
) -> Headers:
    """Return the Cookie field *value* without session cookies, or nothing if empty."""
    others: list[bytes] = []
    start, size = 0, len(value)
    while start < size:
        # bytes.find per semicolon is faster than split(), which scans byte by byte.
        end = value.find(b";", start)
        end = size if end < 0 else end
        equals = value.find(b"=", start, end)
        if not is_session_cookie(value[start : end if equals < 0 else equals].strip()):
            pair = value[start:end].strip(b" \t")
            if pair:
                others.append(pair)
        start = end + 1
    return ((b"cookie", b"; ".join(others)),) if others else ()
