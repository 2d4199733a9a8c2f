"""What becomes of a session that can't be used as it stands.

It may have to be looked up in the store, to be refreshed, to be noted as in use; or it
is over. A session that needs none of these never comes here.
"""

from __future__ import annotations

from contextlib import suppress

from ..effects import Flow
from ..errors import StoreError
from ..messages import Headers, Request
from ..session import Session
from .context import ResolvedSession, SessionContext
from .refresh import refresh
from .session_cache import SessionEntry, is_outdated


def resolve_session(
    context: SessionContext, request: Request, entry: SessionEntry
) -> Flow[ResolvedSession]:
    """The session as it can be used now, and the cookies for the client.

    Raises `StoreError` when a session that needs the store can't be judged.
    """
    settled = yield from _settle(context, request, entry)
    kept = settled.entry
    if kept is None or context.clock() < kept.ends_at:
        return settled
    # It came to its end while we waited.
    return ended_session(context, request)


def ended_session(context: SessionContext, request: Request) -> ResolvedSession:
    """No session, and cookies that say so."""
    browser = context.browser(request)
    return ResolvedSession(
        None, context.sessions.clear(host=browser.host, present=browser.present)
    )


def _settle(
    context: SessionContext, request: Request, entry: SessionEntry
) -> Flow[ResolvedSession]:
    now = context.clock()
    headers: Headers = ()
    # Another process may have seen the session since: the store knows.
    if entry.needs_load or (
        entry.ticket is not None and now >= entry.deadlines.touch_due_at
    ):
        loaded = yield from context.sessions.load(entry)
        if loaded is None:
            return ended_session(context, request)
        if context.binding.is_active and context.is_unbound_session(request, loaded):
            return ResolvedSession(None)  # its cookie is good elsewhere
        entry = loaded
        if is_outdated(entry):
            headers = context.sessions.reissue_cookie(entry, context.browser(request))
    if now >= entry.deadlines.refresh_from:
        settled = yield from refresh(context, request, entry)
        return settled if settled.headers else ResolvedSession(settled.entry, headers)
    if now >= entry.deadlines.touch_due_at:
        return (yield from _noted(context, request, entry, headers))
    return ResolvedSession(entry, headers)


def _noted(
    context: SessionContext, request: Request, entry: SessionEntry, headers: Headers
) -> Flow[ResolvedSession]:
    with suppress(StoreError):  # it holds a while yet; the next request tries again
        kept = yield from context.sessions.touch(entry, context.browser(request))
        return ResolvedSession(kept.entry, kept.headers or headers)
    return ResolvedSession(entry, headers)


def session_of_request(
    context: SessionContext, request: Request
) -> Flow[tuple[Session | None, Headers]]:
    """The session that a request carries, ready to be used, and cookies for the client.

    Raises `StoreError` when the session needs the store, and that is away.
    """
    entry = context.sessions.lookup(request.headers)
    bound = context.binding.is_active
    if entry is None or (bound and context.is_unbound_session(request, entry)):
        return None, clear_invalid_cookies(context, request)
    if context.clock() < entry.fresh_until:
        return entry.session, ()
    settled = yield from resolve_session(context, request, entry)
    return (settled.entry.session if settled.entry else None), settled.headers


def clear_invalid_cookies(context: SessionContext, request: Request) -> Headers:
    """Cookies that end a session's cookies which hold none; () without any."""
    present = context.sessions.cookie_names(request.headers)
    if not present or context.sessions.lookup(request.headers) is not None:
        return ()
    return ended_session(context, request).headers
