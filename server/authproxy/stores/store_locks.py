"""Locks of a store: first among the requests of this process, then with all others.

So only one request per process and lock asks the store again and again; the others
wait for it without costing anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from authproxy_core.errors import StoreError

from ..net.locks import LocalLocks

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.05  # seconds between two tries
MAX_DEFERRED_RELEASES = 1000  # locks


class StoreLocks:
    """Takes locks of a store by asking until they are free.

    When the store fails while a lock is taken or given back, it may be held by nobody
    until its time is over. Such ones are given back as soon as the store answers.
    """

    def __init__(self) -> None:
        self._own = LocalLocks()
        self._owed: dict[str, str] = {}  # token → key

    async def take(
        self,
        key: str,
        ttl: float,
        wait: float,
        token: str,
        attempt: Callable[[], Awaitable[bool]],
    ) -> bool:
        """Hold *key*; *attempt* tries once in the store, and may raise `StoreError`."""
        deadline = asyncio.get_running_loop().time() + wait
        if not await self._own.take_lock(key, ttl + wait, wait, token):
            return False
        try:
            taken = await self._in_store(attempt, deadline)
        except BaseException:
            self._owe(key, token)
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

    async def release(
        self, key: str, token: str, release: Callable[[], Awaitable[None]]
    ) -> None:
        """Free *key* in the store by *release*, and for the next of this process."""
        try:
            await release()
        except StoreError:
            self._owe(key, token)
            raise
        finally:
            self._own.release(key, token)

    def _owe(self, key: str, token: str) -> None:
        if len(self._owed) < MAX_DEFERRED_RELEASES:
            self._owed[token] = key

    async def release_deferred(
        self, release: Callable[[str, str], Awaitable[None]]
    ) -> None:
        """Give back what could not be given back before. Raises `StoreError`."""
        for token, key in list(self._owed.items()):
            await release(key, token)
            del self._owed[token]
