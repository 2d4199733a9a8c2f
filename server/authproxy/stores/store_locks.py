"""Store locks: acquired first within the process, then by polling the store.

So only one request per process and lock polls; the others wait in a local queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from authproxy_core.errors import StoreError

from ..net.locks import LocalLocks

FIRST_POLL_DELAY, MAX_POLL_DELAY = 0.01, 0.05  # seconds
MAX_DEFERRED_RELEASES = 1000  # locks


class StoreLocks:
    """Acquires locks of a store by polling until they are free.

    If the store fails during an acquire or a release, the store may hold the lock until
    it expires although no request does. `release_deferred` releases these locks.
    """

    def __init__(self) -> None:
        self._local = LocalLocks()
        self._deferred: dict[str, str] = {}  # token → key

    async def acquire(
        self,
        key: str,
        ttl: float,
        wait: float,
        token: str,
        attempt: Callable[[], Awaitable[bool]],
    ) -> bool:
        """Acquire *key* for *token*; False if it is not free within *wait* seconds.

        *attempt* tries once in the store and may raise `StoreError`.
        """
        deadline = asyncio.get_running_loop().time() + wait
        if not await self._local.take_lock(key, ttl + wait, wait, token):
            return False
        try:
            acquired = await self._poll(attempt, deadline)
        except BaseException:
            self._defer_release(key, token)
            self._local.release(key, token)
            raise
        if acquired:
            self._local.extend(key, ttl, token)
        else:
            self._local.release(key, token)
        return acquired

    async def _poll(
        self, attempt: Callable[[], Awaitable[bool]], deadline: float
    ) -> bool:
        delay = FIRST_POLL_DELAY
        while not await attempt():
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                return False
            await asyncio.sleep(min(delay, remaining))
            delay = min(delay * 1.5, MAX_POLL_DELAY)
        return True

    async def release(
        self, key: str, token: str, release: Callable[[], Awaitable[None]]
    ) -> None:
        """Release *key* in the store, by calling *release*, and in this process."""
        try:
            await release()
        except StoreError:
            self._defer_release(key, token)
            raise
        finally:
            self._local.release(key, token)

    def _defer_release(self, key: str, token: str) -> None:
        if len(self._deferred) < MAX_DEFERRED_RELEASES:
            self._deferred[token] = key

    async def release_deferred(
        self, release: Callable[[str, str], Awaitable[None]]
    ) -> None:
        """Retry the releases that failed before. Raises `StoreError`."""
        for token, key in list(self._deferred.items()):
            await release(key, token)
            del self._deferred[token]
