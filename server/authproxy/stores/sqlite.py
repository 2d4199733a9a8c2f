"""The embedded store: one SQLite file, shared by the workers of a machine.

In WAL mode readers never wait for a writer, so reads and writes have a thread each.
Changes are rows of a table. The reader polls SQLite's commit counter in shared memory,
and queries the table only after a commit.
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

from ..contract import OnLoaded
from . import sqlite_file
from .base import MAX_VALUE, OnChange, OnState
from .sqlite_thread import SqliteThread
from .store_locks import StoreLocks

READ_TIMEOUT = 1.0  # seconds
WRITE_TIMEOUT = 2.0  # seconds; longer than `sqlite_file.BUSY_TIMEOUT`
POLL_INTERVAL = 0.04  # seconds between two polls for changes
POLL_TIMEOUT = 0.5  # seconds; a slower poll leaves caches stale for too long
RECOVERY_INTERVAL = 0.25  # seconds between two attempts to recover from a failure
FILE_CHECK_INTERVAL = 1.0  # seconds between two checks that the file still exists
PURGE_INTERVAL = 60.0  # seconds between two removals of expired rows
PROBE_KEY = "authproxy:probe"


class SqliteStore:
    """A store in the file *path*; *clock* returns seconds since the epoch."""

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self._path = os.path.abspath(path)
        self._clock = clock
        on_state = lambda: self._on_state()  # noqa: E731 - replaced by `start`
        self._reader = SqliteThread(self._path, writes=False, on_state=on_state)
        self._writer = SqliteThread(self._path, writes=True, on_state=on_state)
        self._locks = StoreLocks()
        self._tasks: list[asyncio.Task[None]] = []
        self._on_state: OnState = lambda: None
        self.notifies = False

    @property
    def notify_error(self) -> str:
        """Reason for missing notifications."""
        return self._reader.error or f"{self._path}: no poll within {POLL_TIMEOUT} s"

    @property
    def limitation(self) -> str:
        """No feature is missing."""
        return ""

    @property
    def available(self) -> bool:
        """Whether the last read and the last write succeeded."""
        return not self.error

    @property
    def error(self) -> str:
        """Reason for unavailability of the store, "" if available."""
        return self._writer.error or self._reader.error

    async def start(self, on_change: OnChange, on_state: OnState) -> None:
        """Open the file, and poll it for changes from now on."""
        self._on_state = on_state
        loop = asyncio.get_running_loop()
        with contextlib.suppress(StoreError):
            await self._probe()
        self._tasks = [
            loop.create_task(self._poll_changes(on_change)),
            loop.create_task(self._run_maintenance()),
        ]

    async def close(self) -> None:
        """End the tasks and the threads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.close()
        await self._writer.close()

    async def load(self, key: str) -> bytes | None:
        """Return the value of *key*; None if it is absent."""
        [value] = await self.load_all((key,))
        return value

    async def load_all(self, keys: tuple[str, ...]) -> tuple[bytes | None, ...]:
        """Return the values of *keys*, in their order."""
        job = partial(sqlite_file.load, keys=keys, now=self._clock())
        return await self._reader.run(job, READ_TIMEOUT)

    def start_load(self, keys: tuple[str, ...], on_loaded: OnLoaded) -> bool:
        """Return False: reads wait for the thread, in `load_all`."""
        return False

    async def members(self, key: str) -> tuple[bytes, ...]:
        """Return the members of the set of *key* that have not expired."""
        job = partial(sqlite_file.members, key=key, now=self._clock())
        return await self._reader.run(job, READ_TIMEOUT)

    async def save(
        self, key: str, value: bytes, ttl: float, expected: bytes | None = None
    ) -> bool:
        """Set *key* to *value*; with *expected*, only if that is the present value."""
        if len(value) > MAX_VALUE:
            raise StoreError(
                f"got a value of {len(value)} bytes, expected at most {MAX_VALUE}"
            )
        now, ends_at = self._lifetime(ttl)
        job = partial(
            sqlite_file.save,
            key=key,
            value=value,
            ends_at=ends_at,
            now=now,
            expected=expected,
        )
        return await self._writer.run(job, WRITE_TIMEOUT)

    async def delete(self, key: str) -> None:
        """Delete the value or set of *key*."""
        job = partial(sqlite_file.delete, key=key, now=self._clock())
        await self._writer.run(job, WRITE_TIMEOUT)

    async def add(self, key: str, member: bytes, ttl: float) -> None:
        """Add *member* to the set of *key*, or reset its TTL."""
        now, ends_at = self._lifetime(ttl)
        job = partial(sqlite_file.add, key=key, member=member, ends_at=ends_at, now=now)
        await self._writer.run(job, WRITE_TIMEOUT)

    async def remove(self, key: str, member: bytes) -> None:
        """Remove *member* from the set of *key*."""
        job = partial(sqlite_file.remove, key=key, member=member, now=self._clock())
        await self._writer.run(job, WRITE_TIMEOUT)

    def _lifetime(self, ttl: float) -> tuple[float, float]:
        """Return the present time, and the expiry of an entry with *ttl*."""
        now = self._clock()
        return now, now + ttl if ttl else sqlite_file.NEVER

    async def acquire_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Acquire the lock *key* for *token*; False if it is not free within *wait*."""
        attempt = partial(self._try_lock, key, ttl, token)
        return await self._locks.acquire(key, ttl, wait, token, attempt)

    async def _try_lock(self, key: str, ttl: float, token: str) -> bool:
        # Read first, because reads do not delay writers.
        is_free = partial(sqlite_file.is_lock_free, key=key, now=self._clock())
        if not await self._reader.run(is_free, READ_TIMEOUT):
            return False
        now, ends_at = self._lifetime(ttl)
        job = partial(
            sqlite_file.acquire_lock, key=key, token=token, ends_at=ends_at, now=now
        )
        return await self._writer.run(job, WRITE_TIMEOUT)

    async def release_lock(self, key: str, token: str) -> None:
        """Release the lock *key* if *token* holds it."""
        await self._locks.release(key, token, partial(self._release, key, token))

    async def _release(self, key: str, token: str) -> None:
        job = partial(sqlite_file.release_lock, key=key, token=token)
        await self._writer.run(job, WRITE_TIMEOUT)

    async def _poll_changes(self, on_change: OnChange) -> None:
        generation = 0
        last: sqlite_file.ChangeBatch | None = None

        def poll(connection: sqlite3.Connection) -> tuple[int, sqlite_file.ChangeBatch]:
            # The commit counter is valid for one connection only.
            known = last if self._reader.generation == generation else None
            return self._reader.generation, sqlite_file.changes_since(connection, known)

        while True:
            try:
                generation, batch = await self._reader.run(poll, POLL_TIMEOUT)
            except StoreError:
                self._set_notifies(False)
            else:
                last = batch
                for key in (None,) if batch.keys is None else batch.keys:
                    on_change(key)
                self._set_notifies(True)
            await asyncio.sleep(POLL_INTERVAL)

    def _set_notifies(self, notifies: bool) -> None:
        if notifies != self.notifies:
            self.notifies = notifies
            self._on_state()

    async def _run_maintenance(self) -> None:
        loop = asyncio.get_running_loop()
        # At a random time, so that the workers do not purge at the same time.
        purge_at = loop.time() + random.uniform(0.0, PURGE_INTERVAL)  # noqa: S311 - no secret
        check_at = loop.time() + FILE_CHECK_INTERVAL
        while True:
            await asyncio.sleep(RECOVERY_INTERVAL)
            with contextlib.suppress(StoreError):
                if self._writer.error:
                    await self._probe()
                await self._locks.release_deferred(self._release)
                if loop.time() >= check_at:
                    check_at = loop.time() + FILE_CHECK_INTERVAL
                    await self._check_file()
                if loop.time() >= purge_at:
                    purge_at = loop.time() + PURGE_INTERVAL
                    await self._purge()

    async def _probe(self) -> None:
        """Write a short-lived value, which fails if the file is full or locked."""
        now = self._clock()
        job = partial(
            sqlite_file.save, key=PROBE_KEY, value=b"", ends_at=now + 1.0, now=now
        )
        await self._writer.run(job, WRITE_TIMEOUT)

    async def _check_file(self) -> None:
        # The writer first: no write may reach the old file once the caches are invalid.
        for thread, timeout in (
            (self._writer, WRITE_TIMEOUT),
            (self._reader, READ_TIMEOUT),
        ):
            with contextlib.suppress(StoreError):
                await thread.run(thread.check_file, timeout)

    async def _purge(self) -> None:
        job = partial(sqlite_file.purge, now=self._clock())
        while await self._writer.run(job, WRITE_TIMEOUT):  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_INTERVAL)  # let other writers run
        # systemd-tmpfiles and similar cleaners keep recently modified files.
        await asyncio.to_thread(self._touch)

    def _touch(self) -> None:
        for path in (self._path, os.path.dirname(self._path)):
            with contextlib.suppress(OSError):
                os.utime(path)
