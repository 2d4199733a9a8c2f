"""Named locks inside one process, each with an expiry."""

from __future__ import annotations

import asyncio
from collections import deque

_NO_HOLDER = ""


class LocalLocks:
    """Named locks; a free lock takes no memory.

    A lock is held by a secret token, so a holder that releases after the expiry does
    not release the lock of the next holder.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.TimerHandle, str]] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Acquire *key* for *ttl* seconds; return False if not free within *wait*."""
        if key in self._held and not await self._wait_for_turn(key, wait):
            return False
        loop = asyncio.get_running_loop()
        self._held[key] = (loop.call_later(ttl, self._hand_over, key), token)
        return True

    async def _wait_for_turn(self, key: str, wait: float) -> bool:
        """Wait until the holder hands the lock over; return False after *wait*."""
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
        """Leave the queue; return True if the lock has just been handed over."""
        if turn.done() and not turn.cancelled():
            return True
        queue = self._waiting.get(key)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[key]
        return False

    async def release_lock(self, key: str, token: str) -> None:
        """Release *key* if *token* holds it."""
        self.release(key, token)

    def release(self, key: str, token: str) -> None:
        """Release *key* if *token* holds it (no coroutine)."""
        held = self._held.get(key)
        if held is not None and held[1] == token:
            self._hand_over(key)

    def extend(self, key: str, ttl: float, token: str) -> None:
        """Set the expiry of *key* to *ttl* seconds from now if *token* holds it."""
        held = self._held.get(key)
        if held is not None and held[1] == token:
            held[0].cancel()
            loop = asyncio.get_running_loop()
            self._held[key] = (loop.call_later(ttl, self._hand_over, key), token)

    def _hand_over(self, key: str) -> None:
        """Release *key*, or hand it to the first waiter."""
        timer, _ = self._held[key]
        timer.cancel()
        # The lock stays held without a token until the waiter's task runs.
        self._held[key] = (timer, _NO_HOLDER)
        queue = self._waiting.get(key)
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._waiting[key]
            if not turn.done():
                turn.set_result(None)
                return
        del self._held[key]
