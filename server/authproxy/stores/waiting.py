"""Locks of a store: first among the requests of this process, then with all others.

So only one request per process and lock asks the store again and again; the others
wait for it without costing anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..locks import Locks

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.05  # seconds between two tries


class SharedLocks:
    """Takes locks of a store by asking until they are free."""

    def __init__(self) -> None:
        self._own = Locks()

    async def take(
        self,
        key: str,
        ttl: float,
        wait: float,
        token: str,
        attempt: Callable[[], Awaitable[bool]],
    ) -> bool:
        """Hold *key*; *attempt* tries once in the store, and may raise `StoreError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if not await self._own.take_lock(key, ttl + wait, wait, token):
            return False
        try:
            taken = await self._in_store(attempt, deadline)
        except BaseException:
            self._own.release(key, token)
            raise
        if taken:
            self._own.renew(key, ttl, token)
        else:
            self._own.release(key, token)
        return taken

    async def _in_store(
        self, attempt: Callable[[], Awaitable[bool]], deadline: float
    ) -> bool:
        pause = FIRST_PAUSE
        while not await attempt():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return True

    def release(self, key: str, token: str) -> None:
        """Let the next one of this process try; the store's lock is given back before."""
        self._own.release(key, token)
