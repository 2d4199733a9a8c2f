"""One time limit for many: who waits longer than it is called.

All wait equally long, so the one that has waited longest is the next, and one timer of
the loop is enough. Setting and dropping a timer for each would cost a request more than
finding its upstream.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

TIMER_SLACK = 0.001  # seconds by which a timer of the loop may come too early


class TimeoutHandler(Protocol):
    """Who may have to wait too long."""

    def on_timeout(self) -> None:
        """The time is over; told once."""


class TimeoutQueue:
    """Tells those that wait longer than *limit* seconds; 0: nobody."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._ends: dict[
            TimeoutHandler, float
        ] = {}  # monotonic seconds, the first one first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: TimeoutHandler, now: float) -> None:
        """*waiting* waits from *now* (monotonic seconds) on."""
        if self._limit:
            self._ends[waiting] = now + self._limit
            if self._timer is None:
                self._arm(self._limit)

    def discard(self, waiting: TimeoutHandler) -> None:
        """*waiting* waits no more, if it did."""
        self._ends.pop(waiting, None)

    def clear(self) -> None:
        """Tell nobody any more."""
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(seconds, TIMER_SLACK), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = monotonic()
        late = []
        for waiting, end in self._ends.items():
            if end > now:
                self._arm(end - now)
                break
            late.append(waiting)
        for waiting in late:
            if self._ends.pop(waiting, None) is not None:
                waiting.on_timeout()
