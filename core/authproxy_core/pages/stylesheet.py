"""A stylesheet for custom templates that were made for oauth2-proxy.

Those name two files of a CSS framework below the own endpoints. Our own pages need
neither; here is, under both names, a small stylesheet of our own for the classes that
sign-in and error pages use. There is nothing else: no other name leads to a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files

from ..messages import Headers, Request, Respond, header_values
from .challenge import plain_response

MAX_AGE = 3600  # seconds; browsers ask again by ETag then
METHODS = (b"GET", b"HEAD")
NOT_FOUND = plain_response(404, b"Not Found\n")
NOT_ALLOWED = plain_response(405, b"Method Not Allowed\n", ((b"allow", b"GET, HEAD"),))
NAMES = (b"/static/css/bulma.min.css", b"/static/css/all.min.css")
# The second of the names is for a font of icons; only the arrow of the pages is there.
FILES = ("classes.css", "icons.css")


def static_handlers(prefix: bytes) -> dict[bytes, Callable[[Request], Respond]]:
    """The handlers by path, below *prefix*."""
    folder = files(__package__).joinpath("data")
    return {
        prefix + name: _build_handler(folder.joinpath(file).read_bytes())
        for name, file in zip(NAMES, FILES, strict=True)
    }


def _build_handler(text: bytes) -> Callable[[Request], Respond]:
    etag = b'"' + hashlib.sha256(text).hexdigest()[:16].encode() + b'"'
    kept: Headers = (
        (b"cache-control", b"public, max-age=%d" % MAX_AGE),
        (b"etag", etag),
        (b"x-content-type-options", b"nosniff"),
    )
    found = Respond(200, ((b"content-type", b"text/css; charset=utf-8"), *kept), text)
    same = Respond(304, kept)

    def handle(request: Request) -> Respond:
        if request.method not in METHODS:
            return NOT_ALLOWED
        return same if _matches_etag(request, etag) else found

    return handle


def _matches_etag(request: Request, etag: bytes) -> bool:
    """Whether the client says that it has that text (RFC 9110 §13.1.2)."""
    listed = (
        item.strip().removeprefix(b"W/")
        for value in header_values(request.headers, b"if-none-match")
        for item in value.split(b",")
    )
    return any(item in (etag, b"*") for item in listed)
