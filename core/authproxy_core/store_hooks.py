"""Hooks for a driver with a session store: its state, changed keys, cache misses."""

from __future__ import annotations

from .sessions.sessions import Sessions


class StoreHooks:
    """The part of `AuthProxy` that a driver calls about its store.

    The driver sets ``store_available`` to whether its last store operation succeeded.
    """

    _sessions: Sessions
    store_available = True

    @property
    def session_cache_misses(self) -> int:
        """Number of sessions so far that were not cached and had to be unsealed."""
        return self._sessions.cache_misses

    @property
    def store_notifies(self) -> bool:
        """Whether the store reports every change, so that loaded values may be cached."""
        return self._sessions.store_notifies

    @store_notifies.setter
    def store_notifies(self, notifies: bool) -> None:
        self._sessions.store_notifies = notifies

    def store_changed(self, key: str | None) -> None:
        """Drop cached values of *key*, which any process changed; None: of all keys."""
        self._sessions.store_changed(key)
