"""Keeps a worker's store running, and tells the core what it says."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from ..logs.logger import Logs
from .base import Store

MODULE = "store"
STARTUP_TIMEOUT = 1.0  # seconds that a start waits for the store
NOTIFY_GRACE = 3.0  # seconds


class Application(Protocol):
    """What hears of the store; `authproxy_core.proxy.AuthProxy` is one."""

    store_available: bool
    store_notifies: bool

    def store_changed(self, key: str | None) -> None:
        """The value under *key* has changed; None: any may have."""


class StoreMonitor:
    """Starts and stops a store, and passes on its news to the running application."""

    def __init__(
        self, store: Store | None, application: Application, logs: Logs
    ) -> None:
        self._store = store
        self._application = application
        self._logs = logs
        self._started = False
        self._answers = asyncio.Event()
        self._said_away = self._said_doubt = False
        self._doubting: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Connect, and wait a moment for it; returns although the store may be away."""
        store = self._store
        if store is None:
            return
        await store.start(self._application_changed, lambda: self._noted(store))
        self._noted(store)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTUP_TIMEOUT):
                await self._answers.wait()
        self._started = True
        self._noted(store)

    async def close(self) -> None:
        """End the connections."""
        self._started = False  # nothing is to be said about that
        if self._doubting is not None:
            self._doubting.cancel()
        if self._store is not None:
            await self._store.close()

    def attach(self, application: Application) -> None:
        """Pass news on to *application* from now on, beginning with how it stands."""
        self._application = application
        if self._store is not None:
            application.store_available = self._store.available
            application.store_notifies = self._store.notifies

    def _application_changed(self, key: str | None) -> None:
        self._application.store_changed(key)

    def _noted(self, store: Store) -> None:
        self.attach(self._application)
        if store.available:
            self._answers.set()
        if self._started:
            self._say_whether_away(store)
            self._say_whether_doubtful(store)

    def _say_whether_away(self, store: Store) -> None:
        if store.available != self._said_away:
            return
        self._said_away = not store.available
        if store.available:
            self._logs.info(MODULE, "the session store is available again")
        else:
            self._logs.error(MODULE, f"the session store is away: {store.error}")

    def _say_whether_doubtful(self, store: Store) -> None:
        """Say it when a store that answers does not tell of changes for a while."""
        if store.notifies and self._said_doubt:
            self._said_doubt = False
            self._logs.info(MODULE, "the session store tells of changes again")
        elif not store.notifies and self._doubting is None:
            loop = asyncio.get_running_loop()
            self._doubting = loop.call_later(NOTIFY_GRACE, self._judge_doubt, store)

    def _judge_doubt(self, store: Store) -> None:
        self._doubting = None
        if store.available and not store.notifies and not self._said_doubt:
            self._said_doubt = True
            self._logs.error(
                MODULE,
                "the session store does not tell of changes, so it is asked for every "
                f"session: {store.notify_error}",
            )
