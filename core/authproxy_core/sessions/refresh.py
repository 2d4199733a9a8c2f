"""Refreshing a stale session (RFC 6749 §6): once for all requests that carry it.

The first request takes a lock and asks the provider; the others wait for it and take
what it made. There are two locks: one in this process, so that siblings here wait
without asking the store, and one in the store for all processes. While the provider is
away the old session lives on until it expires.

What a refresh made is left for siblings: in the ticket's place in the store, or, for
sessions in cookies, sealed under the generation of the old session. So are tokens whose
session could not be made: the old refresh token is spent by then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from ..effects import (
    Delete,
    Flow,
    Load,
    LoadAll,
    Lock,
    Save,
    Sleep,
    release_quietly,
    with_lock,
)
from ..errors import AuthProxyError, ProviderError, SealError, StoreError, TokenError
from ..messages import Event, EventKind, Request
from ..session import Session
from .context import ResolvedSession, SessionContext
from .oauth2_proxy_format import Ticket
from .refresh_cache import (
    OLD_COOKIE_GRACE,
    PENDING_TOKENS_MAX_AGE,
    PENDING_TOKENS_TTL,
    PendingTokens,
    RefreshResult,
)
from .session_cache import SessionEntry
from .sessions import SavedSession

R = TypeVar("R")

LOCK_TTL = 180.0  # seconds; longer than all timeouts under it together
LOCK_WAIT = 20.0  # seconds that a request waits for its sibling
SAVE_RETRY_DELAYS = (
    0.1,
    0.4,
    1.0,
)  # seconds between tries to save what can't be made again
ENDED = b"-"  # in place of a cookie's value: the session is over

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(PendingTokens)


def refresh(
    context: SessionContext, request: Request, entry: SessionEntry
) -> Flow[ResolvedSession]:
    """What becomes of a stale session; never raises for what the provider does.

    Raises `StoreError` when the session is in the store, and that is away.
    """
    return (yield from _Refresh(context, request, entry).run())


class _Refresh:
    """One request's part in the refresh of a session."""

    def __init__(
        self, context: SessionContext, request: Request, entry: SessionEntry
    ) -> None:
        self._context = context
        self._sessions = context.sessions
        self._memory = context.sessions.refresh_cache
        self._request = request
        self._entry = entry
        self._identity = self._sessions.identity(entry)
        self._generation = self._sessions.generation(entry)
        self._browser = context.browser(request)
        # Set when siblings elsewhere can't learn what was made: while the lock holds,
        # none of them spends the old refresh token once more.
        self._keeps_lock = False

    # -- taking turns

    def run(self) -> Flow[ResolvedSession]:
        known = yield from self._known()
        if known is not None:
            return known
        # Early, the session is good for a while: nobody needs to wait for the one
        # request that refreshes it.
        early = self._context.clock() < self._entry.deadlines.refresh_due_at
        wait = 0.0 if early else LOCK_WAIT
        settled = yield from with_lock(
            f"refresh:{self._generation}",
            self._with_local_lock(wait),
            ttl=LOCK_TTL,
            wait=wait,
            local=True,
        )
        # Without the lock in time, the session is still good until it expires.
        return settled or ResolvedSession(self._entry)

    def _known(self) -> Flow[ResolvedSession | None]:
        """What this process remembers of the session, or None: go on."""
        if self._memory.has_ended(self._identity):
            return self._over()
        renewed = self._memory.result(self._generation)
        if renewed is not None:
            return (yield from self._taken(renewed))
        if not self._memory.can_try(self._generation):
            return ResolvedSession(self._entry)
        return None

    def _with_local_lock(self, wait: float) -> Flow[ResolvedSession]:
        known = yield from self._known()
        if known is not None:
            return known
        if self._context.clock() >= self._entry.ends_at:
            return self._over()  # it came to its end while we waited
        if not self._sessions.has_store:
            return (yield from self._renew(self._entry, None))
        try:
            return (yield from self._with_store_lock(wait))
        except StoreError as error:
            if self._entry.ticket is not None:
                raise
            return self._failed(error)

    def _with_store_lock(self, wait: float) -> Flow[ResolvedSession]:
        """The same among all processes, by a lock in the store."""
        ticket = self._entry.ticket
        key = self._key("refresh") if ticket is None else f"{ticket.id}.lock"
        if not (yield from Lock(key, LOCK_TTL, wait)):
            self._memory.delay_poll(self._generation)
            return ResolvedSession(self._entry)
        try:
            settled = yield from (
                self._refresh_cookie_session()
                if ticket is None
                else self._refresh_stored_session()
            )
        except Exception:
            yield from release_quietly(key)
            raise
        yield from () if self._keeps_lock else release_quietly(key)
        return settled

    def _key(self, kind: str) -> str:
        name = self._context.settings.cookie.name
        return f"{name}:{kind}:{self._generation}"

    # -- what others made

    def _refresh_stored_session(self) -> Flow[ResolvedSession]:
        """A ticket's session, refreshed unless somebody else has just done it."""
        current = yield from self._sessions.load(self._entry)
        if current is None:
            return self._over()
        if self._context.clock() < current.deadlines.refresh_from:
            return self._with_cookies(current)
        return (yield from self._renew(current, None))

    def _refresh_cookie_session(self) -> Flow[ResolvedSession]:
        """A cookie's session, refreshed unless somebody left a newer one."""
        mark = self._sessions.index.revocations.session_key(self._identity)
        keys = (self._key("renewed"), self._key("unfinished"), mark)
        renewed, tokens, ended = yield from LoadAll(keys)
        if ended is not None:
            return self._over()
        left = self._read_left(renewed)
        if left is not None:
            return (yield from self._taken(left))
        return (yield from self._renew(self._entry, self._tokens(keys[1], tokens)))

    def _read_left(self, data: bytes | None) -> RefreshResult | None:
        """What was left for siblings, which is remembered here from now on."""
        value = self._opened(self._key("renewed"), data) if data is not None else None
        if value is None:
            return None
        left = RefreshResult(None if value == ENDED else value)
        self._memory.put_result(self._generation, left)
        return left

    def _opened(self, key: str, data: bytes) -> bytes | None:
        try:
            return self._sessions.formats.unseal_record(key, data)
        except SealError:
            return None

    def _tokens(self, key: str, data: bytes | None) -> PendingTokens | None:
        note = self._opened(key, data) if data is not None else None
        with suppress(msgspec.DecodeError):
            return _DECODER.decode(note) if note is not None else None
        return None

    def _taken(self, renewed: RefreshResult) -> Flow[ResolvedSession]:
        """The session that a sibling made; its cookie is judged like any other."""
        if renewed.value is None:
            return self._over()
        entry = self._sessions.parse_cookie(renewed.value)
        if entry is not None and entry.needs_load:
            entry = yield from self._sessions.load(entry)
        return self._over() if entry is None else self._with_cookies(entry)

    def _with_cookies(self, entry: SessionEntry) -> ResolvedSession:
        """*entry* with the cookies that carry it, if the client's are older ones."""
        headers = self._sessions.reissue_cookie(entry, self._browser)
        if not headers and entry.sealed != self._entry.sealed:
            headers = self._sessions.cookie_headers(entry, self._browser)
        return ResolvedSession(entry, headers)

    def _over(self) -> ResolvedSession:
        browser = self._browser
        return ResolvedSession(
            None, self._sessions.clear(host=browser.host, present=browser.present)
        )

    # -- asking the provider

    def _renew(
        self, entry: SessionEntry, left: PendingTokens | None
    ) -> Flow[ResolvedSession]:
        kept = self._newest(entry, left)
        try:
            if kept is None or not self._are_usable(kept):
                kept = yield from self._asked(entry.session, kept)
            provider = self._context.provider_of(entry.session)
            session = yield from provider.apply_refresh(entry.session, kept.tokens)
            return (yield from self._keep(entry, session))
        except StoreError:
            raise
        except AuthProxyError as error:
            if _is_fatal(error):
                return (yield from self._end(entry, error))
            with suppress(StoreError):
                yield from self._leave_tokens(entry)
            return self._failed(error)

    def _newest(
        self, entry: SessionEntry, left: PendingTokens | None
    ) -> PendingTokens | None:
        """The newest tokens of an earlier try, here or (*left*) elsewhere."""
        kept = self._memory.pending_tokens(self._generation)
        if entry.ticket is not None:
            # The store has the newest refresh token; ours may be spent by now.
            current = entry.session.refresh_token
            ours = kept and current in (
                kept.used_refresh_token,
                kept.tokens.refresh_token,
            )
            return kept if ours else None
        if kept is None or (left is not None and left.received_at > kept.received_at):
            return left
        return kept

    def _are_usable(self, kept: PendingTokens) -> bool:
        """Whether the ID token among them can still be young enough."""
        return self._context.clock() - kept.received_at < PENDING_TOKENS_MAX_AGE

    def _asked(
        self, session: Session, kept: PendingTokens | None
    ) -> Flow[PendingTokens]:
        """New tokens, by the newest refresh token that is known."""
        token = kept.tokens.refresh_token if kept is not None else ""
        if token:
            session = msgspec.structs.replace(session, refresh_token=token)
        tokens = yield from self._context.provider_of(session).refresh(session)
        if not tokens.refresh_token and token:
            tokens = msgspec.structs.replace(tokens, refresh_token=token)
        # From here on the old refresh token may be spent: what fails later on must not
        # lose the new one.
        spent = session.refresh_token
        return self._memory.put_tokens(self._generation, tokens, spent)

    def _failed(self, error: AuthProxyError) -> ResolvedSession:
        self._memory.delay_retry(self._generation)
        self._context.on_event(_event("refresh_failed", self._entry, error))
        return ResolvedSession(self._entry)

    # -- leaving it for others

    def _keep(self, entry: SessionEntry, session: Session) -> Flow[ResolvedSession]:
        """Put the new session in the old one's place, unless that was ended meanwhile."""
        if self._memory.has_ended(self._identity):
            return self._over()
        if entry.ticket is None:
            settled = yield from self._keep_cookie(entry, session)
        else:
            settled = yield from self._keep_ticket(entry, entry.ticket, session)
        if settled.entry is not None:
            self._context.on_event(Event("refreshed", session.name, session.provider))
        return settled

    def _keep_ticket(
        self, entry: SessionEntry, ticket: Ticket, session: Session
    ) -> Flow[ResolvedSession]:
        # oauth2-proxy ends a session by deleting it.
        if (yield from _retry_store(lambda: iter(Load(ticket.id)))) is None:
            return self._over()
        kept = yield from _retry_store(lambda: self._rewritten(entry, session))
        # Who ends a session leaves the mark first and deletes then: either we see the
        # mark, or what we saved is deleted.
        if (yield from _retry_store(self._ended_elsewhere)):
            yield from Delete(ticket.id)
            return self._over()
        return ResolvedSession(kept.entry, kept.headers)

    def _rewritten(self, entry: SessionEntry, session: Session) -> Flow[SavedSession]:
        return (yield from self._sessions.rewrite(entry, session, self._browser))

    def _ended_elsewhere(self) -> Flow[bool]:
        mark = self._sessions.index.revocations.session_key(self._identity)
        return (yield from Load(mark)) is not None

    def _keep_cookie(
        self, entry: SessionEntry, session: Session
    ) -> Flow[ResolvedSession]:
        kept = yield from self._rewritten(entry, session)
        self._memory.put_result(self._generation, RefreshResult(kept.entry.sealed))
        if self._sessions.has_store:
            try:
                yield from _retry_store(lambda: self._left(kept.entry.sealed))
                ended = yield from _retry_store(self._ended_elsewhere)
            except StoreError as error:
                # This session is good, only others have to do without it.
                self._keeps_lock, ended = True, False
                self._context.on_event(_event("refresh_not_shared", entry, error))
            if ended:
                self._memory.put_result(self._generation, RefreshResult(None))
                with suppress(StoreError):
                    yield from self._left(ENDED)
                    yield from self._sessions.revoke(kept.entry)
                return self._over()
        return ResolvedSession(kept.entry, kept.headers)

    def _left(self, value: bytes) -> Flow[None]:
        """Leave a cookie's value for siblings with the cookie from before."""
        key = self._key("renewed")
        note = self._sessions.formats.seal_record(key, value)
        yield from Save(key, note, OLD_COOKIE_GRACE)

    def _leave_tokens(self, entry: SessionEntry) -> Flow[None]:
        """Leave tokens whose session could not be made, for whoever tries next."""
        kept = self._memory.pending_tokens(self._generation)
        if kept is None or not self._sessions.has_store:
            return
        if entry.ticket is None:
            key = self._key("unfinished")
            note = self._sessions.formats.seal_record(key, _ENCODER.encode(kept))
            yield from Save(key, note, PENDING_TOKENS_TTL)
        elif kept.tokens.refresh_token:
            # The session stays as old as it is, so that the next one refreshes it.
            session = msgspec.structs.replace(
                entry.session, refresh_token=kept.tokens.refresh_token
            )
            yield from self._keep_ticket(entry, entry.ticket, session)

    def _end(self, entry: SessionEntry, error: AuthProxyError) -> Flow[ResolvedSession]:
        """The session is over at the provider, so it is here and everywhere."""
        faster = yield from self._concurrent_result(entry)
        if faster is not None:
            return faster
        with suppress(StoreError):
            if entry.ticket is not None:
                yield from self._sessions.revoke(entry)
            else:
                self._memory.put_result(self._generation, RefreshResult(None))
                if self._sessions.has_store:
                    yield from self._left(ENDED)
        self._context.on_event(_event("session_ended", entry, error))
        return self._over()

    def _concurrent_result(self, entry: SessionEntry) -> Flow[ResolvedSession | None]:
        """What somebody made who did not know of our lock, for it was over or stolen.

        Theirs is the good session: the provider refused our token because of theirs.
        """
        if entry.ticket is not None:
            current = yield from self._sessions.load(entry)
            moment = entry.session.created_at
            if current is not None and current.session.created_at != moment:
                return self._with_cookies(current)
        elif self._sessions.has_store:
            with suppress(StoreError):
                left = self._read_left((yield from Load(self._key("renewed"))))
                return (yield from self._taken(left)) if left is not None else None
        return None


def _retry_store(make: Callable[[], Flow[R]]) -> Flow[R]:
    """Run what *make* gives, a few times if the store fails for a moment."""
    for pause in SAVE_RETRY_DELAYS:
        try:
            return (yield from make())
        except StoreError:
            yield from Sleep(pause)
    return (yield from make())


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


def _event(kind: EventKind, entry: SessionEntry, error: AuthProxyError) -> Event:
    reason = getattr(error, "reason", error.code)
    return Event(kind, entry.session.name, reason, str(error))
