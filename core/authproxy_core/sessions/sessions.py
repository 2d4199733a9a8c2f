"""Sessions in sealed cookies, or in a store under a ticket.

A cookie that holds the whole session is read without I/O. The session of a ticket is
loaded once and then cached, if the store notifies of changes. With a store, both kinds
are accepted; the settings select the one that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf

import msgspec

from ..effects import Flow, LoadAll, Save
from ..errors import ConflictError, SealError, StoreError
from ..messages import Header, Headers
from ..session import Session
from ..settings.credentials import HTPASSWD
from ..settings.root import Settings
from .cookies import (
    Browser,
    Cookies,
    CookieWriter,
    candidate_values,
    cookie_name_count,
    count_values,
    first_cookie_value,
    is_cookie_or_part,
    is_session_or_login_cookie,
    join_cookie_parts,
    read_cookies,
)
from .formats import (
    SessionFormats,
    parse_time,
    session_generation,
    session_identity,
    without_tokens,
)
from .index import REVOCATION_MARK_TTL, SessionIndex, last_use_key, ticket_identity
from .invalidation import InvalidationTracker
from .lifetimes import Lifetimes, SessionDeadlines
from .oauth2_proxy_format import Ticket
from .refresh_cache import OLD_COOKIE_GRACE, RefreshCache
from .session_cache import (
    SavedSession,
    SessionCache,
    SessionEntry,
    is_outdated,
    newest_first,
)

EMPTY_SESSION = Session()
SESSION_NONCE_SIZE = 32  # bytes; for sessions without an OIDC login


class Sessions:
    """All sessions of one cookie name. Its only state are caches."""

    def __init__(
        self,
        settings: Settings,
        *,
        provider_ids: Sequence[str],
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._cookie = settings.cookie
        self._settings = settings.sessions
        self._idle_timeout = settings.sessions.idle_timeout
        self._clock = clock
        self._random_bytes = random_bytes
        self._providers = frozenset(provider_ids)
        self._default_provider = provider_ids[0]
        self._name = settings.cookie.name.encode()
        self._cookie_prefix = self._name + b"="
        self._has_store = settings.sessions.shared or settings.sessions.needs_store
        self._revocable = settings.sessions.revocable
        self._writer = CookieWriter(settings.cookie.name, settings.cookie)
        self._lifetimes = Lifetimes(settings)
        self._cache = SessionCache(settings.session_cache_bytes)
        self._invalidation = InvalidationTracker(self._cache.drop, self._cache.clear)
        self.formats = SessionFormats(settings, clock=clock, random_bytes=random_bytes)
        self.index = SessionIndex(
            settings, clock=clock, random_bytes=random_bytes, formats=self.formats
        )
        self.refresh_cache = RefreshCache(clock)
        self.cache_misses = 0

    def adopt_cache(self, previous: Sessions) -> None:
        """Share the refresh results of *previous*, whose flows may still run.

        Session entries are not shared, because their responses follow the old settings.
        """
        self.refresh_cache = previous.refresh_cache
        self.store_notifies = previous.store_notifies

    # -- state of the store

    @property
    def has_store(self) -> bool:
        """Whether there is a store that all processes share."""
        return self._has_store

    @property
    def store_notifies(self) -> bool:
        """Whether the store notifies of every change, so that reads may be cached."""
        return self._invalidation.store_notifies

    @store_notifies.setter
    def store_notifies(self, notifies: bool) -> None:
        self._invalidation.store_notifies = notifies

    def store_changed(self, key: str | None) -> None:
        """Drop the entries that depend on *key* of the store; None: all of them."""
        if key is not None:
            ended = self.index.revocations.identity_of_key(key)
            if ended:
                self.refresh_cache.mark_ended(ended)
        self._invalidation.invalidate(key)

    # -- reading without I/O

    def lookup(self, headers: Sequence[Header]) -> SessionEntry | None:
        """Return the session in a request's cookies; None without a valid one.

        Checks the seal and the expiry, but neither staleness nor access rules. An entry
        that needs it must be passed to `load`.
        """
        first = first_cookie_value(headers, self._cookie_prefix)
        entry = None if first is None else self._cache.get(first)
        if entry is not None and self._clock() < entry.ends_at:
            return entry
        cookies = read_cookies(headers)
        value = join_cookie_parts(cookies, self._name, self._cookie.max_parts)
        if value is None:
            return None
        if first is not None and first == value:
            value = first  # its hash is known
        entry = self._find(value)
        return entry or next(iter(self._valid_entries(cookies, value)), None)

    def _find(self, value: bytes) -> SessionEntry | None:
        """Return the entry of a whole cookie value; None if it has ended."""
        entry = self._cache.get(value)
        if entry is None or self._clock() >= entry.ends_at:
            # A later use of a stored session, in another process, is in the store.
            self._cache.drop(value)
            entry = self._parse_and_admit(value)
        return entry if entry is not None and self._clock() < entry.ends_at else None

    def _parse_and_admit(self, value: bytes) -> SessionEntry | None:
        self.cache_misses += 1
        entry = self.parse_cookie(value)
        if entry is not None and not entry.needs_load:
            self._cache.admit(entry)
        return entry

    def candidates(
        self, headers: Sequence[Header], entry: SessionEntry
    ) -> tuple[SessionEntry, ...]:
        """Return all sessions in a request's cookies, the newest first.

        *entry* is one of them. There are others if the request has several cookies of
        one name, which differ in Domain or Path.
        """
        if cookie_name_count(headers, self._name) == 1:
            return (entry,)
        twins = self._valid_entries(read_cookies(headers), entry.sealed)
        return newest_first([entry, *twins])

    def _valid_entries(
        self, cookies: Cookies, tried: bytes | None = None
    ) -> tuple[SessionEntry, ...]:
        """Return the valid sessions of all candidates but *tried*, the newest first."""
        values = candidate_values(cookies, self._name, self._cookie.max_parts)
        entries = (self._find(value) for value in values if value != tried)
        return newest_first([entry for entry in entries if entry is not None])

    def browser(
        self, headers: Iterable[Header], host: str, *, expires_twins: bool = False
    ) -> Browser:
        """Return the browser that sent *headers* to *host*."""
        present = self.cookie_names(headers := tuple(headers))
        valid = len(self._valid_entries(read_cookies(headers)))
        # Another cookie with a Domain may belong to an instance on another host.
        own = valid == count_values(present, self._name)
        return Browser(host, present, "all" if own else "host", expires_twins)

    def cookie_names(self, headers: Iterable[Header]) -> tuple[bytes, ...]:
        """Return the names of the session cookie and its parts in a request."""
        cookies = read_cookies(headers)
        return tuple(name for name, _ in cookies if is_cookie_or_part(name, self._name))

    def is_session_cookie(self, name: bytes) -> bool:
        """Return whether *name* is a session cookie, a part, or a login state cookie."""
        return is_session_or_login_cookie(name, self._name)

    def parse_cookie(self, value: bytes) -> SessionEntry | None:
        """Return the entry of a whole cookie value; None if the value is invalid."""
        try:
            found, issued_at = self.formats.read(value)
        except SealError:
            return None
        if isinstance(found, Ticket):
            if not self._has_store:
                return None
            ends_at = issued_at + (self._cookie.expire or inf)
            return SessionEntry(
                EMPTY_SESSION,
                value,
                SessionDeadlines(inf, inf, inf, ends_at),
                issued_at,
                ticket=found,
                needs_load=True,
            )
        session = self._with_provider(found)
        if session is None:
            return None
        deadlines = self._lifetimes.deadlines(session, issued_at)
        return SessionEntry(
            session, value, deadlines, issued_at, needs_load=self._revocable
        )

    def _with_provider(self, session: Session) -> Session | None:
        """Return *session* with its provider; None if that is not configured."""
        if session.provider:
            return session if session.provider in self._providers else None
        # oauth2-proxy has one provider, and sessions of its htpasswd users have no
        # identity but the user name.
        from_login = session.email or session.access_token or session.id_token
        local = HTPASSWD in self._providers and not from_login
        provider = HTPASSWD if local else self._default_provider
        return msgspec.structs.replace(session, provider=provider)

    # -- identities

    def identity(self, entry: SessionEntry) -> str:
        """Return the identity of a session, which never changes."""
        if entry.ticket is not None:
            return ticket_identity(entry.ticket.id)
        return session_identity(entry.session, entry.sealed)

    def generation(self, entry: SessionEntry) -> str:
        """Return the generation of a session, which each refresh changes."""
        if entry.ticket is not None:
            return f"{self.identity(entry)}:{entry.session.created_at!r}"
        return session_generation(entry.session, entry.sealed)

    # -- reading from the store

    def load(self, entry: SessionEntry) -> Flow[SessionEntry | None]:
        """Load a stored session, or check a cookie session for revocation.

        Returns None if the session has ended. Raises `StoreError`.
        """
        if entry.ticket is None:
            return (yield from self._check_revocations(entry))
        return (yield from self._load_ticket(entry, entry.ticket))

    def _check_revocations(self, entry: SessionEntry) -> Flow[SessionEntry | None]:
        revocations = self.index.revocations
        keys = revocations.keys_for(entry.session, self.identity(entry))
        read = self._invalidation.start_read(*keys)
        values = yield from LoadAll(keys)
        if revocations.is_revoked(entry.session, keys, values):
            return None
        checked = SessionEntry(
            entry.session, entry.sealed, entry.deadlines, entry.issued_at
        )
        checked.dependencies = self._invalidation.track(checked, read)
        if checked.dependencies:
            self._cache.admit(checked)
        return checked

    def _load_ticket(
        self, entry: SessionEntry, ticket: Ticket
    ) -> Flow[SessionEntry | None]:
        keys: tuple[str, ...] = (ticket.id,)
        if self._idle_timeout:
            keys = (ticket.id, self._last_use_key(ticket))
        read = self._invalidation.start_read(ticket.id)
        data, *last_use = yield from LoadAll(keys)
        session = self._unseal_stored(ticket, data, last_use)
        if session is None or data is None:
            return None
        if self._revocable:
            # Sessions that oauth2-proxy wrote are not in the index.
            revocations = self.index.revocations
            keys = revocations.keys_for(session, ticket_identity(ticket.id))
            read = self._invalidation.start_read(ticket.id, *keys)
            values = yield from LoadAll(keys)
            if revocations.is_revoked(session, keys, values):
                return None
        deadlines = self._lifetimes.deadlines(session, session.created_at)
        now = self._clock()
        if now >= deadlines.ends_at:
            return None
        loaded = SessionEntry(
            session,
            entry.sealed,
            deadlines,
            entry.issued_at,
            ticket=ticket,
            sealed_bytes=len(data),
        )
        # Not cached for a request with the old cookie, so that it gets the new one.
        late = is_outdated(loaded) and now < session.created_at + OLD_COOKIE_GRACE
        loaded.dependencies = () if late else self._invalidation.track(loaded, read)
        if loaded.dependencies:
            self._cache.put(loaded)
        return loaded

    def _last_use_key(self, ticket: Ticket) -> str:
        return last_use_key(self._cookie.name, ticket.id[len(self._name) + 1 :])

    def _unseal_stored(
        self, ticket: Ticket, data: bytes | None, last_use: list[bytes | None]
    ) -> Session | None:
        if data is None:
            return None
        try:
            session = self._with_provider(self.formats.unseal_stored(ticket, data))
        except SealError:
            return None
        if session is not None and last_use and last_use[0] is not None:
            last_used_at = max(session.last_used_at, parse_time(last_use[0]))
            session = msgspec.structs.replace(session, last_used_at=last_used_at)
        return session

    # -- writing

    def create(
        self, session: Session, headers: Iterable[Header], *, host: str
    ) -> Flow[SavedSession]:
        """Save the session of a new login and revoke the request's earlier session.

        The new session never reuses a ticket, because an attacker may have planted it
        (session fixation). Raises `SealError` if it needs too many cookies, and
        `StoreError`.
        """
        headers = tuple(headers)
        browser = self.browser(headers, host, expires_twins=True)
        session = msgspec.structs.replace(
            session,
            nonce=session.nonce or self._random_bytes(SESSION_NONCE_SIZE),
            last_used_at=self._clock() if self._idle_timeout else 0.0,
        )
        earlier = self.lookup(headers)
        saved = yield from self._save(session, None, browser)
        yield from self.index.add_login(saved.entry.ticket, session)
        for entry in self.candidates(headers, earlier) if earlier else ():
            if entry.ticket is not None or self._revocable:
                yield from self.revoke(entry)
        return saved

    def rewrite(
        self,
        entry: SessionEntry,
        session: Session,
        browser: Browser,
        stored: bytes | None = None,
    ) -> Flow[SavedSession]:
        """Save *session* in place of the session of *entry*, under the same ticket.

        Raises `SealError` if it needs too many cookies, `ConflictError` if the store no
        longer holds *stored* for the ticket, and `StoreError`.
        """
        if self._idle_timeout:
            session = msgspec.structs.replace(session, last_used_at=self._clock())
        saved = yield from self._save(session, entry.ticket, browser, stored)
        ticket = saved.entry.ticket
        if ticket is not None and self._idle_timeout:
            with suppress(StoreError):  # only a list of the sessions needs it
                yield from self._save_last_use(ticket, session.last_used_at)
        if ticket is not None and (
            entry.ticket is None or self.index.is_renewal_due(entry.session, session)
        ):
            yield from self.index.add_session(ticket, session)
        return saved

    def _save(
        self,
        session: Session,
        ticket: Ticket | None,
        browser: Browser,
        stored: bytes | None = None,
    ) -> Flow[SavedSession]:
        if ticket is None and self._settings.backend == "cookie":
            minimal = without_tokens(session) if self._cookie.minimal else session
            sealed = self.formats.write_session(minimal)
            if self._fits_in_cookies(minimal, sealed, browser.host):
                return self._save_in_cookies(minimal, sealed, browser)
        ticket = ticket or self.formats.new_ticket()
        data = self.formats.seal_stored(ticket, session)
        ttl = self._lifetimes.store_ttl(session, self._clock())
        if (yield from Save(ticket.id, data, ttl, stored)) is False:
            raise ConflictError("another process has saved this session")
        entry = SessionEntry(
            session,
            self.formats.write_ticket(ticket, session.created_at),
            self._lifetimes.deadlines(session, session.created_at),
            session.created_at,
            ticket=ticket,
            sealed_bytes=len(data),
        )
        return SavedSession(entry, self.cookie_headers(entry, browser))

    def _fits_in_cookies(self, session: Session, sealed: bytes, host: str) -> bool:
        """Return whether the session fits in cookies instead of the store.

        Raises `SealError` if it does not fit and there is no store.
        """
        age = self._lifetimes.max_age(session, self._clock(), stored=False)
        parts = self._writer.parts_needed(sealed, host, age)
        if parts <= self._cookie.max_parts:
            return True
        if self._has_store:
            return False
        raise SealError(
            f"session too large: it needs {parts} cookies, the maximum is "
            f"{self._cookie.max_parts} (session_cookie_max_parts)"
        )

    def _save_in_cookies(
        self, session: Session, sealed: bytes, browser: Browser
    ) -> SavedSession:
        deadlines = self._lifetimes.deadlines(session, session.created_at)
        entry = SessionEntry(session, sealed, deadlines, session.created_at)
        if not self._revocable:
            self._cache.put(entry)
        return SavedSession(entry, self.cookie_headers(entry, browser))

    def cookie_headers(self, entry: SessionEntry, browser: Browser) -> Headers:
        """Return the Set-Cookie fields for the sealed value of *entry*."""
        age = self._lifetimes.max_age(
            entry.session, self._clock(), stored=entry.ticket is not None
        )
        return self._set_cookies(entry.sealed, age, browser)

    def reissue_cookie(self, entry: SessionEntry, browser: Browser) -> Headers:
        """Return new ticket cookies if the session was refreshed since; () otherwise."""
        ticket, session = entry.ticket, entry.session
        if ticket is None or not is_outdated(entry):
            return ()
        sealed = self.formats.write_ticket(ticket, session.created_at)
        age = self._lifetimes.max_age(session, self._clock(), stored=True)
        return self._set_cookies(sealed, age, browser)

    def _set_cookies(self, sealed: bytes, age: float, browser: Browser) -> Headers:
        return self._writer.set(
            sealed,
            host=browser.host,
            max_age=age,
            present=browser.present,
            twins=browser.twins_to_expire,
        )

    def touch(self, entry: SessionEntry, browser: Browser) -> Flow[SavedSession]:
        """Record that the session is in use, for its idle timeout. Raises `StoreError`."""
        now = self._clock()
        session = msgspec.structs.replace(entry.session, last_used_at=now)
        if entry.ticket is None:
            sealed = self.formats.write_session(session)
            return self._save_in_cookies(session, sealed, browser)
        yield from self._save_last_use(entry.ticket, now)
        deadlines = self._lifetimes.deadlines(session, session.created_at)
        entry.session, entry.deadlines = session, deadlines
        entry.fresh_until, entry.ends_at = deadlines.fresh_until, deadlines.ends_at
        return SavedSession(entry, ())

    def _save_last_use(self, ticket: Ticket, last_used_at: float) -> Flow[None]:
        value = f"{last_used_at:.6f}".encode()
        yield from Save(self._last_use_key(ticket), value, self._idle_timeout)

    # -- ending

    def clear(self, browser: Browser) -> Headers:
        """Return the Set-Cookie fields that delete the session cookie and its parts."""
        return self._writer.clear(
            host=browser.host, present=browser.present, twins=browser.twins_to_expire
        )

    def revoke(self, entry: SessionEntry) -> Flow[None]:
        """Revoke a session in all processes, if its kind allows. Raises `StoreError`."""
        self._cache.drop(entry.sealed)
        identity = self.identity(entry)
        self.refresh_cache.mark_ended(identity)
        if entry.ticket is not None:
            yield from self.index.revoke_ticket(entry.ticket)
        elif self._revocable:
            yield from self.index.revocations.revoke_session(identity)
        elif self._has_store:
            # Only concurrent refreshes and requests with the old cookie check this mark.
            with suppress(StoreError):
                yield from self.index.revocations.revoke_session(
                    identity, REVOCATION_MARK_TTL
                )
