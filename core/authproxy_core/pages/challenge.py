"""Plain and JSON responses, and the choice between a redirect and 401."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

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
HTML_HEADERS: Headers = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
)
NO_STORE: Headers = ((b"cache-control", b"no-store"),)
REDIRECTS = {301: b"Moved Permanently", 302: b"Found", 308: b"Permanent Redirect"}
# Challenges for rejected credentials (RFC 9110 §11.6.1, RFC 6750 §3, RFC 7617 §2).
BEARER: Headers = ((b"www-authenticate", b'Bearer error="invalid_token"'),)
BASIC: Headers = ((b"www-authenticate", b'Basic realm="authproxy", charset="UTF-8"'),)


def plain_response(
    status: int,
    text: bytes,
    headers: Headers = (),
    verdict: Verdict = "",
    reason: str = "",
) -> Respond:
    """Return an uncacheable plain text response."""
    fields = (*TEXT_HEADERS, *NO_STORE, *headers)
    return Respond(status, fields, text, verdict=verdict, reason=reason)


def redirect_response(status: int, location: bytes) -> Respond:
    """Return an uncacheable redirect to *location* with a link (RFC 9110 §15.4)."""
    fields = (*HTML_HEADERS, *NO_STORE, (b"location", location))
    return Respond(status, fields, redirect_body(status, location))


def redirect_body(status: int, location: bytes) -> bytes:
    """Return a link to *location* as HTML."""
    url = escape(location.decode("latin-1")).encode("latin-1")
    return b'<a href="%b">%b</a>.\n' % (url, REDIRECTS[status])


def unauthorized_response(headers: Headers = (), reason: str = "no_session") -> Respond:
    """Return 401 for a gateway or an API request."""
    return plain_response(401, b"Unauthorized\n", headers, "unauthenticated", reason)


def login_link_response(link: str, headers: Headers = ()) -> Respond:
    """Return 401 with a link to the login, for a browser behind a gateway."""
    text = f'<p>Unauthorized. <a href="{escape(link)}">Sign in</a></p>\n'
    fields = (*HTML_HEADERS, *NO_STORE, *headers)
    return Respond(
        401, fields, text.encode(), verdict="unauthenticated", reason="no_session"
    )


def forbidden_response(headers: Headers = (), reason: str = "query") -> Respond:
    """Return 403 for a gateway: the user is authenticated but has no access."""
    return plain_response(403, b"Forbidden\n", headers, "denied", reason)


def unauthorized_json_response(
    headers: Headers = (), reason: str = "no_session"
) -> Respond:
    """Return 401 with an empty JSON object for an API request."""
    fields = (*JSON_HEADERS, *NO_CACHE, *headers)
    return Respond(401, fields, b"{}", verdict="unauthenticated", reason=reason)


def login_required_response(sign_in: str, headers: Headers = ()) -> Respond:
    """Return 401 for an API request behind a gateway, with the sign-in URL as JSON."""
    body = orjson.dumps({"error": "login_required", "sign_in": sign_in})
    fields = (*JSON_HEADERS, *NO_CACHE, *headers)
    return Respond(401, fields, body, verdict="unauthenticated", reason="no_session")


def accepts_html(headers: Iterable[Header]) -> bool:
    """Return whether the first Accept field contains ``text/html``, as of browsers."""
    return b"text/html" in (first_header(headers, b"accept") or b"")


def wants_json(headers: Iterable[Header]) -> bool:
    """Return whether an Accept field lists exactly ``application/json``."""
    return any(
        item.strip() == b"application/json"
        for value in header_values(headers, b"accept")
        for item in value.split(b",")
    )


# Sec-Fetch-Dest values that can show a login page.
_DOCUMENT_DESTINATIONS = frozenset({b"document", b"iframe", b"frame"})
_ZERO_WEIGHT = re.compile(rb"(?:^|;)\s*q\s*=\s*0(?:\.0{0,3})?\s*(?:;|$)")
_HTML = (b"text/html", b"application/xhtml+xml")


def is_navigation(method: bytes, headers: Iterable[Header]) -> bool:
    """Return whether the request is a navigation, so a redirect can start a login.

    Browsers send Sec-Fetch-Mode and -Dest (W3C Fetch Metadata) over HTTPS; without
    them, a request that accepts HTML counts as a navigation. An API request would
    receive the provider's HTML page, or fail as cross-origin.
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
    """Return whether an Accept field lists one of *kinds* with a weight above 0."""
    for value in header_values(headers, b"accept"):
        for item in value.lower().split(b","):
            kind, _, parameters = item.partition(b";")
            if kind.strip() in kinds and not _ZERO_WEIGHT.search(parameters):
                return True
    return False


def is_upgrade(request: Request) -> bool:
    """Return whether the client requests an upgrade; it cannot follow a redirect."""
    return bool(header_values(request.headers, b"upgrade"))
