"""A thread for a SQLite file, so that the event loop never waits for it.

Jobs that arrive while the thread is busy run together in the next batch: under load one
thread switch, and one transaction, serve many requests.
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
MAX_BATCH = 64  # jobs that run together
MAX_QUEUED_JOBS = 10_000
CLOSE_TIMEOUT = 2.0  # seconds


class _Job(NamedTuple):
    work: Work
    result: asyncio.Future[Any]


class SqliteThread:
    """A thread with its own connection, which is reopened after every failure.

    ``error`` is why the last batch failed, "" if it succeeded. ``generation`` counts
    the connections. With *writes* a batch is one transaction. *on_state* is called when
    ``error`` becomes empty or non-empty.
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
        self._queue: list[_Job] = []
        self._busy = False
        self._closed = False
        self._executor = ThreadPoolExecutor(1, "store-write" if writes else "store")

    async def run(self, work: Callable[[sqlite3.Connection], T], limit: float) -> T:
        """Return the result of *work*, within *limit* seconds. Raises `StoreError`."""
        if self._closed or len(self._queue) >= MAX_QUEUED_JOBS:
            raise StoreError(f"session store queue full ({MAX_QUEUED_JOBS} operations)")
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(_Job(work, result))
        if not self._busy:
            self._submit_batch()
        try:
            async with asyncio.timeout(limit):
                return await result
        except TimeoutError:
            text = f"{self._path}: no result within {limit:g} s"
            self._set_error(text)
            raise StoreError(text) from None
        finally:
            del result  # its error refers to this frame by its traceback

    async def close(self) -> None:
        """Close the connection, and let the thread end."""
        self._closed = True
        closed = asyncio.wrap_future(self._executor.submit(self._close_connection))
        self._executor.shutdown(wait=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await closed

    # On the event loop.

    def _submit_batch(self) -> None:
        batch = [job for job in self._queue if not job.result.done()][:MAX_BATCH]
        del self._queue[: self._queue.index(batch[-1]) + 1 if batch else None]
        self._busy = bool(batch)
        if batch:
            loop = asyncio.get_running_loop()
            self._executor.submit(self._run_batch, loop, batch)

    def _finish_batch(
        self, batch: list[_Job], results: list[Any], error: StoreError | None
    ) -> None:
        for job, result in zip(batch, results, strict=True):
            if job.result.done():
                continue
            if isinstance(result, StoreError) or error is not None:
                job.result.set_exception(error or result)
            else:
                job.result.set_result(result)
        self._set_error(str(error) if error is not None else "")
        self._submit_batch()

    def _set_error(self, error: str) -> None:
        changed = bool(error) != bool(self.error)
        self.error = error
        if changed:
            self._on_state()

    # On the thread.

    def _run_batch(self, loop: asyncio.AbstractEventLoop, batch: list[_Job]) -> None:
        results: list[Any] = [None] * len(batch)
        failure: StoreError | None = None
        try:
            results = self._results_of(batch)
        except StoreError as error:
            failure = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - else the callers would time out
            failure = StoreError(f"{self._path}: {error}")
        if failure is not None:
            self._close_connection()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._finish_batch, batch, results, failure)

    def _results_of(self, batch: list[_Job]) -> list[Any]:
        connection = self._open_connection()
        if not self._writes:
            return [_read(job.work, connection) for job in batch]
        connection.execute("BEGIN IMMEDIATE")  # waits for other writers
        # The caller of a timed-out job has reported that nothing was written.
        results = [None if job.result.done() else job.work(connection) for job in batch]
        connection.execute("COMMIT")
        return results

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite_file.open_database(self._path)
            self._identity = sqlite_file.identity_of(self._path)
            self.generation += 1
        return self._connection

    def _close_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def check_file(self, _: sqlite3.Connection) -> None:
        """Raise `OSError` if the open file was removed or replaced; run it as a job.

        The failure makes the next job open the file that has the path now, which is the
        one that other processes use.
        """
        if not sqlite_file.is_current(self._path, self._identity):
            raise OSError("the file was removed or replaced")


def _read(work: Work, connection: sqlite3.Connection) -> Any:
    """Return the result of *work*, or a `StoreError` that fails this job alone."""
    try:
        return work(connection)
    except StoreError as error:
        return error
