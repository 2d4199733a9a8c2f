"""Fair queue: a limited amount of deferrable work in each event-loop iteration.

A client may send more at once than a callback should handle, and many clients may send
at the same time. What exceeds the budget of an iteration waits here for its turn.
Between two turns the event loop handles all received events, so floods do not delay the
other clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

ITERATION_BUDGET = 1000  # estimated microseconds of deferrable work per iteration

# What may be spent in several iterations before they are told apart, which costs an
# additional iteration.
UNCOUNTED = ITERATION_BUDGET // 4


class FairQueue:
    """The deferrable work of one worker; costs are estimated microseconds."""

    __slots__ = ("_is_scheduled", "_shared", "_spent", "_waiting")

    def __init__(self) -> None:
        self._shared: deque[Callable[[], object]] = deque()
        self._waiting: deque[tuple[Callable[[], object], int]] = deque()
        self._spent = 0  # in this iteration
        self._is_scheduled = False

    def add(self, callback: Callable[[], object], cost: int = ITERATION_BUDGET) -> None:
        """Call *callback* in a later iteration, after all that were added before."""
        self._waiting.append((callback, cost))
        self._schedule()

    def add_shared(self, callback: Callable[[], object]) -> None:
        """Call *callback* in a turn that all callbacks of this kind share.

        It is for work that no client waits for: one turn of a round, however much it is.
        """
        self._shared.append(callback)
        if len(self._shared) == 1:
            self.add(self._call_shared)

    def _call_shared(self) -> None:
        callback = self._shared.popleft()
        if self._shared:
            self.add(self._call_shared)
        callback()

    async def spend(self, cost: int) -> None:
        """Return at once within the budget of this iteration, else wait for a turn."""
        if self._spent < ITERATION_BUDGET:
            self._spent += cost
            if self._spent >= UNCOUNTED:
                self._schedule()
            return
        await self.wait_turn(cost)

    async def wait_turn(self, cost: int = ITERATION_BUDGET) -> None:
        """Wait for a turn in a later iteration."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(partial(_wake, turn), cost)
        await turn

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_iteration)

    def _start_iteration(self) -> None:
        self._is_scheduled = False
        self._spent = 0
        while self._waiting and self._spent < ITERATION_BUDGET:
            callback, cost = self._waiting.popleft()
            self._spent += cost
            self._schedule()  # before the callback, which may fail
            callback()


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
