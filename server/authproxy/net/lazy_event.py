"""An event that costs little while nobody waits for it, which is nearly always."""

from __future__ import annotations

import asyncio


class LazyEvent:
    """As `asyncio.Event`, which would be made with a queue for those who wait."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def set(self) -> None:
        """Wake all who wait, and let nobody wait from now on."""
        self._set = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def clear(self) -> None:
        """Let those wait who come from now on."""
        self._set = False

    async def wait(self) -> None:
        """Wait until it is set."""
        if not self._set:
            self._event = self._event or asyncio.Event()
            await self._event.wait()
