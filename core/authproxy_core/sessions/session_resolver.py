"""Resolve a session that must be loaded, refreshed or touched before use.

A fresh session does not come here: the auth check uses its entry directly.
"""

from __future__ import annotations

from contextlib import suppress

from ..effects import Flow
from ..errors import StoreError
from ..messages import Headers, Request
from ..session import Session
from .context import ResolvedSession, SessionContext
from .refresh import refresh_session
from .session_cache import SessionEntry, is_outdated


def session_of_request(
    context: SessionContext, request: Request
) -> Flow[tuple[Session | None, Headers]]:
    """Return the session of *request*, ready for use, and its Set-Cookie fields.

    Raises `StoreError` if the session needs the store and the store is unavailable.
    """
    entry = context.sessions.lookup(request.headers)
    bound = context.binding.is_active
    if entry is None or (bound and context.is_unbound_session(request, entry)):
        return None, clear_invalid_cookies(context, request)
    if context.clock() < entry.fresh_until:
        return entry.session, ()
    resolved = yield from resolve_session(context, request, entry)
    return (resolved.entry.session if resolved.entry else None), resolved.headers


def resolve_session(
    context: SessionContext, request: Request, entry: SessionEntry
) -> Flow[ResolvedSession]:
    """Load, refresh or touch a session, and return it with its Set-Cookie fields.

    Raises `StoreError` if the session needs the store and the store is unavailable.
    """
    unbound = False
    for candidate in context.sessions.candidates(request.headers, entry):
        resolved = yield from _resolve(context, request, candidate)
        if resolved is None:
            unbound = True
        elif resolved.entry and context.clock() < resolved.entry.ends_at:
            return resolved
    return ResolvedSession(None) if unbound else ended_session(context, request)


def _resolve(
    context: SessionContext, request: Request, entry: SessionEntry
) -> Flow[ResolvedSession | None]:
    """Resolve one session of the request; None: it is valid on another host only."""
    bound = context.binding.is_active
    if bound and context.is_unbound_session(request, entry):
        return None
    now = context.clock()
    headers: Headers = ()
    # Another process may have touched a stored session since: the store knows.
    touch_is_due = entry.ticket is not None and now >= entry.deadlines.touch_due_at
    if entry.needs_load or touch_is_due:
        loaded = yield from context.sessions.load(entry)
        if loaded is None:
            return ended_session(context, request)
        if bound and context.is_unbound_session(request, loaded):
            return None
        entry = loaded
        if is_outdated(entry):
            headers = context.sessions.reissue_cookie(entry, context.browser(request))
    if now >= entry.deadlines.refresh_from:
        resolved = yield from refresh_session(context, request, entry)
        if resolved.entry is not entry or not _is_touched_unrefreshed(context, entry):
            return ResolvedSession(resolved.entry, resolved.headers or headers)
    if now >= entry.deadlines.touch_due_at:
        with suppress(StoreError):  # still valid for a while; the next request retries
            saved = yield from context.sessions.touch(entry, context.browser(request))
            return ResolvedSession(saved.entry, saved.headers or headers)
    return ResolvedSession(entry, headers)


def _is_touched_unrefreshed(context: SessionContext, entry: SessionEntry) -> bool:
    """Return whether the use of a session is recorded although it was not refreshed.

    Else it would become idle, however it is used, while the provider is unavailable. But
    a touch of a session in cookies must not replace the cookie of a concurrent refresh.
    """
    if entry.ticket is not None:
        return True
    cache = context.sessions.refresh_cache
    return cache.is_paused(entry.session.provider) or cache.has_failed(
        context.sessions.generation(entry)
    )


def load_any(
    context: SessionContext, request: Request, entry: SessionEntry
) -> Flow[SessionEntry | None]:
    """Return the newest session in the cookies of *request* that has not ended.

    *entry* is one of them. Raises `StoreError`.
    """
    for candidate in context.sessions.candidates(request.headers, entry):
        loaded: SessionEntry | None = candidate
        if candidate.needs_load:
            loaded = yield from context.sessions.load(candidate)
        if loaded is not None:
            return loaded
    return None


def ended_session(context: SessionContext, request: Request) -> ResolvedSession:
    """No session, and Set-Cookie fields that clear its cookies."""
    cleared = context.sessions.clear(context.browser(request))
    return ResolvedSession(None, cleared)


def clear_invalid_cookies(context: SessionContext, request: Request) -> Headers:
    """Return Set-Cookie fields that clear session cookies without a valid session.

    Returns () if the request has no session cookie or a valid one.
    """
    present = context.sessions.cookie_names(request.headers)
    if not present or context.sessions.lookup(request.headers) is not None:
        return ()
    return ended_session(context, request).headers
