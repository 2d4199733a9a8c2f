"""Timeout queue: one timer for all entries, because all have the same timeout.

The oldest entry expires first, so one timer of the event loop is enough. One timer per
request would cost more than the lookup of its upstream.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

TIMER_SLACK = 0.001  # seconds by which the event loop may call too early


class TimeoutHandler(Protocol):
    """An entry of a `TimeoutQueue`."""

    def on_timeout(self) -> None:
        """Handle the timeout; called once."""


class TimeoutQueue:
    """Calls handlers after *timeout* seconds; 0 disables the timeout."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # Handler → deadline (monotonic seconds), the earliest first.
        self._deadlines: dict[TimeoutHandler, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, handler: TimeoutHandler, now: float) -> None:
        """Call *handler* after the timeout, counted from *now* (monotonic seconds)."""
        if self._timeout:
            self._deadlines[handler] = now + self._timeout
            if self._timer is None:
                self._arm(self._timeout)

    def discard(self, handler: TimeoutHandler) -> None:
        """Remove *handler* if it is in the queue."""
        self._deadlines.pop(handler, None)

    def clear(self) -> None:
        """Remove all handlers."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(seconds, TIMER_SLACK), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = monotonic()
        expired = []
        for handler, deadline in self._deadlines.items():
            if deadline > now:
                self._arm(deadline - now)
                break
            expired.append(handler)
        for handler in expired:
            if self._deadlines.pop(handler, None) is not None:
                handler.on_timeout()
