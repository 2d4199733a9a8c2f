"""Fair queue: work that is left over, one piece per event-loop iteration.

A client may send more in one packet than a callback should handle. The rest waits here
for its turn. Between two turns the event loop handles all received events, so many
clients with much left over do not delay the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial


class FairQueue:
    """The left-over work of one worker; each callback should take at most 1 ms."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: deque[Callable[[], object]] = deque()

    def add(self, callback: Callable[[], object]) -> None:
        """Call *callback* in a later iteration, after all that were added before."""
        self._callbacks.append(callback)
        if len(self._callbacks) == 1:
            asyncio.get_running_loop().call_soon(self._run_next)

    async def wait_turn(self) -> None:
        """Wait until it is the caller's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(partial(_wake, turn))
        await turn

    def _run_next(self) -> None:
        callback = self._callbacks.popleft()
        if self._callbacks:
            asyncio.get_running_loop().call_soon(self._run_next)
        callback()


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
