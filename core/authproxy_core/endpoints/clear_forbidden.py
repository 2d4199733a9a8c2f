"""Ends the session of whoever may not come in, for those who want it so.

By default such a session is kept, for a gateway that sees a 401 sends its user to log in
again, for ever. Built around the endpoints only when settings ask for it, so that others
pay nothing. Rules about a place and demands of a query end no session: it is good
elsewhere.
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
from ..sessions.session_resolver import ended_session
from .middleware import Handler

# What `Context.refusal` says of a session, and what may hide that.
REFUSALS = frozenset({"email", "groups", "user", "query"})


def with_session_clearing(
    context: Context, routes: Mapping[bytes, Handler], elsewhere: Handler
) -> tuple[dict[bytes, Handler], Handler]:
    """The handlers, with the end of a session that may not come in.

    Its cookies are cleared, and it is taken from the store. The auth check and userinfo
    answer 401 then, everything else as ever.
    """
    prefix = context.settings.proxy_prefix.encode()
    asking = (prefix + b"/auth", prefix + b"/userinfo")
    ended = {
        path: _ending(context, handler, _as_nobody if path in asking else _as_it_is)
        for path, handler in routes.items()
    }
    page = prefix + b"/sign_in"
    ended[page] = _ending_at_page(context, routes[page])
    return ended, _ending(context, elsewhere, _as_it_is)


def _as_nobody(answer: Respond) -> Respond:
    asked = challenge.unauthorized_response()
    return replace(answer, status=401, headers=asked.headers, body=asked.body)


def _as_it_is(answer: Respond) -> Respond:
    return answer


def _ending(
    context: Context, handler: Handler, changed: Callable[[Respond], Respond]
) -> Handler:
    def handle(request: Request) -> Outcome:
        outcome = handler(request)
        if isinstance(outcome, Decision) and not _refuses(outcome):
            return outcome
        return later(request, outcome)

    def later(request: Request, outcome: Outcome) -> Flow[Decision]:
        answer = yield from resolve_outcome(outcome)
        if not isinstance(answer, Respond) or not _refuses(answer):
            return answer
        # The query is judged first, and says nothing about the session otherwise.
        if answer.reason == "query" and not (yield from _is_refused(context, request)):
            return answer
        cookies = yield from _end(context, request)
        return _with_cookies(context, changed(answer), cookies)

    return handle


def _refuses(decision: Decision) -> bool:
    return decision.verdict == "denied" and decision.reason in REFUSALS


def _ending_at_page(context: Context, handler: Handler) -> Handler:
    """The same at the sign-in page, which asks nobody who they are."""

    def handle(request: Request) -> Flow[Decision]:
        answer = yield from resolve_outcome(handler(request))
        if not isinstance(answer, Respond) or answer.status == 302:
            return answer  # on to the provider, or logged in by a password
        if not (yield from _is_refused(context, request)):
            return answer
        cookies = yield from _end(context, request)
        return _with_cookies(context, answer, cookies)

    return handle


def _is_refused(context: Context, request: Request) -> Flow[bool]:
    """Whether there is a session that is over, or may not come in.

    Not while nobody knows.
    """
    entry = context.sessions.lookup(request.headers)
    if entry is None:
        return False
    if entry.needs_load:
        try:
            loaded = yield from context.sessions.load(entry)
        except StoreError:
            return False
        if loaded is None:
            return True
        entry = loaded
    if context.binding.is_active and context.is_unbound_session(request, entry):
        return False
    return bool(context.denial_reason(entry.session))


def _end(context: Context, request: Request) -> Flow[Headers]:
    """End the session that a request shows; cookies that say so.

    A store that is away changes nothing: nobody comes in by what stays there.
    """
    entry = context.sessions.lookup(request.headers)
    if entry is not None:
        with suppress(StoreError):
            yield from context.sessions.revoke(entry)
    if not context.sessions.cookie_names(request.headers):
        return ()
    return ended_session(context, request).headers


def _with_cookies(context: Context, answer: Respond, cookies: Headers) -> Respond:
    """*answer* with *cookies*, in place of those of a session just refreshed."""
    kept = (
        field
        for field in answer.headers
        if field[0] != b"set-cookie"
        or not context.sessions.is_session_cookie(field[1].partition(b"=")[0])
    )
    return replace(answer, headers=(*kept, *cookies), reusable=False)
