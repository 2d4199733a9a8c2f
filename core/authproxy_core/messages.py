"""What goes into the core and what comes out.

In comes one immutable `Request`; bodies stay with the driver. Out comes a decision:
`Respond`, `Forward` or `ServeFile`. Names of headers are lower-case bytes, values are
bytes as on the wire (RFC 9110 §5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = tuple[Header, ...]

# What was decided about access, for logs and metrics. "": the request was not about
# access (a page, a health check); "failed": who asked for it could not be found out.
# Each comes with a reason, a stable word such as "session" or "groups".
Verdict: TypeAlias = Literal["", "allowed", "unauthenticated", "denied", "failed"]


# What an event may be. Metrics count each of them, logs know which are about logins.
EventKind: TypeAlias = Literal[
    "bad_request",
    "denied",
    "effect_failed",
    "logged_in",
    "logged_out",
    "logged_out_by_provider",
    "login_denied",
    "login_failed",
    "logout_failed",
    "logout_refused",
    "page_failed",
    "provider_failed",
    "provider_ready",
    "refresh_failed",
    "refresh_not_shared",
    "refreshed",
    "session_ended",
    "token_refused",
    "upstream_failed",
]


class Request(Struct, frozen=True):
    """The head of a request.

    ``target`` is the request target as received (RFC 9112 §3.2). ``peer`` is the
    address of the TCP peer without port, before any X-Forwarded-For; it is empty for a
    unix socket. ``secure`` says that the connection itself is TLS. ``id`` names the
    request in logs and on error pages.
    """

    method: bytes
    target: bytes
    headers: Sequence[Header]
    peer: str
    secure: bool = False
    id: str = ""


class Event(Struct, frozen=True):
    """A fact for logs and metrics; holds no token, code, cookie or secret.

    ``kind`` and ``reason`` are stable words, ``detail`` is a sentence for the operator.
    """

    kind: EventKind
    user: str = ""
    reason: str = ""
    detail: str = ""


class Response(Struct, frozen=True):
    """A whole answer of the identity provider (what `effects.Fetch` returns)."""

    status: int
    headers: Headers = ()
    body: bytes = b""


class Respond(Struct, frozen=True):
    """Answer the client with this.

    The driver adds Content-Length, Date and, where needed, Connection. ``kept`` says
    that this very object will be handed out again, so that its bytes are worth keeping.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    events: tuple[Event, ...] = ()
    user: str = ""
    reusable: bool = False
    verdict: Verdict = ""
    reason: str = ""


class Upstream(Struct, frozen=True):
    """Where a request is forwarded to; ``timeout`` (seconds) is for its answer's head.

    ``host`` is a name or an address; with ``unix`` set, that socket is used instead.
    ``timeout`` 0 means no limit. ``verify``, ``ca_pem`` (certificates to trust),
    ``trust_system`` and ``server_name`` ("": the host) are for TLS. ``keep_alive``
    says whether a connection may carry more than one request, ``http2`` that it speaks
    HTTP/2 and nothing else.
    """

    id: str
    scheme: str
    host: str
    port: int
    unix: str = ""
    timeout: float = 30.0
    verify: bool = True
    ca_pem: str = ""
    trust_system: bool = True
    server_name: str = ""
    keep_alive: bool = True
    http2: bool = False


class Forward(Struct, frozen=True):
    """Pass the request on; the driver streams its body.

    ``headers`` is the whole head to send, hop-by-hop fields removed; ``identity`` are the
    last of them, which say who the user is: one object for all requests of a session.
    ``response_headers`` are added to the upstream's answer, cookies last among them;
    ``kept`` says that they are such an object too, so that their bytes are worth keeping.
    With ``upgrade`` it asks for another protocol, named in ``headers``, and bytes pass
    freely after a 101. ``protected`` are the names that the client's trailers may not
    have either, as `headers.folded` gives them.
    """

    upstream: Upstream
    method: bytes
    target: bytes
    headers: Headers
    response_headers: Headers = ()
    upgrade: bool = False
    events: tuple[Event, ...] = ()
    user: str = ""
    verdict: Verdict = ""
    reason: str = ""
    protected: frozenset[bytes] = frozenset()
    identity: Headers = ()
    reusable: bool = False

    def merge_response_headers(self, theirs: Headers) -> Headers:
        """The upstream's fields and ours.

        Ours come first, for who reads the first of two must not read what the upstream
        says about the user; but of two cookies the last one counts.
        """
        ours = self.response_headers
        if not ours or ours[-1][0] != b"set-cookie":
            return (*ours, *theirs)
        cookies = [field for field in ours if field[0] == b"set-cookie"]
        rest = [field for field in ours if field[0] != b"set-cookie"]
        return (*rest, *theirs, *cookies)


class ServeFile(Struct, frozen=True):
    """Serve a file below ``root``; ``path`` is decoded and starts with a slash.

    ``upstream`` is the name of the upstream in logs. With ``follow``, symbolic links may
    lead out of ``root``.
    """

    root: str
    path: str
    response_headers: Headers = ()
    events: tuple[Event, ...] = ()
    user: str = ""
    verdict: Verdict = ""
    reason: str = ""
    upstream: str = ""
    follow: bool = False


Decision: TypeAlias = Respond | Forward | ServeFile


def header_values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """All values of the fields called *name* (lower-case), in their order."""
    return [value for field, value in headers if field == name]


def first_header(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The first value of the fields called *name* (lower-case), or None."""
    for field, value in headers:
        if field == name:
            return value
    return None


def single_header(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The value of *name* when it stands there exactly once, else None."""
    values = header_values(headers, name)
    return values[0] if len(values) == 1 else None


def upstream_name(decision: Decision) -> str:
    """The id of the upstream of *decision*, "" when it has none."""
    if isinstance(decision, Forward):
        return decision.upstream.id
    return decision.upstream if isinstance(decision, ServeFile) else ""
