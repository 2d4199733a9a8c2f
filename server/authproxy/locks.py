"""Locks by name inside one process, each with an end of its own."""

from __future__ import annotations

import asyncio
from collections import deque


class Locks:
    """Named locks; one that nobody holds takes no memory."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.TimerHandle] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, key: str, ttl: float, wait: float) -> bool:
        """Hold *key* for at most *ttl* seconds; False when not free within *wait*."""
        if key in self._held and not await self._waited(key, wait):
            return False
        loop = asyncio.get_running_loop()
        self._held[key] = loop.call_later(ttl, self.release, key)
        return True

    async def _waited(self, key: str, wait: float) -> bool:
        """Wait for the turn; whoever releases hands the lock over."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            async with asyncio.timeout(wait):
                await turn
        except TimeoutError:
            return self._given_up(key, turn)
        except asyncio.CancelledError:
            if self._given_up(key, turn):
                self.release(key)
            raise
        return True

    def _given_up(self, key: str, turn: asyncio.Future[None]) -> bool:
        """Leave the queue; True when the turn came all the same."""
        if turn.done() and not turn.cancelled():
            return True
        queue = self._waiting.get(key)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[key]
        return False

    def release(self, key: str) -> None:
        """Give *key* back, to the one that has waited longest."""
        timer = self._held.get(key)
        if timer is None:
            return
        timer.cancel()
        queue = self._waiting.get(key)
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._waiting[key]
            if not turn.done():
                turn.set_result(None)
                return  # still held: by the one whose turn it is now
        del self._held[key]
