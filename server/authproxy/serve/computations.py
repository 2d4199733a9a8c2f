"""Threads for computations that clients can cause, such as bcrypt.

They are apart from asyncio's threads, which resolve names and read files, so that no
number of password guesses delays those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from authproxy_core.errors import BusyError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

THREADS = 2
MAX_COMPUTATIONS = 100  # that run or wait; bcrypt takes 0.05 to 0.5 s


class Computations:
    """Runs computations in few threads, which start with the first one."""

    def __init__(self) -> None:
        self._count = 0
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return the result of *function*. Raises its exception, and `BusyError`."""
        if self._count >= MAX_COMPUTATIONS:
            raise BusyError(f"more than {MAX_COMPUTATIONS} computations wait")
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(THREADS, "computation")
        self._count += 1
        work = asyncio.get_running_loop().run_in_executor(self._executor, function)
        work.add_done_callback(self._ended)
        return await work

    def _ended(self, _: asyncio.Future[Any]) -> None:
        self._count -= 1
