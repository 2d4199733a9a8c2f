"""End sessions that are not authorized (``forbidden_session = "clear"``).

By default they are kept, because a gateway that receives 401 redirects the user to the
login again and again. Sessions that fail only an access rule or a query constraint are
always kept: they are valid for other requests. The handlers are wrapped only if the
settings require it, so others have no overhead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec.structs import replace

from ..effects import Flow, Outcome
from ..errors import StoreError
from ..login.context import Context
from ..messages import Decision, Headers, Request, Respond
from ..pages import challenge
from ..pages.outcomes import resolve_outcome
from ..sessions.session_resolver import ended_session, load_any
from .middleware import Handler

# Reasons of `Context.denial_reason`; "query" is checked first and may hide one of them.
REASONS = frozenset({"email", "groups", "user", "query"})


def with_session_clearing(
    context: Context, routes: Mapping[bytes, Handler], elsewhere: Handler
) -> tuple[dict[bytes, Handler], Handler]:
    """Wrap the handlers so that they end a session that is not authorized.

    Its cookies are cleared and it is deleted from the store. The auth check and userinfo
    return 401 for it; other responses keep their status.
    """
    prefix = context.settings.proxy_prefix.encode()
    unauthorized = (prefix + b"/auth", prefix + b"/userinfo")
    wrapped = {
        path: _with_clearing(
            context, handler, _as_unauthorized if path in unauthorized else _unchanged
        )
        for path, handler in routes.items()
    }
    page = prefix + b"/sign_in"
    wrapped[page] = _with_clearing_at_sign_in(context, routes[page])
    return wrapped, _with_clearing(context, elsewhere, _unchanged)


def _as_unauthorized(response: Respond) -> Respond:
    unauthorized = challenge.unauthorized_response()
    return replace(
        response, status=401, headers=unauthorized.headers, body=unauthorized.body
    )


def _unchanged(response: Respond) -> Respond:
    return response


def _with_clearing(
    context: Context, handler: Handler, convert: Callable[[Respond], Respond]
) -> Handler:
    def handle(request: Request) -> Outcome:
        outcome = handler(request)
        if isinstance(outcome, Decision) and not _denies_session(outcome):
            return outcome
        return clear_session(request, outcome)

    def clear_session(request: Request, outcome: Outcome) -> Flow[Decision]:
        response = yield from resolve_outcome(outcome)
        if not isinstance(response, Respond) or not _denies_session(response):
            return response
        if response.reason == "query" and not (yield from _is_denied(context, request)):
            return response
        cookies = yield from _end_session(context, request)
        return _with_cookies(context, convert(response), cookies)

    return handle


def _denies_session(decision: Decision) -> bool:
    return decision.verdict == "denied" and decision.reason in REASONS


def _with_clearing_at_sign_in(context: Context, handler: Handler) -> Handler:
    """Wrap the sign-in page, which does not check the session by itself."""

    def handle(request: Request) -> Flow[Decision]:
        response = yield from resolve_outcome(handler(request))
        if not isinstance(response, Respond) or response.status == 302:
            return response  # redirected to the provider, or logged in by password
        if not (yield from _is_denied(context, request)):
            return response
        cookies = yield from _end_session(context, request)
        return _with_cookies(context, response, cookies)

    return handle


def _is_denied(context: Context, request: Request) -> Flow[bool]:
    """Return whether the session of *request* has ended or is not authorized.

    False if the store is unavailable.
    """
    entry = context.sessions.lookup(request.headers)
    if entry is None:
        return False
    if entry.needs_load:
        try:
            loaded = yield from load_any(context, request, entry)
        except StoreError:
            return False
        if loaded is None:
            return True
        entry = loaded
    if context.binding.is_active and context.is_unbound_session(request, entry):
        return False
    return bool(context.denial_reason(entry.session))


def _end_session(context: Context, request: Request) -> Flow[Headers]:
    """End the session of *request*; return the cookies that clear it.

    If the store is unavailable, the session stays there, but it is not authorized.
    """
    entry = context.sessions.lookup(request.headers)
    if entry is not None:
        with suppress(StoreError):
            yield from context.sessions.revoke(entry)
    if not context.sessions.cookie_names(request.headers):
        return ()
    return ended_session(context, request).headers


def _with_cookies(context: Context, response: Respond, cookies: Headers) -> Respond:
    """Return *response* with *cookies* in place of those of a refreshed session."""
    kept = (
        field
        for field in response.headers
        if field[0] != b"set-cookie"
        or not context.sessions.is_session_cookie(field[1].partition(b"=")[0])
    )
    return replace(response, headers=(*kept, *cookies), reusable=False)
