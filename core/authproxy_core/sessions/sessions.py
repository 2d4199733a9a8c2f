"""Where sessions are kept: in sealed cookies, or in a store under a ticket.

A cookie that holds the whole session is read without I/O. A ticket's session is loaded
once, then answered from the recall cache for as long as the store tells of changes.
Both kinds are accepted wherever there is a store; the settings say which is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf

import msgspec
from msgspec import Struct

from ..effects import Flow, LoadAll, Save
from ..errors import SealError, StoreError
from ..messages import Header, Headers
from ..session import Session
from ..settings.credentials import HTPASSWD
from ..settings.root import Settings
from .cookies import CookieWriter, join_cookie_parts, read_cookies
from .formats import SessionFormats, session_generation, session_identity
from .index import REVOCATION_MARK_TTL, SessionIndex, ticket_identity
from .invalidation import InvalidationTracker
from .lifetimes import Lifetimes, SessionDeadlines
from .oauth2_proxy_format import Ticket
from .refresh_cache import OLD_COOKIE_GRACE, RefreshCache
from .session_cache import SessionCache, SessionEntry, is_outdated

EMPTY_SESSION = Session()
SESSION_NONCE_SIZE = 32  # bytes; for sessions that no OIDC login began


def is_part_suffix(suffix: bytes) -> bool:
    """Whether a cookie's name with this *suffix* is the whole one, or a part of it."""
    return not suffix or (suffix[:1] == b"_" and suffix[1:].isdigit())


class Browser(Struct, frozen=True):
    """What cookies are written for: the original host, and the cookies that came."""

    host: str
    present: tuple[bytes, ...] = ()


class SavedSession(Struct, frozen=True):
    """A session that was written: its entry, and the cookies that carry it."""

    entry: SessionEntry
    headers: Headers


class Sessions:
    """All sessions of one cookie name; the only memory is caches."""

    def __init__(
        self,
        settings: Settings,
        *,
        provider_ids: Sequence[str],
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._settings = settings.cookie
        self._life = settings.sessions
        self._clock = clock
        self._random_bytes = random_bytes
        self._providers = frozenset(provider_ids)
        self._default_provider = provider_ids[0]
        self._name = settings.cookie.name.encode()
        self._has_store = settings.sessions.shared or settings.sessions.needs_store
        self._revocable = settings.sessions.revocable
        self._writer = CookieWriter(settings.cookie.name, settings.cookie)
        self._lifetimes = Lifetimes(settings)
        self._recall = SessionCache(settings.session_cache_bytes)
        self._watch = InvalidationTracker(self._recall.drop, self._recall.clear)
        self.formats = SessionFormats(settings, clock=clock, random_bytes=random_bytes)
        self.index = SessionIndex(
            settings, clock=clock, random_bytes=random_bytes, formats=self.formats
        )
        self.refresh_cache = RefreshCache(clock)
        self.cache_misses = 0  # values that no cache held, so far

    def adopt_cache(self, previous: Sessions) -> None:
        """Share what *previous* remembers of refreshes; its flows may still run.

        Entries are not taken over: their answers were made by other rules.
        """
        self.refresh_cache = previous.refresh_cache
        self.store_notifies = previous.store_notifies

    # -- what the driver says about its store

    @property
    def has_store(self) -> bool:
        """Whether there is a store that all processes see."""
        return self._has_store

    @property
    def store_notifies(self) -> bool:
        """Whether what the store said may be kept, because it tells of every change."""
        return self._watch.store_notifies

    @store_notifies.setter
    def store_notifies(self, trusted: bool) -> None:
        self._watch.store_notifies = trusted

    def store_changed(self, key: str | None) -> None:
        """Drop what came from *key* of the store; None: all that came from it."""
        if key is not None:
            ended = self.index.revocations.identity_of_key(key)
            if ended:
                self.refresh_cache.mark_ended(ended)
        self._watch.invalidate(key)

    # -- reading without I/O

    def lookup(self, headers: Iterable[Header]) -> SessionEntry | None:
        """The session that a request carries, if its seal holds and it has not expired.

        No I/O and no judgement about staleness or rules. A cold entry is yet to be
        looked up by `load`.
        """
        value = join_cookie_parts(
            read_cookies(headers), self._name, self._settings.max_parts
        )
        if value is None:
            return None
        entry = self._recall.get(value)
        if entry is None:
            self.cache_misses += 1
            entry = self.parse_cookie(value)
            if entry is None:
                return None
            if not entry.needs_load:
                self._recall.admit(entry)
        if self._clock() >= entry.ends_at:
            self._recall.drop(value)
            return None
        return entry

    def cookie_names(self, headers: Iterable[Header]) -> tuple[bytes, ...]:
        """The names of the session's cookies that a request carries, parts included."""
        return tuple(
            name
            for name, _ in read_cookies(headers)
            if name.startswith(self._name) and is_part_suffix(name[len(self._name) :])
        )

    def is_session_cookie(self, name: bytes) -> bool:
        """Whether a cookie of this name holds a session, a part, or a login state."""
        if not name.startswith(self._name):
            return False
        rest = name[len(self._name) :]
        return is_part_suffix(rest) or (rest[:1] == b"_" and rest.endswith(b"_csrf"))

    def parse_cookie(self, value: bytes) -> SessionEntry | None:
        """The entry of a cookie's whole value; None when it holds no session."""
        try:
            found, issued_at = self.formats.read(value)
        except SealError:
            return None
        if isinstance(found, Ticket):
            if not self._has_store:
                return None
            expire = self._settings.expire
            span = SessionDeadlines(
                inf, inf, inf, issued_at + expire if expire else inf
            )
            return SessionEntry(
                EMPTY_SESSION, value, span, issued_at, ticket=found, cold=True
            )
        session = self._named(found)
        if session is None:
            return None
        span = self._lifetimes.deadlines(session, issued_at)
        return SessionEntry(session, value, span, issued_at, cold=self._revocable)

    def _named(self, session: Session) -> Session | None:
        """*session* with its provider, None when that is none of ours."""
        if not session.provider:  # oauth2-proxy has but one, and users of a file
            held = session.email or session.access_token or session.id_token
            local = HTPASSWD in self._providers and not held
            provider = HTPASSWD if local else self._default_provider
            return msgspec.structs.replace(session, provider=provider)
        return session if session.provider in self._providers else None

    # -- identities

    def identity(self, entry: SessionEntry) -> str:
        """What stays the same in the session's life."""
        if entry.ticket is not None:
            return ticket_identity(entry.ticket.id)
        return session_identity(entry.session, entry.sealed)

    def generation(self, entry: SessionEntry) -> str:
        """The same between two refreshes."""
        if entry.ticket is not None:
            return f"{self.identity(entry)}:{entry.session.created_at!r}"
        return session_generation(entry.session, entry.sealed)

    # -- reading from the store

    def load(self, entry: SessionEntry) -> Flow[SessionEntry | None]:
        """What the store says of an entry; None when the session is over.

        Raises `StoreError`.
        """
        if entry.ticket is None:
            return (yield from self._look_up(entry))
        return (yield from self._load(entry, entry.ticket))

    def _look_up(self, entry: SessionEntry) -> Flow[SessionEntry | None]:
        """The session in a cookie, unless it was revoked."""
        revocations = self.index.revocations
        keys = revocations.keys_for(entry.session, self.identity(entry))
        reading = self._watch.start_read(*keys)
        values = yield from LoadAll(keys)
        if revocations.is_revoked(entry.session, keys, values):
            return None
        found = SessionEntry(
            entry.session, entry.sealed, entry.deadlines, entry.issued_at
        )
        found.dependencies = self._watch.track(found, reading)
        if found.dependencies:
            self._recall.admit(found)
        return found

    def _load(self, entry: SessionEntry, ticket: Ticket) -> Flow[SessionEntry | None]:
        wanted: tuple[str, ...] = (ticket.id,)
        if self._idle:
            wanted = (ticket.id, self._key("seen", ticket))
        reading = self._watch.start_read(ticket.id)
        data, *seen = yield from LoadAll(wanted)
        session = self._opened(ticket, data, seen)
        if session is None or data is None:
            return None
        if self._revocable:
            # What oauth2-proxy wrote is in no index.
            revocations = self.index.revocations
            keys = revocations.keys_for(session, ticket_identity(ticket.id))
            reading = self._watch.start_read(ticket.id, *keys)
            values = yield from LoadAll(keys)
            if revocations.is_revoked(session, keys, values):
                return None
        span = self._lifetimes.deadlines(session, session.created_at)
        if self._clock() >= span.ends_at:
            return None
        found = SessionEntry(
            session,
            entry.sealed,
            span,
            entry.issued_at,
            ticket=ticket,
            weight=len(data),
        )
        # A late request still gets the new cookie.
        late = (
            is_outdated(found) and self._clock() < session.created_at + OLD_COOKIE_GRACE
        )
        found.dependencies = () if late else self._watch.track(found, reading)
        if found.dependencies:
            self._recall.put(found)
        return found

    @property
    def _idle(self) -> float:
        return self._life.idle_timeout

    def _key(self, kind: str, ticket: Ticket) -> str:
        return f"{self._settings.name}:{kind}:{ticket.id[len(self._name) + 1 :]}"

    def _opened(
        self, ticket: Ticket, data: bytes | None, seen: list[bytes | None]
    ) -> Session | None:
        if data is None:
            return None
        try:
            session = self._named(self.formats.unseal_stored(ticket, data))
        except SealError:
            return None
        if session is not None and seen and seen[0] is not None:
            seen_at = max(session.last_used_at, _moment(seen[0]))
            session = msgspec.structs.replace(session, last_used_at=seen_at)
        return session

    # -- writing

    def create(
        self, session: Session, headers: Iterable[Header], *, host: str
    ) -> Flow[SavedSession]:
        """Keep the session of a fresh login, and end the one that was there before.

        A new session never has an earlier one's ticket: that may have been planted.
        Raises `SealError` when it needs too many cookies, and `StoreError`.
        """
        headers = tuple(headers)
        browser = Browser(host, self.cookie_names(headers))
        session = msgspec.structs.replace(
            session,
            nonce=session.nonce or self._random_bytes(SESSION_NONCE_SIZE),
            last_used_at=self._clock() if self._idle else 0.0,
        )
        before = self.lookup(headers)
        kept = yield from self._keep(session, None, browser)
        if kept.entry.ticket is not None:
            yield from self.index.add_session(kept.entry.ticket, session)
        if before is not None and (before.ticket is not None or self._revocable):
            yield from self.revoke(before)
        return kept

    def rewrite(
        self, entry: SessionEntry, session: Session, browser: Browser
    ) -> Flow[SavedSession]:
        """Keep *session* in place of the one of *entry*; its ticket stays the same.

        Raises `SealError` when it needs too many cookies, and `StoreError`.
        """
        if self._idle:
            session = msgspec.structs.replace(session, last_used_at=self._clock())
        kept = yield from self._keep(session, entry.ticket, browser)
        ticket = kept.entry.ticket
        if ticket is not None and (
            entry.ticket is None or self.index.is_renewal_due(entry.session, session)
        ):
            yield from self.index.add_session(ticket, session)
        return kept

    def _keep(
        self,
        session: Session,
        ticket: Ticket | None,
        browser: Browser,
    ) -> Flow[SavedSession]:
        if ticket is None and self._life.backend == "cookie":
            stored = _minimal(session) if self._settings.minimal else session
            sealed = self.formats.write_session(stored)
            if self._fits(stored, sealed, browser.host):
                return self._in_cookies(stored, sealed, browser)
        ticket = ticket or self.formats.new_ticket()
        data = self.formats.seal_stored(ticket, session)
        yield from Save(
            ticket.id, data, self._lifetimes.store_ttl(session, self._clock())
        )
        span = self._lifetimes.deadlines(session, session.created_at)
        sealed = self.formats.write_ticket(ticket, session.created_at)
        entry = SessionEntry(
            session,
            sealed,
            span,
            session.created_at,
            ticket=ticket,
            weight=len(data),
        )
        return SavedSession(entry, self.cookie_headers(entry, browser))

    def _fits(self, session: Session, sealed: bytes, host: str) -> bool:
        """Whether a session can be kept in cookies; else it goes to the store.

        Raises `SealError` when there is none.
        """
        age = self._lifetimes.max_age(session, self._clock(), held=False)
        parts = self._writer.parts_needed(sealed, host, age)
        if parts <= self._settings.max_parts:
            return True
        if self._has_store:
            return False
        raise SealError(
            f"the session needs {parts} cookies, allowed are "
            f"{self._settings.max_parts} (session_cookie_max_parts)"
        )

    def _in_cookies(
        self, session: Session, sealed: bytes, browser: Browser
    ) -> SavedSession:
        span = self._lifetimes.deadlines(session, session.created_at)
        entry = SessionEntry(session, sealed, span, session.created_at)
        if not self._revocable:
            self._recall.put(entry)
        return SavedSession(entry, self.cookie_headers(entry, browser))

    def cookie_headers(self, entry: SessionEntry, browser: Browser) -> Headers:
        """The cookies that carry an entry's value; they end with the session."""
        age = self._lifetimes.max_age(
            entry.session, self._clock(), held=entry.ticket is not None
        )
        return self._set(entry.sealed, age, browser)

    def reissue_cookie(self, entry: SessionEntry, browser: Browser) -> Headers:
        """A ticket's cookies, if its session was renewed since they were written."""
        ticket, session = entry.ticket, entry.session
        if ticket is None or not is_outdated(entry):
            return ()
        sealed = self.formats.write_ticket(ticket, session.created_at)
        age = self._lifetimes.max_age(session, self._clock(), held=True)
        return self._set(sealed, age, browser)

    def _set(self, sealed: bytes, age: float, browser: Browser) -> Headers:
        return self._writer.set(
            sealed, host=browser.host, max_age=age, present=browser.present
        )

    def touch(self, entry: SessionEntry, browser: Browser) -> Flow[SavedSession]:
        """Note that the session is in use, so that it is not idle. Raises `StoreError`."""
        now = self._clock()
        session = msgspec.structs.replace(entry.session, last_used_at=now)
        if entry.ticket is None:
            sealed = self.formats.write_session(session)
            return self._in_cookies(session, sealed, browser)
        moment = f"{now:.6f}".encode()
        yield from Save(self._key("seen", entry.ticket), moment, self._idle)
        entry.session = session
        entry.deadlines = self._lifetimes.deadlines(session, session.created_at)
        entry.fresh_until, entry.ends_at = (
            entry.deadlines.fresh_until,
            entry.deadlines.ends_at,
        )
        return SavedSession(entry, ())

    # -- ending

    def clear(self, *, host: str, present: Iterable[bytes]) -> Headers:
        """Cookies that end the session in the browser, all of its parts."""
        return self._writer.clear(host=host, present=present)

    def revoke(self, entry: SessionEntry) -> Flow[None]:
        """End a session everywhere, as far as its kind allows. Raises `StoreError`."""
        self._recall.drop(entry.sealed)
        mark = self.identity(entry)
        self.refresh_cache.mark_ended(mark)
        if entry.ticket is not None:
            yield from self.index.revoke_ticket(entry.ticket)
        elif self._revocable:
            yield from self.index.revocations.revoke_session(mark)
        elif self._has_store:
            # Late requests and refreshes elsewhere look at this; nothing else does.
            with suppress(StoreError):
                yield from self.index.revocations.revoke_session(
                    mark, REVOCATION_MARK_TTL
                )


def _minimal(session: Session) -> Session:
    return msgspec.structs.replace(
        session, access_token="", id_token="", refresh_token=""
    )


def _moment(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
