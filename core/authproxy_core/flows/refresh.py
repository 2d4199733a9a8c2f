"""Refreshing a stale session (RFC 6749 §6): once for all requests that carry it.

The first request takes a lock and asks the provider; the others wait for it and take
what it made. While the provider is away the old session lives on until it expires.
"""

from __future__ import annotations

import hashlib

from ..effects import Flow, locked
from ..errors import AuthProxyError, ProviderError, TokenError
from ..messages import Event, Headers, Request
from ..recall import Entry
from ..session_stores import Renewal
from .context import Context

LOCK_TTL = 180.0  # seconds; longer than all timeouts under it together
LOCK_WAIT = 20.0  # seconds that a request waits for its sibling


def renew(context: Context, request: Request, entry: Entry) -> Flow[Renewal]:
    """What becomes of a stale session; never raises for what the provider does."""
    renewal = yield from _renew(context, request, entry)
    kept = renewal.entry
    if kept is None or context.clock() < kept.ends_at:
        return renewal
    # It came to its end while we waited.
    return Renewal(None, _cleared(context, request))


def _cleared(context: Context, request: Request) -> Headers:
    return context.sessions.clear(
        host=context.host(request), present=context.sessions.present(request.headers)
    )


def _renew(context: Context, request: Request, entry: Entry) -> Flow[Renewal]:
    known = context.sessions.renewal_of(entry)
    if known is not None:
        return known
    if not context.sessions.may_retry(entry):
        return Renewal(entry)
    key = f"refresh:{hashlib.sha256(entry.sealed).hexdigest()}"
    renewal = yield from locked(
        key, _renew_locked(context, request, entry), ttl=LOCK_TTL, wait=LOCK_WAIT
    )
    # Without the lock in time, the session is still good until it expires.
    return renewal or Renewal(entry)


def _renew_locked(context: Context, request: Request, entry: Entry) -> Flow[Renewal]:
    known = context.sessions.renewal_of(entry)
    if known is not None:
        return known
    if not context.sessions.may_retry(entry):
        return Renewal(entry)
    host = context.host(request)
    present = context.sessions.present(request.headers)
    provider = context.provider_of(entry.session)
    try:
        tokens = context.sessions.unfinished(entry)
        if tokens is None:
            tokens = yield from provider.refresh(entry.session)
            # From here on the old refresh token may be spent: what fails below must
            # not lose the new one.
            context.sessions.keep_unfinished(entry, tokens)
        session = yield from provider.renewed(entry.session, tokens)
        renewed, cookies = context.sessions.save(session, host=host, present=present)
    except AuthProxyError as error:
        if not _is_fatal(error):
            context.sessions.refresh_failed(entry)
            context.on_event(_event("refresh_failed", entry, error))
            return Renewal(entry)
        context.on_event(_event("session_ended", entry, error))
        renewal = Renewal(None, _cleared(context, request))
    else:
        context.on_event(Event("refreshed", session.name, provider.id))
        renewal = Renewal(renewed, cookies)
    context.sessions.remember_renewal(entry, renewal)
    return renewal


def _is_fatal(error: AuthProxyError) -> bool:
    """Whether the session is over: its refresh token is spent, or its user changed."""
    if isinstance(error, TokenError):
        return error.reason not in ("unknown_key", "clock_skew")
    return isinstance(error, ProviderError) and error.reason in (
        "invalid_grant",
        "email_missing",
        "email_unverified",
        "userinfo_subject",
        "not_allowed",
    )


def _event(kind: str, entry: Entry, error: AuthProxyError) -> Event:
    reason = getattr(error, "reason", error.code)
    return Event(kind, entry.session.name, reason, str(error))
