"""When a session needs thought: its refresh, its next note of being used, its end.

    created_at ──────► early_at ──────► due_at ─────────────► ends_at
                       one request      requests wait for     over
                       may refresh      the refresh

All of it is computed once, when a session is read; a check compares one number.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from ..session import Session
from ..settings.provider_types import PROVIDER_TYPES
from ..settings.root import Settings

MAX_LIFETIME = 400 * 86400.0  # seconds; no browser keeps a cookie longer
TOUCHES_PER_TIMEOUT = 10  # a sight is noted anew after this part of the idle timeout
MIN_TOUCH_INTERVAL = 1.0  # seconds


class SessionDeadlines(Struct, frozen=True):
    """The moments (seconds since the epoch) at which something is to be done.

    From ``early_at`` on a refresh may begin, from ``due_at`` on requests wait for it,
    from ``noted_at`` on that the session is in use is to be noted, and from ``ends_at``
    on there is no session any more.
    """

    refresh_from: float
    refresh_due_at: float
    touch_due_at: float
    ends_at: float

    @property
    def fresh_until(self) -> float:
        """Until when nothing is to be done."""
        return min(self.refresh_from, self.touch_due_at, self.ends_at)


class Lifetimes:
    """The lifetimes of some settings, applied to sessions."""

    def __init__(self, settings: Settings) -> None:
        self._expire = settings.cookie.expire
        self._refresh = settings.cookie.refresh
        self._before = settings.sessions.refresh_before
        self._idle = settings.sessions.idle_timeout
        self._max = settings.sessions.max_lifetime
        # Their sessions live on by asking again with the access token.
        self._asking = frozenset(
            provider.id
            for provider in settings.providers
            if PROVIDER_TYPES[provider.type].renews == "ask"
        )

    def deadlines(self, session: Session, issued_at: float) -> SessionDeadlines:
        """The moments of *session*, last written at *issued_at*."""
        ends_at = self._ends_at(session, issued_at)
        noted_at = inf
        if self._idle:
            seen_at = session.last_used_at or session.created_at
            noted_at = seen_at + max(
                MIN_TOUCH_INTERVAL, self._idle / TOUCHES_PER_TIMEOUT
            )
            ends_at = min(ends_at, seen_at + self._idle)
        if not self._can_be_renewed(session):
            return SessionDeadlines(inf, inf, noted_at, ends_at)
        due_at = session.created_at + self._refresh if self._refresh else inf
        early_at = due_at
        if self._before and session.expires_at:
            due_at = min(due_at, session.expires_at)
            # Tokens that live shorter than that are not refreshed all the time.
            half = (session.created_at + session.expires_at) / 2
            early_at = min(due_at, max(session.expires_at - self._before, half))
        return SessionDeadlines(early_at, due_at, noted_at, ends_at)

    def _ends_at(self, session: Session, issued_at: float) -> float:
        """When the session ends however busy it is."""
        ends_at = issued_at + self._expire if self._expire else inf
        if self._max:
            ends_at = min(ends_at, session.login_at + self._max)
        renews = self._refresh or self._before
        if renews and not self._can_be_renewed(session):
            # Nothing to refresh with: it ends with what the provider promised.
            ends_at = min(ends_at, session.expires_at or inf)
        return ends_at

    def _can_be_renewed(self, session: Session) -> bool:
        return bool(session.refresh_token) or session.provider in self._asking

    def store_ttl(self, session: Session, now: float) -> float:
        """Seconds for which a store has to keep *session*, written *now*."""
        return min(_until(self._ends_at(session, now), now), MAX_LIFETIME)

    def max_age(self, session: Session, now: float, *, held: bool) -> float:
        """Seconds for the session's cookie, 0: until the browser ends.

        The cookie ends with the session. That a session in a store (*held*) is in use
        is noted there, without another cookie: its idle timeout ends no cookie.
        """
        if not self._expire:
            return 0.0
        issued_at = session.created_at
        ends_at = self._ends_at(session, issued_at)
        if not held:
            ends_at = self.deadlines(session, issued_at).ends_at
        return _until(ends_at, now)

    @property
    def max_lifetime(self) -> float:
        """Seconds that a session may still live without being written anew."""
        return min(self._expire or MAX_LIFETIME, self._max or MAX_LIFETIME)


def _until(ends_at: float, now: float) -> float:
    """Seconds, at least one; a moment in floats is not exact to the last digit."""
    return max(1.0, ends_at - now + 0.001)
