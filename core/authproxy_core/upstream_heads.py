"""The head that an upstream gets: what passes of the client's, and what we say.

What a client says about itself is believed from trusted proxies alone. From everybody
else, fields that tell where a request came from or what it was are left out, and those
that name the user always: an upstream behind us takes them for ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .headers import HOP_BY_HOP, Injector, connection_options, folded
from .messages import Header, Headers, Request, header_values
from .original import Original
from .session import Session
from .trace import without_bad_trace

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
MAX_NAMES = 1024  # whose verdict is kept


class _Names:
    """Which names of fields pass; a verdict is remembered, for they come again."""

    def __init__(self, refused: frozenset[bytes], exactly: frozenset[bytes]) -> None:
        self._refused = refused
        self._exactly = exactly
        self._verdicts: dict[bytes, bool] = {}

    def passes(self, name: bytes) -> bool:
        """Whether a client's field of this name passes."""
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= MAX_NAMES:
                self._verdicts.clear()
            # Twins of what frames a message stay here too: some upstream folds them.
            known = folded(name)
            verdict = (
                known not in self._refused
                and known not in HOP_BY_HOP
                and name not in self._exactly
                and (known == name or known != b"content-length")
            )
            self._verdicts[name] = verdict
        return verdict


class UpstreamHeads:
    """Makes the heads; *via* is our name in Via fields, b"" for none.

    With *strips_identity* whatever could name a user is taken from the client's fields,
    else only what the rules of *injector* say.
    """

    def __init__(
        self,
        injector: Injector,
        is_own_cookie: Callable[[bytes], bool],
        *,
        strips_identity: bool = True,
        via: bytes = b"",
    ) -> None:
        own = injector.stripped | REPLACED
        if strips_identity:
            own |= IDENTITY_FIELDS - injector.kept - injector.stripped_exactly
        self.protected = own | ORIGIN_FIELDS
        self._trusted = _Names(own, injector.stripped_exactly)
        self._untrusted = _Names(self.protected, injector.stripped_exactly)
        self._injector = injector
        self._is_own_cookie = is_own_cookie
        self._via: Headers = ((b"via", b"1.1 " + via),) if via else ()

    def head(
        self,
        request: Request,
        original: Original,
        session: Session | None,
        host: bytes,
        upgrade: bytes = b"",
    ) -> Headers:
        """The whole head, framing aside; *upgrade* is the protocol to ask for.

        Ours come last, and nothing that the client says about its connection can
        remove them (RFC 9110 §7.6.1).
        """
        passed = self._passed(request.headers, trusted=original.trusted)
        return (
            *without_bad_trace(passed),
            (b"host", host),
            *_chain(request, trusted=original.trusted),
            (b"x-forwarded-host", original.host.encode()),
            (b"x-forwarded-proto", original.scheme.encode()),
            *self._via,
            *_connection(request.headers, upgrade),
            *self._injector.headers(session),
        )

    def _passed(self, headers: Iterable[Header], *, trusted: bool) -> list[Header]:
        passes = (self._trusted if trusted else self._untrusted).passes
        kept: list[Header] = []
        named: set[bytes] = set()
        for field in headers:
            name = field[0]
            if name == b"cookie":
                kept += self._cookies(field[1])
            elif passes(name):
                kept.append(field)
            elif name == b"connection":
                named |= connection_options((field,))
        if named:
            return [field for field in kept if field[0] not in named]
        return kept

    def _cookies(self, value: bytes) -> Headers:
        pairs = [pair.strip(b" \t") for pair in value.split(b";")]
        foreign = [
            pair
            for pair in pairs
            if pair and not self._is_own_cookie(pair.partition(b"=")[0].strip())
        ]
        return ((b"cookie", b"; ".join(foreign)),) if foreign else ()


def _chain(request: Request, *, trusted: bool) -> Headers:
    """Who it came from: X-Forwarded-For, and Forwarded where a proxy began it."""
    peer = request.peer.encode()
    hops = [peer] if peer else []
    if not trusted:
        return ((b"x-forwarded-for", peer),) if peer else ()
    hops = [*header_values(request.headers, b"x-forwarded-for"), *hops]
    fields: Headers = ((b"x-forwarded-for", b", ".join(hops)),) if hops else ()
    if peer and header_values(request.headers, b"forwarded"):
        # RFC 7239 §4: each proxy adds an element of its own, as a field of its own here.
        node = b'"[%b]"' % peer if b":" in peer else peer
        fields += ((b"forwarded", b"for=" + node),)
    return fields


def _connection(headers: Iterable[Header], upgrade: bytes) -> Headers:
    """What is said about the connection to the upstream, but about no other."""
    fields: Headers = ((b"upgrade", upgrade),) if upgrade else ()
    for value in header_values(headers, b"te"):
        if b"trailers" in [part.strip().lower() for part in value.split(b",")]:
            return (*fields, (b"te", b"trailers"))
    return fields
