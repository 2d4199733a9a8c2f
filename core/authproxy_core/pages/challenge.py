"""What the unauthenticated get: a login, the sign-in page, or 401."""

from __future__ import annotations

import re
from collections.abc import Iterable

import orjson

from ..messages import (
    Header,
    Headers,
    Request,
    Respond,
    Verdict,
    first_header,
    header_values,
)
from .pages import NO_CACHE

TEXT_HEADERS: Headers = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
)
JSON_HEADERS: Headers = (
    (b"content-type", b"application/json"),
    (b"x-content-type-options", b"nosniff"),
)
NO_STORE: Headers = ((b"cache-control", b"no-store"),)


def plain_response(
    status: int,
    text: bytes,
    headers: Headers = (),
    verdict: Verdict = "",
    reason: str = "",
) -> Respond:
    """A short plain text answer that nobody may keep."""
    fields = (*TEXT_HEADERS, *NO_STORE, *headers)
    return Respond(status, fields, text, verdict=verdict, reason=reason)


def unauthorized_response(headers: Headers = (), reason: str = "no_session") -> Respond:
    """401 for a gateway, or for whoever is no browser."""
    return plain_response(401, b"Unauthorized\n", headers, "unauthenticated", reason)


def forbidden_response(headers: Headers = (), reason: str = "query") -> Respond:
    """403 for a gateway: the user is known but may not."""
    return plain_response(403, b"Forbidden\n", headers, "denied", reason)


def unauthorized_json_response(
    headers: Headers = (), reason: str = "no_session"
) -> Respond:
    """401 for a script, which could do nothing with a page."""
    fields = (*JSON_HEADERS, *NO_CACHE, *headers)
    return Respond(401, fields, b"{}", verdict="unauthenticated", reason=reason)


def login_required_response(sign_in: str, headers: Headers = ()) -> Respond:
    """401 for a script behind a gateway: says what is wrong, and where a login is."""
    body = orjson.dumps({"error": "login_required", "sign_in": sign_in})
    fields = (*JSON_HEADERS, *NO_CACHE, *headers)
    return Respond(401, fields, body, verdict="unauthenticated", reason="no_session")


def wants_json(headers: Iterable[Header]) -> bool:
    """Whether an Accept field lists exactly ``application/json``."""
    return any(
        item.strip() == b"application/json"
        for value in header_values(headers, b"accept")
        for item in value.split(b",")
    )


# What a page is loaded into; anything else could not show a login.
_DOCUMENT_DESTINATIONS = frozenset({b"document", b"iframe", b"frame"})
_ZERO_WEIGHT = re.compile(rb"(?:^|;)\s*q\s*=\s*0(?:\.0{0,3})?\s*(?:;|$)")
_HTML = (b"text/html", b"application/xhtml+xml")


def is_navigation(method: bytes, headers: Iterable[Header]) -> bool:
    """Whether a browser's user goes to a page, so that a redirect can lead to a login.

    Browsers say so in Sec-Fetch-Mode and -Dest (W3C Fetch Metadata), over https at
    least; where these lack, only who asks for HTML is taken for one. A script's request
    would get the login's page as its answer, or fail on another origin.
    """
    headers = list(headers)
    if method not in (b"GET", b"HEAD") or _is_scripted(headers):
        return False
    mode = first_header(headers, b"sec-fetch-mode")
    if mode is None:
        return _accepts(headers, _HTML)
    dest = first_header(headers, b"sec-fetch-dest") or b"document"
    accept = header_values(headers, b"accept")
    shows_html = not accept or _accepts(headers, (*_HTML, b"*/*"))
    return mode == b"navigate" and dest in _DOCUMENT_DESTINATIONS and shows_html


def _is_scripted(headers: Iterable[Header]) -> bool:
    return any(name in (b"x-requested-with", b"upgrade") for name, _ in headers)


def _accepts(headers: Iterable[Header], kinds: Iterable[bytes]) -> bool:
    """Whether an Accept field lists one of *kinds*, whatever its weight but 0."""
    for value in header_values(headers, b"accept"):
        for item in value.lower().split(b","):
            kind, _, parameters = item.partition(b";")
            if kind.strip() in kinds and not _ZERO_WEIGHT.search(parameters):
                return True
    return False


def is_upgrade(request: Request) -> bool:
    """Whether the client asks for another protocol; it could follow no redirect."""
    return bool(header_values(request.headers, b"upgrade"))
