"""Messages between the core and its driver: requests, decisions, events.

The input is an immutable `Request`; bodies stay with the driver. The result is a
decision: `Respond`, `Forward` or `ServeFile`. Field names are lower-case bytes, field
values are bytes as on the wire (RFC 9110 §5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = tuple[Header, ...]

# The access decision, for logs and metrics. "": not an access decision (a page, a health
# check); "failed": the session could not be checked. The reason code that accompanies it
# is stable, such as "session" or "groups".
Verdict: TypeAlias = Literal["", "allowed", "unauthenticated", "denied", "failed"]


# Metrics count each kind; the auth log contains the kinds that concern logins.
EventKind: TypeAlias = Literal[
    "bad_request",
    "cookie_dropped",
    "denied",
    "effect_failed",
    "keys_withdrawn",
    "logged_in",
    "logged_out",
    "logged_out_by_provider",
    "login_denied",
    "login_failed",
    "login_started",
    "logout_failed",
    "logout_refused",
    "page_failed",
    "peer_untrusted",
    "provider_failed",
    "provider_ready",
    "refresh_failed",
    "refresh_not_shared",
    "refreshed",
    "roles_missing",
    "session_ended",
    "token_refused",
    "upstream_failed",
]


class Request(Struct, frozen=True):
    """The head of a request.

    ``target`` is the request target as received (RFC 9112 §3.2). ``peer`` is the address
    of the TCP peer without port, regardless of X-Forwarded-For; "" for a unix socket.
    ``secure``: the connection uses TLS. ``id`` identifies the request in logs and on
    error pages.
    """

    method: bytes
    target: bytes
    headers: Sequence[Header]
    peer: str
    secure: bool = False
    id: str = ""


class Event(Struct, frozen=True):
    """An event for logs and metrics; contains no token, code, cookie or secret.

    ``kind`` and ``reason`` are stable codes, ``detail`` is text for the operator.
    """

    kind: EventKind
    user: str = ""
    reason: str = ""
    detail: str = ""


class Response(Struct, frozen=True):
    """A complete response of the identity provider: the result of `effects.Fetch`."""

    status: int
    headers: Headers = ()
    body: bytes = b""


class Respond(Struct, frozen=True):
    """Send this response to the client.

    The driver adds Content-Length, Date and, if needed, Connection. ``reusable``: the
    same object is returned again, so a driver may cache its encoded form.
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
    """The server that a request is forwarded to.

    ``host`` is a name or an address; the path ``unix`` of a socket takes precedence.
    ``timeout`` (seconds) limits the wait for the response's head, 0: no limit.
    ``verify``, ``ca_pem`` (trusted CA certificates), ``trust_system`` and
    ``server_name`` ("": the host) are for TLS. ``keep_alive``: connections may be
    reused. ``http2``: the server speaks HTTP/2 only.
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
    """Forward the request to an upstream; the driver streams its body.

    ``headers`` are all headers to send, without hop-by-hop fields. ``identity`` are the
    identity headers at their end; they are the same object for all requests of a session.
    ``response_headers`` are added to the upstream's response, cookies last; ``reusable``:
    they are such an object too, so a driver may cache their encoded form. ``upgrade``:
    the request asks for the protocol in ``headers``; 101 opens a tunnel. ``protected``
    are field names that trailers of the client must not have, as returned by
    `identity.headers.folded`.
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

    def merge_response_headers(self, upstream_headers: Headers) -> Headers:
        """Return the response headers for the client.

        The added fields precede those of the upstream, because a recipient may read the
        first of two equal names. Cookies follow them: the last of two cookies counts.
        """
        added = self.response_headers
        if not added or added[-1][0] != b"set-cookie":
            return (*added, *upstream_headers)
        cookies = [field for field in added if field[0] == b"set-cookie"]
        others = [field for field in added if field[0] != b"set-cookie"]
        return (*others, *upstream_headers, *cookies)


class ServeFile(Struct, frozen=True):
    """Serve the file ``path`` beneath the directory ``root``.

    ``path`` is decoded and starts with a slash. ``upstream`` is the id of the upstream
    for logs. ``follow``: symlinks may leave ``root``.
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
    """Return all values of the field *name* (lower-case), in their order."""
    return [value for field, value in headers if field == name]


def first_header(headers: Iterable[Header], name: bytes) -> bytes | None:
    """Return the first value of the field *name* (lower-case), or None."""
    for field, value in headers:
        if field == name:
            return value
    return None


def single_header(headers: Iterable[Header], name: bytes) -> bytes | None:
    """Return the value of the field *name* if it occurs exactly once, else None."""
    values = header_values(headers, name)
    return values[0] if len(values) == 1 else None


def upstream_name(decision: Decision) -> str:
    """Return the id of the upstream of *decision*, "" without an upstream."""
    if isinstance(decision, Forward):
        return decision.upstream.id
    return decision.upstream if isinstance(decision, ServeFile) else ""
