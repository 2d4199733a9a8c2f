"""Middleware for all endpoints: HTTPS redirect, HSTS, nginx's escaped query.

Handlers are wrapped only if the settings require it, so others have no overhead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from ..access.auth_bypass import HttpsRedirect
from ..effects import Flow, Outcome
from ..errors import RequestError
from ..messages import Decision, Forward, Header, Request, Respond
from ..request.original import OriginalRequest
from ..settings.root import Settings

Handler: TypeAlias = Callable[[Request], Outcome]


def wrap_handler(
    settings: Settings, handler: Handler, original: Callable[[Request], OriginalRequest]
) -> Handler:
    """Return *handler*, wrapped in the middleware that *settings* require."""
    if settings.auth_bypass.force_https:
        handler = _redirect_to_https(
            HttpsRedirect(settings.auth_bypass), handler, original
        )
    if settings.hsts:
        handler = _add_hsts(settings.hsts.encode(), handler, original)
    return handler


def _redirect_to_https(
    https: HttpsRedirect,
    handler: Handler,
    original: Callable[[Request], OriginalRequest],
) -> Handler:
    def handle(request: Request) -> Outcome:
        return https.redirect(original(request)) or handler(request)

    return handle


def _add_hsts(
    value: bytes, handler: Handler, original: Callable[[Request], OriginalRequest]
) -> Handler:
    """Add Strict-Transport-Security to responses over https (RFC 6797 §7.2)."""
    field: Header = (b"strict-transport-security", value)

    def handle(request: Request) -> Outcome:
        outcome = handler(request)
        # Reusable responses are for gateways, which do not pass their headers on.
        if type(outcome) is Respond and outcome.reusable:
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
        return replace(decision, response_headers=fields, reusable=False)
    return replace(decision, response_headers=fields)


def restore_query(request: Request, path: bytes, query: bytes) -> Request:
    """Return *request* for *path* with the *query* that was escaped in its path.

    nginx treats the ``?`` of an ``auth_request`` URI as part of the path and escapes it.
    Raises `RequestError` if there is another query: either may be the gateway's.
    """
    if b"?" in request.target:
        raise RequestError("two queries: one is escaped in the path")
    return replace(request, target=path + b"?" + unquote_to_bytes(query))
