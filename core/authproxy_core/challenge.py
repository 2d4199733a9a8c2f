"""What the unauthenticated get: a login, the sign-in page, or 401."""

from __future__ import annotations

from collections.abc import Iterable

from .messages import Header, Headers, Request, Respond, Verdict, header_values
from .pages import NO_CACHE

TEXT: Headers = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
)
JSON: Headers = (
    (b"content-type", b"application/json"),
    (b"x-content-type-options", b"nosniff"),
)
NO_STORE: Headers = ((b"cache-control", b"no-store"),)


def plain(
    status: int,
    text: bytes,
    headers: Headers = (),
    verdict: Verdict = "",
    reason: str = "",
) -> Respond:
    """A short plain text answer that nobody may keep."""
    fields = (*TEXT, *NO_STORE, *headers)
    return Respond(status, fields, text, verdict=verdict, reason=reason)


def unauthorized(headers: Headers = (), reason: str = "no_session") -> Respond:
    """401 for a gateway, or for whoever is no browser."""
    return plain(401, b"Unauthorized\n", headers, "unauthenticated", reason)


def forbidden(headers: Headers = (), reason: str = "query") -> Respond:
    """403 for a gateway: the user is known but may not."""
    return plain(403, b"Forbidden\n", headers, "denied", reason)


def unauthorized_json(headers: Headers = (), reason: str = "no_session") -> Respond:
    """401 for a script, which could do nothing with a page."""
    fields = (*JSON, *NO_CACHE, *headers)
    return Respond(401, fields, b"{}", verdict="unauthenticated", reason=reason)


def wants_json(headers: Iterable[Header]) -> bool:
    """Whether an Accept field lists exactly ``application/json``."""
    return any(
        item.strip() == b"application/json"
        for value in header_values(headers, b"accept")
        for item in value.split(b",")
    )


def is_upgrade(request: Request) -> bool:
    """Whether the client asks for another protocol; it could follow no redirect."""
    return bool(header_values(request.headers, b"upgrade"))
