"""Connection pool of one server: idle connections, a limit, waiting requests.

A server may close an idle connection at any moment, even while a request is on its way.
A connection that has been idle for long is therefore only for retryable requests; one
that was in use a moment ago is for all requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from msgspec import Struct

from .dial import Stream


class PoolLimits(Struct, frozen=True, kw_only=True):
    """Limits of one pool; times in seconds.

    At most ``connections`` are open (0: no limit), and ``idle_connections`` of them
    idle, for at most ``idle_timeout``. For ``recent`` after its last use a connection
    is usable for requests that are not retryable.
    """

    connections: int
    idle_connections: int
    idle_timeout: float
    recent: float


class ConnectionPool:
    """Connections that *dial* opens; it adds each to the set that it gets.

    ``streams`` are the open connections, in use and idle. Without *keep_alive* there
    are no idle ones. *clock* returns monotonic seconds.
    """

    def __init__(
        self,
        dial: Callable[[set[Stream]], Awaitable[Stream]],
        limits: PoolLimits,
        *,
        keep_alive: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.streams: set[Stream] = set()
        self._dial = dial
        self._limits = limits
        self._keep_alive = keep_alive
        self._retired = not keep_alive
        self._clock = clock
        self._idle: list[Stream] = []  # the longest-idle connection first
        self._connecting = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    def acquire(self, *, retryable: bool) -> Stream | None:
        """Return the last used idle connection, if the request may use it."""
        idle, limits = self._idle, self._limits
        while idle:
            stream = idle[-1]
            if not stream.is_reusable:
                idle.pop().abort()
                continue
            max_age = limits.idle_timeout if retryable else limits.recent
            if self._clock() - stream.idle_since < max_age:
                return idle.pop()
            break
        return None

    def release(self, stream: Stream) -> None:
        """Return *stream* to the pool; close it if there are enough idle ones."""
        if self._retired or len(self._idle) >= self._limits.idle_connections:
            stream.abort()
            return
        stream.finish_read()
        stream.idle_since = self._clock()
        self._idle.append(stream)
        if self._sweeper is None:
            self._sweep_in(self._limits.idle_timeout)
        self._wake_waiter()

    async def connect(self, *, retryable: bool | None = None) -> Stream:
        """Return a new connection; wait while the pool is full. Raises OSError.

        After a wait it may be an idle connection, as from `acquire`, with ``idle_since``
        set; never if *retryable* is None.
        """
        reused = await self._wait_for_slot(retryable)
        if reused is not None:
            return reused
        self._connecting += 1
        try:
            stream = await self._dial(self.streams)
        except BaseException:
            self._wake_waiter()
            raise
        finally:
            self._connecting -= 1
        stream.on_closed = self._wake_waiter
        return stream

    @property
    def is_full(self) -> bool:
        """Whether the connection limit is reached."""
        limit = self._limits.connections
        return bool(limit) and len(self.streams) + self._connecting >= limit

    def retire(self) -> None:
        """Close the idle connections, and others when they are released."""
        self._retired = True
        for stream in self._idle:
            stream.abort()
        self._clear()

    def resume(self) -> None:
        """Undo `retire`."""
        self._retired = not self._keep_alive

    def close(self) -> None:
        """Stop the timer; the caller closes ``streams``."""
        self._clear()

    async def _wait_for_slot(self, retryable: bool | None) -> Stream | None:
        """Wait until a connection may be made; return an idle one if usable."""
        while self.is_full:
            if retryable is not None:
                stream = self.acquire(retryable=retryable)
                if stream is not None:
                    return stream
            if self._idle:  # none of them is usable for the request
                self._idle.pop(0).abort()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_waiter()  # pass the free slot on to the next waiter
                raise
        return None

    def _wake_waiter(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _sweep(self) -> None:
        """Close the connections that have reached the idle timeout."""
        now, timeout = self._clock(), self._limits.idle_timeout
        while self._idle and now - self._idle[0].idle_since >= timeout:
            self._idle.pop(0).abort()
        self._sweeper = None
        if self._idle:
            self._sweep_in(timeout - (now - self._idle[0].idle_since))

    def _sweep_in(self, delay: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _clear(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
