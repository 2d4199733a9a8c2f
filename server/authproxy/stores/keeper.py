"""Keeps a worker's store running, and tells the core what it says."""

from __future__ import annotations

from typing import Protocol

from ..logs import Logs
from .base import Store

MODULE = "store"


class Application(Protocol):
    """What hears of the store; `authproxy_core.proxy.AuthProxy` is one."""

    store_available: bool
    store_trusted: bool

    def store_changed(self, key: str | None) -> None:
        """The value under *key* has changed; None: any may have."""


class StoreKeeper:
    """Starts and stops a store, and passes on its news to the running application."""

    def __init__(
        self, store: Store | None, application: Application, logs: Logs
    ) -> None:
        self._store = store
        self._application = application
        self._logs = logs
        self._was_available = True

    async def start(self) -> None:
        """Connect; returns although the store may be away."""
        if self._store is not None:
            await self._store.start(self._changed, self._noted)
            self._noted()

    async def close(self) -> None:
        """End the connections."""
        if self._store is not None:
            await self._store.close()

    def tell(self, application: Application) -> None:
        """Pass news on to *application* from now on, beginning with how it stands."""
        self._application = application
        if self._store is not None:
            application.store_available = self._store.available
            application.store_trusted = self._store.trustworthy

    def _changed(self, key: str | None) -> None:
        self._application.store_changed(key)

    def _noted(self) -> None:
        assert self._store is not None  # noqa: S101 - it calls this
        self.tell(self._application)
        available = self._store.available
        if available == self._was_available:
            return
        self._was_available = available
        if available:
            self._logs.info(MODULE, "the session store is available again")
        else:
            problem = self._store.problem or "no connection yet"
            self._logs.error(MODULE, f"the session store is away: {problem}")
