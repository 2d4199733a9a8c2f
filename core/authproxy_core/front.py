"""What comes before every endpoint: https only, and a query that became a part of the path.

Built only for settings that ask for it, so that others pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from .effects import Outcome
from .errors import RequestError
from .gate import Https
from .messages import Request
from .original import Original
from .settings import Settings

Handler: TypeAlias = Callable[[Request], Outcome]


def fronted(
    settings: Settings, handler: Handler, original: Callable[[Request], Original]
) -> Handler:
    """*handler*, behind what *settings* want before it."""
    if settings.gate.force_https:
        handler = _https_only(Https(settings.gate), handler, original)
    return handler


def _https_only(
    https: Https, handler: Handler, original: Callable[[Request], Original]
) -> Handler:
    def handle(request: Request) -> Outcome:
        return https.redirect(original(request)) or handler(request)

    return handle


def with_query(request: Request, path: bytes, query: bytes) -> Request:
    """*request* at *path* with the query that was escaped as a part of the path.

    nginx takes the ``?`` of an ``auth_request`` for a letter of the path and escapes it.
    Raises `RequestError` when there is a query besides: which one is the gateway's?
    """
    if b"?" in request.target:
        raise RequestError("expected one query, got one in the path besides")
    return replace(request, target=path + b"?" + unquote_to_bytes(query))
