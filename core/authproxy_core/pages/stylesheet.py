"""Stylesheets for custom templates that were written for oauth2-proxy.

Those templates load two files of a CSS framework from below proxy_prefix. The built-in
pages need neither. Under both names authproxy serves a small stylesheet with the
classes that oauth2-proxy's pages use. No other path below ``/static`` exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ..messages import Headers, Request, Respond, header_values
from .challenge import plain_response
from .package_data import read_data

MAX_AGE = 3600  # seconds until browsers revalidate by ETag
METHODS = (b"GET", b"HEAD")
NOT_FOUND = plain_response(404, b"Not Found\n")
NOT_ALLOWED = plain_response(405, b"Method Not Allowed\n", ((b"allow", b"GET, HEAD"),))
NAMES = (b"/static/css/bulma.min.css", b"/static/css/all.min.css")
# all.min.css is an icon font; icons.css has only the arrow of the sign-in page.
FILES = ("classes.css", "icons.css")


def static_handlers(prefix: bytes) -> dict[bytes, Callable[[Request], Respond]]:
    """Return the handlers by path; *prefix* is proxy_prefix."""
    return {
        prefix + name: _build_handler(read_data(file))
        for name, file in zip(NAMES, FILES, strict=True)
    }


def _build_handler(text: bytes) -> Callable[[Request], Respond]:
    etag = b'"' + hashlib.sha256(text).hexdigest()[:16].encode() + b'"'
    caching: Headers = (
        (b"cache-control", b"public, max-age=%d" % MAX_AGE),
        (b"etag", etag),
        (b"x-content-type-options", b"nosniff"),
    )
    content_type = (b"content-type", b"text/css; charset=utf-8")
    full = Respond(200, (content_type, *caching), text)
    not_modified = Respond(304, caching)

    def handle(request: Request) -> Respond:
        if request.method not in METHODS:
            return NOT_ALLOWED
        return not_modified if _matches_etag(request, etag) else full

    return handle


def _matches_etag(request: Request, etag: bytes) -> bool:
    """Return whether If-None-Match lists *etag* (RFC 9110 §13.1.2)."""
    listed = (
        item.strip().removeprefix(b"W/")
        for value in header_values(request.headers, b"if-none-match")
        for item in value.split(b",")
    )
    return any(item in (etag, b"*") for item in listed)
