"""An event that is cheap while no task waits for it, which is the usual case."""

from __future__ import annotations

import asyncio


class LazyEvent:
    """Like `asyncio.Event`, but allocates the queue of waiters on demand."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self._set

    def set(self) -> None:
        """Set the event and wake all waiters."""
        self._set = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def clear(self) -> None:
        """Reset the event, so that later calls of `wait` block."""
        self._set = False

    async def wait(self) -> None:
        """Wait until the event is set."""
        if not self._set:
            self._event = self._event or asyncio.Event()
            await self._event.wait()
