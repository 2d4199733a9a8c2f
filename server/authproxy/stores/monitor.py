"""Store monitor: start and stop a worker's store, report state and changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from ..logs.logger import Logs
from .base import Store

MODULE = "store"
STARTUP_TIMEOUT = 1.0  # seconds that the start waits for the store
OUTAGE_INTERVAL = 30.0  # seconds between lines about an outage whose cause changes
NOTIFY_GRACE = 3.0  # seconds without notifications before that is logged


class Application(Protocol):
    """Receives the store's state and changes; implemented by the core's `AuthProxy`."""

    store_available: bool
    store_notifies: bool

    def store_changed(self, key: str | None) -> None:
        """Handle a change of the value of *key*; None: any value may have changed."""


class StoreMonitor:
    """Start and stop the store; report its state and key changes to the core.

    *on_state* is called after the core knows a changed state.
    """

    def __init__(
        self,
        store: Store | None,
        application: Application,
        logs: Logs,
        on_state: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._application = application
        self._logs = logs
        self._report_state = on_state
        self._logging = False
        self._available = asyncio.Event()
        self._logged_unavailable = self._logged_no_notifications = False
        self._logged_error = ""
        self._outage_timer: asyncio.TimerHandle | None = None
        self._logged_limitation = ""
        self._grace_timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Connect; wait up to `STARTUP_TIMEOUT` until the store is available."""
        store = self._store
        if store is None:
            return
        await store.start(self._on_change, lambda: self._on_state(store))
        self._on_state(store)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTUP_TIMEOUT):
                await self._available.wait()
        self._logging = True
        self._on_state(store)

    async def close(self) -> None:
        """Close the store, without a log line about its state."""
        self._logging = False
        for timer in (self._grace_timer, self._outage_timer):
            if timer is not None:
                timer.cancel()
        if self._store is not None:
            await self._store.close()

    def attach(self, application: Application) -> None:
        """Report to *application* from now on, starting with the present state."""
        self._application = application
        if self._store is not None:
            application.store_available = self._store.available
            application.store_notifies = self._store.notifies

    def _on_change(self, key: str | None) -> None:
        self._application.store_changed(key)

    def _on_state(self, store: Store) -> None:
        self.attach(self._application)
        self._report_state()
        if store.available:
            self._available.set()
        if self._logging:
            self._log_availability(store)
            self._log_limitation(store)
            self._log_notifications(store)

    def _log_availability(self, store: Store) -> None:
        if store.available != self._logged_unavailable:
            return
        self._logged_unavailable = not store.available
        if store.available:
            self._logged_error = ""
            if self._outage_timer is not None:
                self._outage_timer.cancel()
            self._logs.shared("info", MODULE, "session store available again")
        else:
            self._log_outage(store)

    def _log_outage(self, store: Store) -> None:
        """Log the outage, and later again if it lasts for another reason."""
        if store.error != self._logged_error:
            self._logged_error = store.error
            self._logs.shared(
                "error",
                MODULE,
                f"session store unavailable: {store.error}; "
                "requests that need a session get 503",
            )
        loop = asyncio.get_running_loop()
        self._outage_timer = loop.call_later(OUTAGE_INTERVAL, self._log_outage, store)

    def _log_limitation(self, store: Store) -> None:
        limitation = store.limitation
        if limitation == self._logged_limitation:
            return
        self._logged_limitation = limitation
        if limitation:
            self._logs.shared(
                "warning",
                MODULE,
                f"session store with limited permissions: {limitation}; grant the "
                "commands that docs/sessions.md lists",
            )
        else:
            text = "session store with full permissions again"
            self._logs.shared("info", MODULE, text)

    def _log_notifications(self, store: Store) -> None:
        """Log missing notifications of an available store after `NOTIFY_GRACE`."""
        if store.notifies and self._logged_no_notifications:
            self._logged_no_notifications = False
            text = "change notifications from the session store restored"
            self._logs.shared("info", MODULE, text)
        elif not store.notifies and self._grace_timer is None:
            loop = asyncio.get_running_loop()
            self._grace_timer = loop.call_later(NOTIFY_GRACE, self._on_grace_end, store)

    def _on_grace_end(self, store: Store) -> None:
        self._grace_timer = None
        if store.available and not store.notifies and not self._logged_no_notifications:
            self._logged_no_notifications = True
            self._logs.shared(
                "warning",
                MODULE,
                "no change notifications from the session store: "
                f"{store.notify_error}; every check reads the store",
            )
