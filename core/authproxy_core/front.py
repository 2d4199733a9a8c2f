"""What is around every endpoint: https only, and for long; a query that became a path.

Built only for settings that ask for it, so that others pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from .effects import Flow, Outcome
from .errors import RequestError
from .gate import Https
from .messages import Decision, Forward, Header, Request, Respond
from .original import Original
from .settings import Settings

Handler: TypeAlias = Callable[[Request], Outcome]


def fronted(
    settings: Settings, handler: Handler, original: Callable[[Request], Original]
) -> Handler:
    """*handler*, behind what *settings* want before it."""
    if settings.gate.force_https:
        handler = _https_only(Https(settings.gate), handler, original)
    if settings.hsts:
        handler = _strict(settings.hsts.encode(), handler, original)
    return handler


def _https_only(
    https: Https, handler: Handler, original: Callable[[Request], Original]
) -> Handler:
    def handle(request: Request) -> Outcome:
        return https.redirect(original(request)) or handler(request)

    return handle


def _strict(
    value: bytes, handler: Handler, original: Callable[[Request], Original]
) -> Handler:
    """Strict-Transport-Security on what goes to browsers over https (RFC 6797 §7.2)."""
    field: Header = (b"strict-transport-security", value)

    def handle(request: Request) -> Outcome:
        outcome = handler(request)
        # What is kept are answers for gateways: they hand none of it to a browser.
        if type(outcome) is Respond and outcome.kept:
            return outcome
        if original(request).scheme != "https":
            return outcome
        if isinstance(outcome, Decision):
            return _with_field(outcome, field)
        return later(outcome)

    def later(flow: Flow[Decision]) -> Flow[Decision]:
        return _with_field((yield from flow), field)

    return handle


def _with_field(decision: Decision, field: Header) -> Decision:
    if isinstance(decision, Respond):
        return replace(decision, headers=(*decision.headers, field))
    fields = (*decision.response_headers, field)
    if isinstance(decision, Forward):
        return replace(decision, response_headers=fields, kept=False)
    return replace(decision, response_headers=fields)


def with_query(request: Request, path: bytes, query: bytes) -> Request:
    """*request* at *path* with the query that was escaped as a part of the path.

    nginx takes the ``?`` of an ``auth_request`` for a letter of the path and escapes it.
    Raises `RequestError` when there is a query besides: which one is the gateway's?
    """
    if b"?" in request.target:
        raise RequestError("expected one query, got one in the path besides")
    return replace(request, target=path + b"?" + unquote_to_bytes(query))
