"""A thread that works on a file of SQLite, so that the event loop never waits for it.

What comes while the thread is busy is done together next: under load one change of
threads, and one transaction, serve many requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from authproxy_core.errors import StoreError

from . import sqlite_file

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
BATCH = 64  # works that are done together
MAX_QUEUED_JOBS = 10_000  # works
CLOSE_LIMIT = 2.0  # seconds


class _Job(NamedTuple):
    work: Work
    answer: asyncio.Future[Any]


class SqliteThread:
    """A thread with a connection of its own, opened anew after every failure.

    ``problem`` is why the last work failed, "" when it did not. ``generation`` counts
    the connections. With *writes* the works of a batch are one transaction.
    """

    def __init__(
        self, path: str, *, writes: bool, on_state: Callable[[], None]
    ) -> None:
        self.error = ""
        self.generation = 0
        self._path = path
        self._writes = writes
        self._on_state = on_state
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._waiting: list[_Job] = []
        self._busy = False
        self._closed = False
        self._executor = ThreadPoolExecutor(1, "store-write" if writes else "store")

    async def run(self, work: Callable[[sqlite3.Connection], T], limit: float) -> T:
        """The result of *work*, within *limit* seconds. Raises `StoreError`."""
        if self._closed or len(self._waiting) >= MAX_QUEUED_JOBS:
            raise StoreError("too much waits for the session store")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(work, answer))
        if not self._busy:
            self._go_on()
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            text = f"{self._path}: no answer within {limit:g} s"
            self._note(text)
            raise StoreError(text) from None

    async def close(self) -> None:
        """Close the connection, and let the thread end."""
        self._closed = True
        dropped = asyncio.wrap_future(self._executor.submit(self._drop))
        self._executor.shutdown(wait=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                await dropped

    # On the loop.

    def _go_on(self) -> None:
        batch = [order for order in self._waiting if not order.answer.done()][:BATCH]
        del self._waiting[: self._waiting.index(batch[-1]) + 1 if batch else None]
        self._busy = bool(batch)
        if batch:
            loop = asyncio.get_running_loop()
            self._executor.submit(self._work_off, loop, batch)

    def _done(
        self, batch: list[_Job], results: list[Any], error: StoreError | None
    ) -> None:
        for order, result in zip(batch, results, strict=True):
            if order.answer.done():
                continue
            if isinstance(result, StoreError) or error is not None:
                order.answer.set_exception(error or result)
            else:
                order.answer.set_result(result)
        self._note(str(error) if error is not None else "")
        self._go_on()

    def _note(self, problem: str) -> None:
        changed = bool(problem) != bool(self.error)
        self.error = problem
        if changed:
            self._on_state()

    # On the thread.

    def _work_off(self, loop: asyncio.AbstractEventLoop, batch: list[_Job]) -> None:
        results: list[Any] = [None] * len(batch)
        failure: StoreError | None = None
        try:
            results = self._worked(batch)
        except StoreError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - or those who wait would wait on
            failure = StoreError(f"{self._path}: {error}")
        if failure is not None:
            self._drop()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._done, batch, results, failure)

    def _worked(self, batch: list[_Job]) -> list[Any]:
        connection = self._opened()
        if not self._writes:
            return [_read(order.work, connection) for order in batch]
        connection.execute("BEGIN IMMEDIATE")  # waits for other writers
        # Who has given up by now has said that nothing was written.
        results = [
            None if order.answer.done() else order.work(connection) for order in batch
        ]
        connection.execute("COMMIT")
        return results

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite_file.open_database(self._path)
            self._identity = sqlite_file.identity_of(self._path)
            self.generation += 1
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def check_file(self, _: sqlite3.Connection) -> None:
        """A work: fail when the file is gone, for nobody else sees what is in it.

        The failure makes the next work open the file that is there now.
        """
        if not sqlite_file.is_current(self._path, self._identity):
            raise OSError("the file was removed or replaced")


def _read(work: Work, connection: sqlite3.Connection) -> Any:
    """The result of *work*, or the `StoreError` that is its own affair."""
    try:
        return work(connection)
    except StoreError as error:
        return error
