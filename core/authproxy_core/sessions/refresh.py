"""Refresh a stale session (RFC 6749 §6), once for all requests that carry it.

Two locks make a refresh single-flight: a local one, so that waiters in this process do
not ask the store, and one in the store for all processes. If the provider is
unavailable, the old session stays valid until it expires.

A refresh shares its result with the waiters: a stored session under its ticket, a cookie
session in a record under the generation of the old session. It also shares tokens whose
session could not be built, because the provider may have revoked the old refresh token.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from ..effects import (
    Delete,
    Flow,
    Load,
    LoadAll,
    Lock,
    Save,
    release_quietly,
    retry_store,
    with_lock,
)
from ..errors import (
    AuthProxyError,
    ConflictError,
    FetchError,
    ProviderError,
    SealError,
    StoreError,
    TokenError,
)
from ..messages import Request
from ..session import Session
from .context import RefreshContext, ResolvedSession, SessionContext, failure_event
from .oauth2_proxy_format import Ticket
from .refresh_cache import (
    LOCK_TTL,
    OLD_COOKIE_GRACE,
    PENDING_TOKENS_MAX_AGE,
    PENDING_TOKENS_TTL,
    SESSION_ENDED,
    PendingTokens,
    RefreshResult,
)
from .session_cache import SavedSession, SessionEntry

LOCK_WAIT = 20.0  # seconds that a request waits for a concurrent refresh

_ENCODER = msgspec.msgpack.Encoder()


def refresh_session(
    context: SessionContext, request: Request, entry: SessionEntry
) -> Flow[ResolvedSession]:
    """Return the refreshed session, or the old one if it cannot be refreshed now.

    Provider errors are reported as events. Raises `StoreError` for a stored session if
    the store is unavailable.
    """
    refresh = RefreshContext(context, request, entry)
    known = yield from _cached_result(refresh)
    if known is not None:
        return known
    # Before refresh_due_at the old session is valid, so requests do not wait.
    early = context.clock() < entry.deadlines.refresh_due_at
    in_vain = refresh.cache.is_overdue(refresh.generation)
    wait = 0.0 if early or in_vain else LOCK_WAIT
    key = f"refresh:{refresh.generation}"
    flow = _refresh_with_local_lock(refresh, wait)
    resolved = yield from with_lock(
        key, flow, ttl=LOCK_TTL, wait=wait, local=True, purpose="refresh"
    )
    # Without the lock in time, the session stays valid until it expires.
    return resolved or ResolvedSession(entry)


def _refresh_with_local_lock(
    refresh: RefreshContext, wait: float
) -> Flow[ResolvedSession]:
    """Refresh unless a concurrent request did; take the lock in the store, if any."""
    known = yield from _cached_result(refresh)
    if known is not None:
        return known
    ticket = refresh.entry.ticket
    if ticket is not None:
        flow = refresh_stored_session(refresh, ticket)
        return (yield from _with_store_lock(refresh, f"{ticket.id}.lock", wait, flow))
    flow = refresh_cookie_session(refresh)
    if not refresh.sessions.has_store:
        return (yield from flow)
    try:
        key = refresh.store_key("refresh")
        return (yield from _with_store_lock(refresh, key, wait, flow))
    except StoreError as error:
        return refresh.failed(error)


def refresh_cookie_session(refresh: RefreshContext) -> Flow[ResolvedSession]:
    """Refresh a session in cookies while holding the locks. Raises `StoreError`."""
    entry, shared_tokens = refresh.entry, None
    if refresh.sessions.has_store:
        kinds = (refresh.store_key("renewed"), refresh.store_key("unfinished"))
        keys = (*kinds, refresh.revocation_key)
        result_data, tokens_data, revoked = yield from LoadAll(keys)
        if revoked is not None:
            return refresh.ended()
        result = refresh.read_result(result_data)
        if result is not None:
            return (yield from _use_result(refresh, result))
        shared_tokens = refresh.read_tokens(tokens_data)
    if refresh.context.clock() >= entry.ends_at:
        return refresh.ended()  # it expired while this request waited
    pending = refresh.cache.pending_tokens(refresh.generation)
    if pending is None or (
        shared_tokens is not None and shared_tokens.received_at > pending.received_at
    ):
        pending = shared_tokens
    try:
        session = yield from _request_session(refresh, entry, pending)
        if refresh.cache.has_ended(refresh.identity):
            return refresh.ended()
        saved = yield from refresh.sessions.rewrite(entry, session, refresh.browser)
    except StoreError:
        raise
    except AuthProxyError as error:
        if _is_fatal(error):
            return (yield from _end_cookie_session(refresh, error))
        yield from _share_tokens(refresh)
        return refresh.failed(error)
    refresh.cache.put_result(refresh.generation, RefreshResult(saved.entry.sealed))
    if refresh.sessions.has_store:
        other = yield from _share_result(refresh, saved)
        if other is not None:
            return other
    return refresh.refreshed(saved)


def refresh_stored_session(
    refresh: RefreshContext, ticket: Ticket
) -> Flow[ResolvedSession]:
    """Refresh a stored session while holding the locks. Raises `StoreError`."""
    entry = yield from refresh.sessions.load(refresh.entry)
    if entry is None:
        return refresh.ended()
    if refresh.context.clock() < entry.deadlines.refresh_from:
        return refresh.with_cookies(entry)  # another process has just refreshed it
    # The store has the newest refresh token; tokens from before it are of no use.
    pending = refresh.cache.pending_tokens(refresh.generation)
    if pending is not None and entry.session.refresh_token not in (
        pending.used_refresh_token,
        pending.tokens.refresh_token,
    ):
        pending = None
    try:
        session = yield from _request_session(refresh, entry, pending)
        if refresh.cache.has_ended(refresh.identity):
            return refresh.ended()
        replaced = yield from _replace_stored(refresh, entry, ticket, session)
    except StoreError:
        raise
    except AuthProxyError as error:
        if _is_fatal(error):
            return (yield from _end_stored_session(refresh, entry, error))
        yield from _store_tokens(refresh, entry, ticket)
        return refresh.failed(error)
    if isinstance(replaced, SavedSession):
        return refresh.refreshed(replaced)
    return refresh.ended() if replaced is None else refresh.with_cookies(replaced)


# -- locks and results of concurrent refreshes


def _cached_result(refresh: RefreshContext) -> Flow[ResolvedSession | None]:
    """Return the outcome that this process already knows; None: refresh."""
    if refresh.cache.has_ended(refresh.identity):
        return refresh.ended()
    result = refresh.cache.result(refresh.generation)
    if result is not None:
        return (yield from _use_result(refresh, result))
    provider = refresh.entry.session.provider
    if not refresh.cache.can_try(refresh.generation) or refresh.cache.is_paused(
        provider
    ):
        return ResolvedSession(refresh.entry)
    return None


def _use_result(
    refresh: RefreshContext, result: RefreshResult
) -> Flow[ResolvedSession]:
    """Return the session of a concurrent refresh; its cookie is validated as well."""
    if result.value is None:
        return refresh.ended()
    entry = refresh.sessions.parse_cookie(result.value)
    if entry is not None and entry.needs_load:
        entry = yield from refresh.sessions.load(entry)
    return refresh.ended() if entry is None else refresh.with_cookies(entry)


def _with_store_lock(
    refresh: RefreshContext, key: str, wait: float, flow: Flow[ResolvedSession]
) -> Flow[ResolvedSession]:
    """Run *flow* while holding the lock *key* in the store. Raises `StoreError`.

    Without the lock in time, returns the old session and delays the next attempt; later
    requests do not wait, because the holder may have been killed.
    """
    if not (yield from Lock(key, LOCK_TTL, wait)):
        flow.close()
        refresh.cache.delay_poll(refresh.generation)
        if wait:
            refresh.cache.mark_overdue(refresh.generation)
        return ResolvedSession(refresh.entry)
    try:
        resolved = yield from flow
    except Exception:
        yield from release_quietly(key)
        raise
    yield from () if refresh.keeps_lock else release_quietly(key)
    return resolved


# -- the provider


def _request_session(
    refresh: RefreshContext, entry: SessionEntry, pending: PendingTokens | None
) -> Flow[Session]:
    """Return the session with new tokens: *pending* if usable, else the provider's.

    After a request that has failed late, the provider is left alone for a while, so that
    other sessions do not wait for it.
    """
    provider_id, failed = entry.session.provider, False
    began_at = refresh.cache.begin_attempt(provider_id)
    try:
        return (yield from _session_with_new_tokens(refresh, entry, pending))
    except FetchError:
        failed = True
        raise
    finally:
        refresh.cache.end_attempt(provider_id, began_at, failed=failed)


def _session_with_new_tokens(
    refresh: RefreshContext, entry: SessionEntry, pending: PendingTokens | None
) -> Flow[Session]:
    session, now = entry.session, refresh.context.clock()
    # The ID token of older tokens may have expired.
    if pending is None or now - pending.received_at >= PENDING_TOKENS_MAX_AGE:
        pending = yield from _request_tokens(refresh, session, pending)
    provider = refresh.context.provider_of(session)
    return (yield from provider.apply_refresh(session, pending.tokens))


def _request_tokens(
    refresh: RefreshContext, session: Session, pending: PendingTokens | None
) -> Flow[PendingTokens]:
    """Redeem the newest known refresh token."""
    token = pending.tokens.refresh_token if pending is not None else ""
    if token:
        session = msgspec.structs.replace(session, refresh_token=token)
    tokens = yield from refresh.context.provider_of(session).refresh(session)
    if not tokens.refresh_token and token:
        tokens = msgspec.structs.replace(tokens, refresh_token=token)
    # The provider may have revoked the old refresh token, so a later failure must not
    # lose the new one.
    used = session.refresh_token
    return refresh.cache.put_tokens(refresh.generation, tokens, used)


# -- sessions in cookies


def _share_result(
    refresh: RefreshContext, saved: SavedSession
) -> Flow[ResolvedSession | None]:
    """Share the new cookie; return the outcome that takes its place, None: none.

    The session was revoked meanwhile, or this refresh lost its lock, and another
    process refreshed the session.
    """
    value, other = saved.entry.sealed, None
    try:
        if not (yield from retry_store(lambda: _save_result(refresh, value, b""))):
            key = refresh.store_key("renewed")
            data = yield from retry_store(lambda: iter(Load(key)))
            other = refresh.read_result(data)
        revoked = yield from retry_store(lambda: _is_revoked(refresh))
    except StoreError as error:
        # The new session is valid, but other processes cannot find it.
        refresh.keeps_lock = True
        refresh.context.on_event(
            failure_event("refresh_not_shared", refresh.entry, error)
        )
        return None
    if revoked:
        refresh.cache.put_result(refresh.generation, RefreshResult(None))
        with suppress(StoreError):
            yield from _save_result(refresh, SESSION_ENDED)
            yield from refresh.sessions.revoke(saved.entry)
        return refresh.ended()
    if other is None or other.value == value:  # a repeated save finds its own value
        return None
    return (yield from _use_result(refresh, other))


def _save_result(
    refresh: RefreshContext, value: bytes, expected: bytes | None = None
) -> Flow[bool]:
    """Save a cookie value for requests that carry the old cookie.

    With *expected* b"", returns False if another process has saved one.
    """
    key = refresh.store_key("renewed")
    record = refresh.sessions.formats.seal_record(key, value)
    return (yield from Save(key, record, OLD_COOKIE_GRACE, expected)) is not False


def _share_tokens(refresh: RefreshContext) -> Flow[None]:
    """Save tokens whose session could not be built, for the next attempt."""
    pending = refresh.cache.pending_tokens(refresh.generation)
    if pending is not None and refresh.sessions.has_store:
        key = refresh.store_key("unfinished")
        record = refresh.sessions.formats.seal_record(key, _ENCODER.encode(pending))
        with suppress(StoreError):
            yield from Save(key, record, PENDING_TOKENS_TTL)


def _end_cookie_session(
    refresh: RefreshContext, error: AuthProxyError
) -> Flow[ResolvedSession]:
    """End a session whose refresh the provider rejected."""
    if refresh.sessions.has_store:
        # If this lock expired, a concurrent refresh may have redeemed the token first:
        # use its session.
        with suppress(StoreError):
            data = yield from Load(refresh.store_key("renewed"))
            result = refresh.read_result(data)
            if result is not None:
                return (yield from _use_result(refresh, result))
    refresh.cache.put_result(refresh.generation, RefreshResult(None))
    if refresh.sessions.has_store:
        with suppress(StoreError):
            yield from _save_result(refresh, SESSION_ENDED)
    refresh.context.on_event(failure_event("session_ended", refresh.entry, error))
    return refresh.ended()


# -- stored sessions


def _replace_stored(
    refresh: RefreshContext, entry: SessionEntry, ticket: Ticket, session: Session
) -> Flow[SavedSession | SessionEntry | None]:
    """Save *session* under its ticket; None if the session was revoked meanwhile.

    If this refresh lost its lock, and another process has saved a newer session, that
    one is returned.
    """
    data = yield from retry_store(lambda: iter(Load(ticket.id)))
    if data is None:
        return None  # oauth2-proxy ends a session by deleting it
    if not _holds(refresh, entry, ticket, data):
        return (yield from refresh.sessions.load(entry))
    try:
        saved = yield from retry_store(
            lambda: refresh.sessions.rewrite(entry, session, refresh.browser, data)
        )
    except ConflictError:
        # Also a repeated save, whose first reply was lost, finds another value.
        return (yield from refresh.sessions.load(entry))
    # Sign-out writes the revocation mark, then deletes: this refresh either sees the
    # mark, or its write is deleted.
    if (yield from retry_store(lambda: _is_revoked(refresh))):
        yield from Delete(ticket.id)
        return None
    return saved


def _holds(
    refresh: RefreshContext, entry: SessionEntry, ticket: Ticket, data: bytes
) -> bool:
    """Return whether the stored *data* is the session of *entry*."""
    try:
        stored = refresh.sessions.formats.unseal_stored(ticket, data)
    except SealError:
        return False
    session = entry.session
    return (stored.created_at, stored.refresh_token) == (
        session.created_at,
        session.refresh_token,
    )


def _store_tokens(
    refresh: RefreshContext, entry: SessionEntry, ticket: Ticket
) -> Flow[None]:
    """Save the new refresh token of a session that could not be built.

    The session keeps its age, so the next request refreshes it.
    """
    pending = refresh.cache.pending_tokens(refresh.generation)
    if pending is not None and pending.tokens.refresh_token:
        session = msgspec.structs.replace(
            entry.session, refresh_token=pending.tokens.refresh_token
        )
        with suppress(StoreError):
            yield from _replace_stored(refresh, entry, ticket, session)


def _end_stored_session(
    refresh: RefreshContext, entry: SessionEntry, error: AuthProxyError
) -> Flow[ResolvedSession]:
    """End a session whose refresh the provider rejected. Raises `StoreError`."""
    # If this lock expired, a concurrent refresh may have redeemed the token first: use
    # its session.
    current = yield from refresh.sessions.load(entry)
    created_at = entry.session.created_at
    if current is not None and current.session.created_at != created_at:
        return refresh.with_cookies(current)
    with suppress(StoreError):
        yield from refresh.sessions.revoke(entry)
    refresh.context.on_event(failure_event("session_ended", entry, error))
    return refresh.ended()


# -- both


def _is_revoked(refresh: RefreshContext) -> Flow[bool]:
    return (yield from Load(refresh.revocation_key)) is not None


def _is_fatal(error: AuthProxyError) -> bool:
    """Return whether the session has ended: token revoked, or access withdrawn."""
    if isinstance(error, TokenError):
        return error.reason not in ("unknown_key", "clock_skew")
    return isinstance(error, ProviderError) and error.reason in (
        "invalid_grant",
        "email_invalid",
        "email_missing",
        "email_unverified",
        "userinfo_subject",
        "not_allowed",
    )
