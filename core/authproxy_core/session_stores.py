"""Where sessions are kept: in sealed cookies.

The cookie holds the whole session, so that reading it needs no I/O. What was renewed or
ended a moment ago is remembered for requests that still carry the cookie from before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from msgspec import Struct

from .cookies import CookieWriter, joined, read_cookies
from .errors import SealError
from .interop import OAuth2ProxyFormat
from .messages import Header, Headers
from .oidc import Tokens
from .provider_types import PROVIDER_TYPES
from .recall import Entry, RecallCache
from .sealing import Sealer
from .session import Session
from .session_codec import decode_session, encode_session
from .settings import Settings

AFTERLIFE = 60.0  # seconds that siblings may come with the cookie from before a refresh
RETRY_AFTER = 10.0  # seconds between tries to refresh while the provider is away
MAX_REMEMBERED = 2_000


def is_part(suffix: bytes) -> bool:
    """Whether a cookie's name with this *suffix* is the whole one, or a part of it."""
    return not suffix or (suffix[:1] == b"_" and suffix[1:].isdigit())


class Renewal(Struct, frozen=True):
    """What became of a stale session: an entry (None: it has ended), and its cookies."""

    entry: Entry | None
    headers: Headers = ()


class CookieSessions:
    """Sessions in sealed cookies; the only memory is caches."""

    def __init__(
        self,
        settings: Settings,
        *,
        provider_ids: Sequence[str],
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        cookie = settings.cookie
        self._settings = cookie
        self._clock = clock
        self._random_bytes = random_bytes
        self._providers = frozenset(provider_ids)
        self._default_provider = provider_ids[0]
        # Their sessions live on by asking again with the access token.
        self._asking = frozenset(
            provider.id
            for provider in settings.providers
            if PROVIDER_TYPES[provider.type].renews == "ask"
        )
        self._name = cookie.name.encode()
        # The name is part of the purpose: another instance's cookie is not ours.
        self._purpose = b"session:" + self._name
        self._sealer = Sealer(cookie.secrets)
        self._interop = OAuth2ProxyFormat(cookie.secrets, cookie.name)
        self._writer = CookieWriter(cookie.name, cookie)
        self._recall = RecallCache(settings.session_cache_bytes)
        self._renewals: dict[bytes, tuple[Renewal, float]] = {}
        self._retry_at: dict[bytes, float] = {}
        self._unfinished: dict[bytes, Tokens] = {}
        self._store_trusted = False
        self.unsealed = 0  # values that no cache held, so far

    # -- what the store tells

    @property
    def store_trusted(self) -> bool:
        """Whether what the store said may be kept, because it tells of every change."""
        return self._store_trusted

    @store_trusted.setter
    def store_trusted(self, trusted: bool) -> None:
        if not trusted:
            self.store_changed(None)
        self._store_trusted = trusted

    def store_changed(self, key: str | None) -> None:
        """Drop what came from *key* of the store; None: all that came from it."""

    # -- reading

    def recall(self, headers: Iterable[Header]) -> Entry | None:
        """The session that a request carries, if its seal holds and it has not expired.

        No I/O and no judgement about staleness or rules.
        """
        value = joined(read_cookies(headers), self._name, self._settings.max_parts)
        if value is None:
            return None
        entry = self._recall.get(value)
        if entry is None:
            self.unsealed += 1
            entry = self._unsealed(value)
            if entry is None:
                return None
            self._recall.offer(entry)
        if self._clock() >= entry.ends_at:
            self._recall.drop(value)
            return None
        return entry

    def present(self, headers: Iterable[Header]) -> tuple[bytes, ...]:
        """The names of the session's cookies that a request carries, parts included."""
        return tuple(
            name
            for name, _ in read_cookies(headers)
            if name.startswith(self._name) and is_part(name[len(self._name) :])
        )

    def is_own_cookie(self, name: bytes) -> bool:
        """Whether a cookie of this name holds a session, a part, or a login state."""
        if not name.startswith(self._name):
            return False
        rest = name[len(self._name) :]
        return is_part(rest) or (rest[:1] == b"_" and rest.endswith(b"_csrf"))

    def _unsealed(self, value: bytes) -> Entry | None:
        now, lifetime = self._clock(), self._settings.expire
        try:
            if b"|" in value:
                if not self._settings.read_oauth2_proxy:
                    return None
                session = self._interop.read_session(value, now=now, lifetime=lifetime)
                issued_at = float(int(session.created_at))
            else:
                unsealed = self._sealer.unseal(
                    self._purpose, value, now=now, lifetime=lifetime
                )
                session, issued_at = (
                    decode_session(unsealed.payload),
                    unsealed.issued_at,
                )
        except SealError:
            return None
        provider = session.provider or self._default_provider
        if provider not in self._providers:
            return None
        return self._entry(session, value, issued_at)

    def _entry(self, session: Session, sealed: bytes, issued_at: float) -> Entry:
        expire, refresh = self._settings.expire, self._settings.refresh
        ends_at = issued_at + expire if expire else inf
        if not refresh:
            return Entry(session, sealed, ends_at, ends_at)
        asking = (session.provider or self._default_provider) in self._asking
        if not session.refresh_token and not asking:
            # Nothing to refresh with: it ends with what the provider promised.
            ends_at = min(ends_at, session.expires_at or inf)
            return Entry(session, sealed, ends_at, ends_at)
        return Entry(
            session, sealed, min(session.created_at + refresh, ends_at), ends_at
        )

    # -- writing

    def save(
        self, session: Session, *, host: str, present: Iterable[bytes]
    ) -> tuple[Entry, Headers]:
        """Seal a session; its entry and the cookies that carry it.

        Raises `SealError` when it needs more parts than allowed.
        """
        stored = self._minimal(session) if self._settings.minimal else session
        sealed = self._sealed(stored)
        cookies = self._writer.set(
            sealed, host=host, max_age=self._settings.expire, present=present
        )
        parts = self._writer.parts_needed(sealed, host, self._settings.expire)
        if parts > self._settings.max_parts:
            raise SealError(
                f"the session needs {parts} cookies, allowed are "
                f"{self._settings.max_parts}"
            )
        entry = self._entry(stored, sealed, stored.created_at)
        self._recall.put(entry)
        return entry, cookies

    def _sealed(self, session: Session) -> bytes:
        if self._settings.format == "oauth2-proxy":
            return self._interop.write_session(session, iv=self._random_bytes(16))
        return self._sealer.seal(
            self._purpose,
            encode_session(session),
            issued_at=session.created_at,
            nonce=self._random_bytes(12),
        )

    @staticmethod
    def _minimal(session: Session) -> Session:
        return Session(
            provider=session.provider,
            created_at=session.created_at,
            login_at=session.login_at,
            expires_at=session.expires_at,
            user=session.user,
            email=session.email,
            groups=session.groups,
            preferred_username=session.preferred_username,
            claims=session.claims,
        )

    def clear(self, *, host: str, present: Iterable[bytes]) -> Headers:
        """Cookies that end the session in the browser, all of its parts."""
        return self._writer.clear(host=host, present=present)

    def forget(self, entry: Entry) -> None:
        """Drop an entry from the cache, and what siblings would be told of it."""
        self._recall.drop(entry.sealed)
        for sealed, (renewal, until) in self._renewals.items():
            if renewal.entry is not None and renewal.entry.sealed == entry.sealed:
                self._renewals[sealed] = (Renewal(None), until)

    # -- around a refresh

    def renewal_of(self, entry: Entry) -> Renewal | None:
        """What a sibling made of this stale session a moment ago, or None."""
        found = self._renewals.get(entry.sealed)
        if found is None or self._clock() >= found[1]:
            return None
        renewal = found[0]
        if renewal.entry is None:
            return renewal
        return Renewal(self._judged(renewal.entry.sealed), renewal.headers)

    def _judged(self, sealed: bytes) -> Entry | None:
        """The entry of a value that a sibling may have sealed by earlier settings."""
        entry = self._recall.get(sealed)
        if entry is None:
            entry = self._unsealed(sealed)
            if entry is not None:
                self._recall.put(entry)
        return entry

    def inherit(self, previous: CookieSessions) -> None:
        """Share what *previous* remembers of refreshes; its flows may still run.

        Entries are not taken over: their answers were made by other rules.
        """
        self._renewals = previous._renewals
        self._retry_at = previous._retry_at
        self._unfinished = previous._unfinished

    def remember_renewal(self, entry: Entry, renewal: Renewal) -> None:
        """Keep what became of a stale session, for siblings with the cookie before."""
        now = self._clock()
        # They went in by time: those in front are over first.
        while self._renewals:
            sealed, (_, until) = next(iter(self._renewals.items()))
            if until > now and len(self._renewals) < MAX_REMEMBERED:
                break
            del self._renewals[sealed]
        self._renewals[entry.sealed] = (renewal, now + AFTERLIFE)
        self._recall.drop(entry.sealed)
        self._retry_at.pop(entry.sealed, None)
        self._unfinished.pop(entry.sealed, None)

    def unfinished(self, entry: Entry) -> Tokens | None:
        """Tokens of a refresh that failed later on: the old ones are spent already."""
        return self._unfinished.get(entry.sealed)

    def keep_unfinished(self, entry: Entry, tokens: Tokens) -> None:
        """Keep new tokens until the session that they belong to is made."""
        if len(self._unfinished) >= MAX_REMEMBERED:
            del self._unfinished[next(iter(self._unfinished))]
        self._unfinished[entry.sealed] = tokens

    def may_retry(self, entry: Entry) -> bool:
        """Whether a refresh may be tried (again) now."""
        return self._clock() >= self._retry_at.get(entry.sealed, 0.0)

    def refresh_failed(self, entry: Entry) -> None:
        """Wait a while before the next try: the provider is away."""
        if len(self._retry_at) >= MAX_REMEMBERED:
            self._retry_at.clear()
        self._retry_at[entry.sealed] = self._clock() + RETRY_AFTER
