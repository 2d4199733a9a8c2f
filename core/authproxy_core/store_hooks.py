"""What a driver that has a store tells the core, and what it may ask about sessions."""

from __future__ import annotations

from .sessions.sessions import Sessions


class StoreHooks:
    """A part of `AuthProxy`, for its driver.

    ``store_available`` is the driver's to set: whether exchanges with its store succeed.
    """

    _sessions: Sessions
    store_available = True

    @property
    def session_cache_misses(self) -> int:
        """How many sessions no cache held so far, so that they had to be unsealed."""
        return self._sessions.cache_misses

    @property
    def store_notifies(self) -> bool:
        """Whether the store tells of every change, so that what it said may be kept."""
        return self._sessions.store_notifies

    @store_notifies.setter
    def store_notifies(self, trusted: bool) -> None:
        self._sessions.store_notifies = trusted

    def store_changed(self, key: str | None) -> None:
        """The value under *key* was written or deleted by anybody; None: any may be."""
        self._sessions.store_changed(key)
