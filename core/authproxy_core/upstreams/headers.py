"""The head that an upstream gets: what passes of the client's, and what we say.

What a client says about itself is believed from trusted proxies alone. From everybody
else, fields that tell where a request came from or what it was are left out, and those
that name the user always: an upstream behind us takes them for ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..identity.headers import HOP_BY_HOP, HeaderInjector, connection_options, folded
from ..messages import Header, Headers, Request
from ..request.original import OriginalRequest
from ..request.trace import TRACEPARENT, without_bad_trace
from ..session import Session

# Who a user is, in the spellings of this proxy and of its predecessor.
IDENTITY_FIELDS = frozenset(
    {
        b"gap-auth",
        b"gap-signature",
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
# What a request was before a proxy: a lie unless a proxy says it. Some frameworks even
# route by X-Original-URL and X-Rewrite-URL.
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
MAX_FIELD_NAMES = 1024  # whose kind is kept
# What is to be done with a client's field.
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
    """What to do with fields by their names; remembered, for they come again."""

    def __init__(self, refused: frozenset[bytes], exactly: frozenset[bytes]) -> None:
        self._refused = refused
        self._exactly = exactly
        self.known: dict[bytes, int] = {}

    def classify(self, name: bytes) -> int:
        """What to do with a client's field of this name."""
        if len(self.known) >= MAX_FIELD_NAMES:
            self.known.clear()
        kind = SPECIAL_FIELDS.get(name, PASS)
        if kind in (PASS, TRACE):
            # Twins of what frames a message stay here too: some upstream folds them.
            known = folded(name)
            passes = (
                known not in self._refused
                and known not in HOP_BY_HOP
                and name not in self._exactly
                and (known == name or known != b"content-length")
            )
            if not passes:
                kind = DROP
            elif name == b"forwarded":
                kind = FORWARDED
        self.known[name] = kind
        return kind


class UpstreamHeaders:
    """Makes the heads; *via* is our name in Via fields, b"" for none.

    With *strips_identity* whatever could name a user is taken from the client's fields,
    else only what the rules of *injector* say.
    """

    def __init__(
        self,
        injector: HeaderInjector,
        is_own_cookie: Callable[[bytes], bool],
        *,
        strips_identity: bool = True,
        via: bytes = b"",
    ) -> None:
        own = injector.stripped | REPLACED
        if strips_identity:
            own |= IDENTITY_FIELDS - injector.kept - injector.stripped_exactly
        self.protected = own | ORIGIN_FIELDS
        self._trusted = _FieldPolicies(own, injector.stripped_exactly)
        self._untrusted = _FieldPolicies(self.protected, injector.stripped_exactly)
        self._injector = injector
        self._is_own_cookie = is_own_cookie
        self._via: Headers = ((b"via", b"1.1 " + via),) if via else ()

    def build(
        self,
        request: Request,
        original: OriginalRequest,
        session: Session | None,
        host: bytes,
        upgrade: bytes = b"",
    ) -> tuple[Headers, Headers]:
        """The whole head, framing aside; *upgrade* is the protocol to ask for.

        Ours come last, and nothing that the client says about its connection can
        remove them (RFC 9110 §7.6.1). The last of them, which the rules give for the
        session, are given once more by themselves.
        """
        trusted = original.trusted
        passed = _FieldFilter(self._trusted if trusted else self._untrusted)
        passed.read(request.headers, self._is_own_cookie)
        identity = self._injector.headers(session)
        head = (
            *passed.fields(),
            (b"host", host),
            *passed.chain(request.peer, trusted=trusted),
            (b"x-forwarded-host", original.host.encode()),
            (b"x-forwarded-proto", original.scheme.encode()),
            *self._via,
            *(((b"upgrade", upgrade),) if upgrade else ()),
            *passed.trailers,
            *identity,
        )
        return head, identity


class _FieldFilter:
    """What passes of a client's fields, in one look at each."""

    __slots__ = (
        "_forwarded",
        "_hops",
        "_kept",
        "_named",
        "_names",
        "_traced",
        "trailers",
    )

    def __init__(self, names: _FieldPolicies) -> None:
        self._names = names
        self._kept: list[Header] = []
        self._hops: list[bytes] = []  # of X-Forwarded-For
        self._named: set[bytes] = set()  # by Connection
        self._traced = self._forwarded = False
        self.trailers: Headers = ()  # said about the next connection, but no other

    def read(self, headers: Iterable[Header], is_own: Callable[[bytes], bool]) -> None:
        """Take the fields *headers*; cookies of a name that *is_own* do not pass."""
        known, kept = self._names.known.get, self._kept
        for field in headers:
            name, value = field
            kind = known(name)
            if kind is None:
                kind = self._names.classify(name)
            if kind == PASS:
                kept.append(field)
            elif kind == COOKIE:
                kept += _strip_session_cookies(value, is_own)
            elif kind == CHAIN:
                self._hops.append(value)
            elif kind == CONNECTION:
                self._named |= connection_options((field,))
            elif kind == TE:
                if b"trailers" in [part.strip().lower() for part in value.split(b",")]:
                    self.trailers = TRAILERS
            elif kind != DROP:
                kept.append(field)
                self._traced |= kind == TRACE
                self._forwarded |= kind == FORWARDED

    def fields(self) -> Sequence[Header]:
        """Those that pass."""
        kept: Sequence[Header] = self._kept
        if self._named:
            kept = [field for field in kept if field[0] not in self._named]
        return without_bad_trace(kept) if self._traced else kept

    def chain(self, peer: str, *, trusted: bool) -> Headers:
        """Who it came from: X-Forwarded-For, and Forwarded where a proxy began it."""
        node = peer.encode()
        if not trusted:
            return ((b"x-forwarded-for", node),) if node else ()
        hops = [*self._hops, node] if node else self._hops
        fields: Headers = ((b"x-forwarded-for", b", ".join(hops)),) if hops else ()
        if node and self._forwarded:
            # RFC 7239 §4: each proxy adds an element of its own, as a field of its own here.
            node = b'"[%b]"' % node if b":" in node else node
            fields += ((b"forwarded", b"for=" + node),)
        return fields


def _strip_session_cookies(line: bytes, is_own: Callable[[bytes], bool]) -> Headers:
    """The Cookie field *line* without our own, which are for nobody else."""
    foreign: list[bytes] = []
    start, size = 0, len(line)
    while start < size:
        # Looking for the semicolons one by one beats split(), which walks byte by byte.
        end = line.find(b";", start)
        end = size if end < 0 else end
        equals = line.find(b"=", start, end)
        if not is_own(line[start : end if equals < 0 else equals].strip()):
            pair = line[start:end].strip(b" \t")
            if pair:
                foreign.append(pair)
        start = end + 1
    return ((b"cookie", b"; ".join(foreign)),) if foreign else ()
