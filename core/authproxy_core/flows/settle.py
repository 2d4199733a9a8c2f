"""What becomes of a session that can't be used as it stands.

It may have to be looked up in the store, to be refreshed, to be noted as in use; or it
is over. A session that needs none of these never comes here.
"""

from __future__ import annotations

from contextlib import suppress

from ..effects import Flow
from ..errors import StoreError
from ..messages import Headers, Request
from ..recall import Entry, is_outdated
from ..session import Session
from .context import Context, Settled
from .refresh import refresh


def settle(context: Context, request: Request, entry: Entry) -> Flow[Settled]:
    """The session as it can be used now, and the cookies for the client.

    Raises `StoreError` when a session that needs the store can't be judged.
    """
    settled = yield from _settle(context, request, entry)
    kept = settled.entry
    if kept is None or context.clock() < kept.ends_at:
        return settled
    # It came to its end while we waited.
    return over(context, request)


def over(context: Context, request: Request) -> Settled:
    """No session, and cookies that say so."""
    browser = context.browser(request)
    return Settled(
        None, context.sessions.clear(host=browser.host, present=browser.present)
    )


def _settle(context: Context, request: Request, entry: Entry) -> Flow[Settled]:
    now = context.clock()
    headers: Headers = ()
    # Another process may have seen the session since: the store knows.
    if entry.cold or (entry.ticket is not None and now >= entry.span.noted_at):
        loaded = yield from context.sessions.load(entry)
        if loaded is None:
            return over(context, request)
        if context.binding.active and context.foreign(request, loaded):
            return Settled(None)  # its cookie is good elsewhere
        entry = loaded
        if is_outdated(entry):
            headers = context.sessions.cookies_again(entry, context.browser(request))
    if now >= entry.span.early_at:
        settled = yield from refresh(context, request, entry)
        return settled if settled.headers else Settled(settled.entry, headers)
    if now >= entry.span.noted_at:
        return (yield from _noted(context, request, entry, headers))
    return Settled(entry, headers)


def _noted(
    context: Context, request: Request, entry: Entry, headers: Headers
) -> Flow[Settled]:
    with suppress(StoreError):  # it holds a while yet; the next request tries again
        kept = yield from context.sessions.note_use(entry, context.browser(request))
        return Settled(kept.entry, kept.headers or headers)
    return Settled(entry, headers)


def identified(
    context: Context, request: Request
) -> Flow[tuple[Session | None, Headers]]:
    """The session that a request carries, ready to be used, and cookies for the client.

    Raises `StoreError` when the session needs the store, and that is away.
    """
    entry = context.sessions.recall(request.headers)
    bound = context.binding.active
    if entry is None or (bound and context.foreign(request, entry)):
        return None, cleared_if_broken(context, request)
    if context.clock() < entry.fresh_until:
        return entry.session, ()
    settled = yield from settle(context, request, entry)
    return (settled.entry.session if settled.entry else None), settled.headers


def cleared_if_broken(context: Context, request: Request) -> Headers:
    """Cookies that end a session's cookies which hold none; () without any."""
    present = context.sessions.present(request.headers)
    if not present or context.sessions.recall(request.headers) is not None:
        return ()
    return over(context, request).headers
