"""Locks by name inside one process, each with an end of its own."""

from __future__ import annotations

import asyncio
from collections import deque

_NOBODY = ""


class LocalLocks:
    """Named locks; one that nobody holds takes no memory.

    Each is held by a token that its owner alone knows: who gives back late, after its
    time was over, does not take the lock from the one that holds it by then.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.TimerHandle, str]] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Hold *key* for at most *ttl* seconds; False when not free within *wait*."""
        if key in self._held and not await self._wait_for_turn(key, wait):
            return False
        loop = asyncio.get_running_loop()
        self._held[key] = (loop.call_later(ttl, self._hand_over, key), token)
        return True

    async def _wait_for_turn(self, key: str, wait: float) -> bool:
        """Wait for the turn; whoever releases hands the lock over."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            async with asyncio.timeout(wait):
                await turn
        except TimeoutError:
            return self._cancel_wait(key, turn)
        except asyncio.CancelledError:
            if self._cancel_wait(key, turn):
                self._hand_over(key)
            raise
        return True

    def _cancel_wait(self, key: str, turn: asyncio.Future[None]) -> bool:
        """Leave the queue; True when the turn came all the same."""
        if turn.done() and not turn.cancelled():
            return True
        queue = self._waiting.get(key)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[key]
        return False

    async def release_lock(self, key: str, token: str) -> None:
        """Give *key* back, if *token* still holds it."""
        self.release(key, token)

    def release(self, key: str, token: str) -> None:
        """The same, at once."""
        held = self._held.get(key)
        if held is not None and held[1] == token:
            self._hand_over(key)

    def extend(self, key: str, ttl: float, token: str) -> None:
        """Let *token* hold *key* for *ttl* seconds from now, if it still holds it."""
        held = self._held.get(key)
        if held is not None and held[1] == token:
            held[0].cancel()
            loop = asyncio.get_running_loop()
            self._held[key] = (loop.call_later(ttl, self._hand_over, key), token)

    def _hand_over(self, key: str) -> None:
        """Give *key* to the one that has waited longest."""
        timer, _ = self._held[key]
        timer.cancel()
        # Nobody's, until the one whose turn it is has come to run.
        self._held[key] = (timer, _NOBODY)
        queue = self._waiting.get(key)
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._waiting[key]
            if not turn.done():
                turn.set_result(None)
                return
        del self._held[key]
