"""The embedded store: one SQLite file, shared by the workers of a machine.

In WAL mode readers never wait for a writer, so reading and watching have a thread of
their own, and writing another one. News are rows of a table: the reader looks whether
anybody has committed (one number of the shared memory), and only then what was changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable
from functools import partial

from authproxy_core.errors import StoreError

from . import sqlite_file
from .base import MAX_VALUE, OnChange, OnState
from .sqlite_thread import SqliteThread
from .store_locks import StoreLocks

READ_LIMIT = 1.0  # seconds for one answer
WRITE_LIMIT = 2.0  # seconds; longer than one wait for another writer (`BUSY`)
POLL = 0.04  # seconds between two looks for news
POLL_LIMIT = 0.5  # seconds; without an answer by then, news may be older than allowed
RECOVERY_INTERVAL = 0.25  # seconds between two looks after what failed
FILE_CHECK_INTERVAL = 1.0  # seconds between two looks whether the file is still there
PURGE = 60.0  # seconds between two removals of what has ended
PROBE = "authproxy:probe"


def _nobody() -> None:
    """Hears of nothing."""


class SqliteStore:
    """A store in the file *path*; *clock* gives seconds since the epoch."""

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self._path = os.path.abspath(path)
        self._clock = clock
        told = lambda: self._on_state()  # noqa: E731 - known only at the start
        self._reader = SqliteThread(self._path, writes=False, on_state=told)
        self._writer = SqliteThread(self._path, writes=True, on_state=told)
        self._locks = StoreLocks()
        self._tasks: list[asyncio.Task[None]] = []
        self._on_state: OnState = _nobody
        self.notifies = False

    @property
    def notify_error(self) -> str:
        """Why it is not trustworthy."""
        return self._reader.error or f"no look at {self._path} within {POLL_LIMIT} s"

    @property
    def available(self) -> bool:
        """Whether both reading and writing succeeded when last tried."""
        return not self.error

    @property
    def error(self) -> str:
        """Why it is not available."""
        return self._writer.error or self._reader.error

    async def start(self, on_change: OnChange, on_state: OnState) -> None:
        """Open the file, and watch it from now on."""
        self._on_state = on_state
        loop = asyncio.get_running_loop()
        with contextlib.suppress(StoreError):
            await self._probe()
        self._tasks = [
            loop.create_task(self._watch(on_change)),
            loop.create_task(self._tend()),
        ]

    async def close(self) -> None:
        """End the tasks and the threads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.close()
        await self._writer.close()

    # -- values and sets

    async def load(self, key: str) -> bytes | None:
        """The value under *key*."""
        [value] = await self.load_all((key,))
        return value

    async def load_all(self, keys: tuple[str, ...]) -> tuple[bytes | None, ...]:
        """The values under *keys*, in their order."""
        work = partial(sqlite_file.load, keys=keys, now=self._clock())
        return await self._reader.run(work, READ_LIMIT)

    async def members(self, key: str) -> tuple[bytes, ...]:
        """The members of the set under *key*."""
        work = partial(sqlite_file.members, key=key, now=self._clock())
        return await self._reader.run(work, READ_LIMIT)

    async def save(self, key: str, value: bytes, ttl: float) -> None:
        """Put *value* under *key*."""
        if len(value) > MAX_VALUE:
            raise StoreError(f"a value of {len(value)} bytes is too long to be kept")
        now, ends_at = self._time(ttl)
        work = partial(sqlite_file.save, key=key, value=value, ends_at=ends_at, now=now)
        await self._writer.run(work, WRITE_LIMIT)

    async def delete(self, key: str) -> None:
        """Forget *key*."""
        work = partial(sqlite_file.delete, key=key, now=self._clock())
        await self._writer.run(work, WRITE_LIMIT)

    async def add(self, key: str, member: bytes, ttl: float) -> None:
        """Put *member* into the set under *key*, or renew its time."""
        now, ends_at = self._time(ttl)
        work = partial(
            sqlite_file.add, key=key, member=member, ends_at=ends_at, now=now
        )
        await self._writer.run(work, WRITE_LIMIT)

    async def remove(self, key: str, member: bytes) -> None:
        """Take *member* out of the set under *key*."""
        work = partial(sqlite_file.remove, key=key, member=member, now=self._clock())
        await self._writer.run(work, WRITE_LIMIT)

    def _time(self, ttl: float) -> tuple[float, float]:
        """Now, and the end of what lives for *ttl* seconds."""
        now = self._clock()
        return now, now + ttl if ttl else sqlite_file.NEVER

    # -- locks

    async def take_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Hold the lock *key* as *token* for *ttl*; False when not free in *wait*."""
        return await self._locks.take(
            key, ttl, wait, token, partial(self._try_lock, key, ttl, token)
        )

    async def _try_lock(self, key: str, ttl: float, token: str) -> bool:
        # Reading holds nobody up, so ask there first.
        look = partial(sqlite_file.lock_is_free, key=key, now=self._clock())
        if not await self._reader.run(look, READ_LIMIT):
            return False
        now, ends_at = self._time(ttl)
        work = partial(
            sqlite_file.take_lock, key=key, token=token, ends_at=ends_at, now=now
        )
        return await self._writer.run(work, WRITE_LIMIT)

    async def release_lock(self, key: str, token: str) -> None:
        """Give the lock back if *token* still holds it."""
        await self._locks.release(key, token, partial(self._release, key, token))

    async def _release(self, key: str, token: str) -> None:
        work = partial(sqlite_file.release_lock, key=key, token=token)
        await self._writer.run(work, WRITE_LIMIT)

    # -- looking after it

    async def _watch(self, on_change: OnChange) -> None:
        generation = 0
        last: sqlite_file.ChangeBatch | None = None

        def look(connection: sqlite3.Connection) -> tuple[int, sqlite_file.ChangeBatch]:
            # Counts of commits belong to one connection.
            known = last if self._reader.generation == generation else None
            return self._reader.generation, sqlite_file.changes_since(connection, known)

        while True:
            try:
                generation, found = await self._reader.run(look, POLL_LIMIT)
            except StoreError:
                self._trust(False)
            else:
                last = found
                for key in (None,) if found.keys is None else found.keys:
                    on_change(key)
                self._trust(True)
            await asyncio.sleep(POLL)

    def _trust(self, trustworthy: bool) -> None:
        if trustworthy != self.notifies:
            self.notifies = trustworthy
            self._on_state()

    async def _tend(self) -> None:
        loop = asyncio.get_running_loop()
        # Workers that were started together do not purge together.
        purge_at = loop.time() + random.uniform(0.0, PURGE)  # noqa: S311 - no secret
        look_at = loop.time() + FILE_CHECK_INTERVAL
        while True:
            await asyncio.sleep(RECOVERY_INTERVAL)
            with contextlib.suppress(StoreError):
                if self._writer.error:
                    await self._probe()
                await self._locks.release_deferred(self._release)
                if loop.time() >= look_at:
                    look_at = loop.time() + FILE_CHECK_INTERVAL
                    await self._look_for_file()
                if loop.time() >= purge_at:
                    purge_at = loop.time() + PURGE
                    await self._purge()

    async def _probe(self) -> None:
        """Write something: this tells whether there is room, and nobody in the way."""
        now = self._clock()
        work = partial(
            sqlite_file.save, key=PROBE, value=b"", ends_at=now + 1.0, now=now
        )
        await self._writer.run(work, WRITE_LIMIT)

    async def _look_for_file(self) -> None:
        # The writer first: once caches are void, nothing goes to the old file any more.
        for lane, limit in ((self._writer, WRITE_LIMIT), (self._reader, READ_LIMIT)):
            with contextlib.suppress(StoreError):
                await lane.run(lane.check_file, limit)

    async def _purge(self) -> None:
        work = partial(sqlite_file.purge, now=self._clock())
        while await self._writer.run(work, WRITE_LIMIT):  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL)  # let others write
        # Cleaners of temporary folders leave alone what was touched lately.
        await asyncio.to_thread(self._touch)

    def _touch(self) -> None:
        for path in (self._path, os.path.dirname(self._path)):
            with contextlib.suppress(OSError):
                os.utime(path)
