"""The HTTP/2 connections to one upstream, shared by its requests.

A request waits for a stream, not for a connection: of one that is being dialed, or of one
that is in use. As many connections are dialed at once as the waiting requests need. Each
request has its own time limit, and fails with the first dial that began after it came,
unless another one is still under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from itertools import islice
from time import monotonic

from ..net.dial import Stream
from ..server_settings import ForwardSettings
from .h2_upstream_connection import MAX_STREAMS, UpstreamH2Connection

MAX_CONNECTIONS = 16  # to one upstream; as many again may finish their last streams


class H2Pool:
    """Connections that *dial* opens; it raises OSError.

    Without *keep_alive* each is for one request, and only *dial* limits their number.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Stream]],
        settings: ForwardSettings,
        *,
        keep_alive: bool = True,
    ) -> None:
        self._keep_alive = keep_alive
        self._dial = dial
        self._settings = settings
        self._connections: list[UpstreamH2Connection] = []
        self._dials: set[asyncio.Task[None]] = set()
        self._waiters: dict[asyncio.Future[None], None] = {}
        # Of the last dialed connection.
        self._max_streams = MAX_STREAMS if keep_alive else 1
        # When the last failed dial began (monotonic seconds), and its error.
        self._failure: tuple[float, Exception] | None = None

    @property
    def is_full(self) -> bool:
        """Return whether no further connection may be dialed."""
        usable = sum(not connection.draining for connection in self._connections)
        return usable + len(self._dials) >= MAX_CONNECTIONS

    async def close(self) -> None:
        """Close all connections."""
        for dial in self._dials:
            dial.cancel()
        if self._dials:
            await asyncio.wait(self._dials)
        for connection in self._connections:
            await connection.close()

    def retire(self) -> None:
        """Close each connection when its last stream ends."""
        for connection in self._connections:
            connection.retire()

    async def acquire(self) -> UpstreamH2Connection:
        """Return a connection on which a stream can be opened at once.

        The caller limits the time. Raises OSError if no connection can be made.
        """
        arrived = monotonic()
        while True:
            for connection in self._connections:
                if connection.free_streams:
                    return connection
            if self._failure is not None and not self._dials:
                began, error = self._failure
                if began >= arrived:
                    raise copy(error)  # tracebacks would accumulate
            await self._wait()

    async def _wait(self) -> None:
        """Wait until there may be a free stream; dial if the waiters need it."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            expected = len(self._dials) * self._max_streams
            if len(self._waiters) > expected and not self.is_full:
                dial = asyncio.create_task(self._add_connection(monotonic()))
                self._dials.add(dial)
                dial.add_done_callback(self._dial_done)
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(1)  # the next one may have the free stream
            raise
        finally:
            del self._waiters[waiter]

    async def _add_connection(self, began: float) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                stream = await self._dial()
                connection = UpstreamH2Connection(
                    stream,
                    self._settings,
                    self._on_change,
                    keep_alive=self._keep_alive,
                )
                try:
                    await connection.wait_ready()
                except BaseException:
                    connection.abort()
                    raise
        except Exception as error:  # noqa: BLE001 - the waiters raise it
            self._failure = began, copy(error)  # without its frames
            return
        self._failure = None
        if self._keep_alive:
            self._max_streams = max(connection.max_streams, 1)
        self._connections.append(connection)

    def _dial_done(self, dial: asyncio.Task[None]) -> None:
        self._dials.discard(dial)
        self._wake(len(self._waiters))

    def _on_change(self) -> None:
        """Wake waiters for the free streams, or one that may dial."""
        self._connections = [one for one in self._connections if not one.is_finished]
        draining = [one for one in self._connections if one.draining]
        for connection in draining[:-MAX_CONNECTIONS] if self._keep_alive else ():
            connection.abort()
        self._wake(max(sum(one.free_streams for one in self._connections), 1))

    def _wake(self, count: int) -> None:
        waiting = (waiter for waiter in self._waiters if not waiter.done())
        for waiter in islice(waiting, count):
            waiter.set_result(None)
