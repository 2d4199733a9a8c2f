"""Session deadlines: refresh, touch (last use) and expiry.

    created_at ──► refresh_from ───► refresh_due_at ───────► ends_at
                   one request       requests wait for       expired
                   may refresh       the refresh

All deadlines are computed once when a session is read, so a check compares one number.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from ..session import Session
from ..settings.provider_types import PROVIDER_TYPES
from ..settings.root import Settings

MAX_LIFETIME = 400 * 86400.0  # seconds; browsers store no cookie for longer
TOUCHES_PER_TIMEOUT = 10  # touches of an active session per idle timeout
MIN_TOUCH_INTERVAL = 1.0  # seconds


class SessionDeadlines(Struct, frozen=True):
    """The deadlines of a session, in seconds since the epoch.

    From ``refresh_from`` on one request may refresh the session, from
    ``refresh_due_at`` on all requests wait for the refresh, from ``touch_due_at`` on a
    request records that the session is in use, and at ``ends_at`` it expires.
    """

    refresh_from: float
    refresh_due_at: float
    touch_due_at: float
    ends_at: float

    @property
    def fresh_until(self) -> float:
        """The first deadline; until then the session needs no action."""
        return min(self.refresh_from, self.touch_due_at, self.ends_at)


class Lifetimes:
    """The lifetimes of *settings*, applied to sessions."""

    def __init__(self, settings: Settings) -> None:
        self._expire = settings.cookie.expire
        self._refresh = settings.cookie.refresh
        self._refresh_before = settings.sessions.refresh_before
        self._idle_timeout = settings.sessions.idle_timeout
        self._max_lifetime = settings.sessions.max_lifetime
        # These providers refresh a session by a request with the access token.
        self._refreshed_by_access_token = frozenset(
            provider.id
            for provider in settings.providers
            if PROVIDER_TYPES[provider.type].renews == "ask"
        )

    def deadlines(self, session: Session, issued_at: float) -> SessionDeadlines:
        """Return the deadlines of *session*, last written at *issued_at* (seconds)."""
        ends_at = self._ends_at(session, issued_at)
        touch_due_at = inf
        if self._idle_timeout:
            last_used_at = session.last_used_at or session.created_at
            touch_due_at = last_used_at + max(
                MIN_TOUCH_INTERVAL, self._idle_timeout / TOUCHES_PER_TIMEOUT
            )
            ends_at = min(ends_at, last_used_at + self._idle_timeout)
        if not self._can_refresh(session):
            return SessionDeadlines(inf, inf, touch_due_at, ends_at)
        due_at = session.created_at + self._refresh if self._refresh else inf
        refresh_from = due_at
        if self._refresh_before and session.expires_at:
            due_at = min(due_at, session.expires_at)
            # Tokens that live shorter than refresh_before are refreshed at half time,
            # not with each request.
            half = (session.created_at + session.expires_at) / 2
            early = max(session.expires_at - self._refresh_before, half)
            refresh_from = min(due_at, early)
        return SessionDeadlines(refresh_from, due_at, touch_due_at, ends_at)

    def _ends_at(self, session: Session, issued_at: float) -> float:
        """Return when the session expires, regardless of its use."""
        ends_at = issued_at + self._expire if self._expire else inf
        if self._max_lifetime:
            ends_at = min(ends_at, session.login_at + self._max_lifetime)
        refreshes = self._refresh or self._refresh_before
        if refreshes and not self._can_refresh(session):
            # Without a refresh, the session expires with its tokens.
            ends_at = min(ends_at, session.expires_at or inf)
        return ends_at

    def _can_refresh(self, session: Session) -> bool:
        return (
            bool(session.refresh_token)
            or session.provider in self._refreshed_by_access_token
        )

    def store_ttl(self, session: Session, now: float) -> float:
        """Return the TTL (seconds) of a stored session that is written at *now*."""
        return min(_seconds_until(self._ends_at(session, now), now), MAX_LIFETIME)

    def max_age(self, session: Session, now: float, *, stored: bool) -> float:
        """Return the Max-Age (seconds) of the session's cookie; 0: no Max-Age.

        The cookie expires with the session. Touching a *stored* session writes no
        cookie, so its cookie ignores the idle timeout.
        """
        if not self._expire:
            return 0.0
        issued_at = session.created_at
        ends_at = self._ends_at(session, issued_at)
        if not stored:
            ends_at = self.deadlines(session, issued_at).ends_at
        return _seconds_until(ends_at, now)

    @property
    def max_lifetime(self) -> float:
        """The longest time (seconds) that a session lives without being rewritten."""
        return min(self._expire or MAX_LIFETIME, self._max_lifetime or MAX_LIFETIME)


def _seconds_until(ends_at: float, now: float) -> float:
    """Return the seconds until *ends_at*, at least 1, plus a margin for rounding."""
    return max(1.0, ends_at - now + 0.001)
