"""Connection pool of one upstream.

An upstream may close an idle connection at any moment, even while a request is on its
way. A connection that has been idle for long is therefore only for retryable requests;
one that was in use a moment ago is for all requests.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from authproxy_core.messages import Upstream

from ..net.dial import Stream, describe_error, dial, dial_unix
from ..net.origin import Origin
from ..net.timeout_queue import TimeoutQueue
from ..server_settings import ForwardSettings


class ConnectionPool:
    """Connections to *upstream*, with TLS if there is a *context*.

    ``streams`` are the connections in use and idle, ``tunnels`` those that have been
    upgraded, ``response_timeouts`` the timeouts of the fast path.
    """

    def __init__(
        self,
        upstream: Upstream,
        context: ssl.SSLContext | None,
        settings: ForwardSettings,
    ) -> None:
        self.upstream = upstream
        self.streams: set[Stream] = set()
        self.tunnels: set[Stream] = set()
        self.response_timeouts = TimeoutQueue(upstream.timeout)
        self._context = context
        self._settings = settings
        self._idle: list[Stream] = []  # the longest-idle connection first
        self._connecting = 0
        self._retired = not upstream.keep_alive
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    def acquire(self, *, retryable: bool) -> Stream | None:
        """Return the last used idle connection, if the request may use it."""
        while self._idle:
            stream = self._idle[-1]
            if not stream.is_reusable:
                self._idle.pop().abort()
            elif retryable or _now() - stream.idle_since < self._settings.recent:
                return self._idle.pop()
            else:
                break
        return None

    def release(self, stream: Stream) -> None:
        """Return *stream* to the pool; close it if there are enough idle ones."""
        if self._retired or len(self._idle) >= self._settings.idle_connections:
            stream.abort()
            return
        stream.idle_since = _now()
        self._idle.append(stream)
        if self._sweeper is None:
            self._sweep_at(stream.idle_since + self._settings.idle_timeout)
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
            stream = await self._dial()
        except BaseException:
            self._wake_waiter()
            raise
        finally:
            self._connecting -= 1
        stream.on_closed = self._wake_waiter
        return stream

    async def _dial(self) -> Stream:
        upstream = self.upstream
        if upstream.unix:
            return await dial_unix(self.streams, upstream.unix)
        return await dial(
            self.streams,
            upstream.host,
            upstream.port,
            self._context,
            name=upstream.server_name,
        )

    @property
    def is_full(self) -> bool:
        """Return whether the connection limit is reached."""
        limit = self._settings.connections
        return bool(limit) and len(self.streams) + self._connecting >= limit

    @property
    def has_connections(self) -> bool:
        """Return whether there is any connection, including tunnels."""
        return bool(self.streams or self.tunnels)

    def detach(self, stream: Stream) -> None:
        """Move *stream* to the tunnels, which don't count for the connection limit.

        There may be as many tunnels as clients.
        """
        stream.move(self.tunnels)
        self._wake_waiter()

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
        oldest = _now() - self._settings.idle_timeout
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).abort()
        self._sweeper = None
        if self._idle:
            self._sweep_at(self._idle[0].idle_since + self._settings.idle_timeout)

    def _sweep_at(self, when: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_at(when, self._sweep)

    def describe_failure(self, error: OSError) -> str:
        """Return the cause of a failed connect, for the log."""
        upstream = self.upstream
        origin = Origin(upstream.scheme, upstream.host, upstream.port)
        return describe_error(error, upstream.unix or origin.host_port)

    def retire(self) -> None:
        """Close the idle connections, and others when they are released."""
        self._retired = True
        for stream in self._idle:
            stream.abort()
        self._clear()

    def resume(self) -> None:
        """Undo `retire`."""
        self._retired = not self.upstream.keep_alive

    def close(self) -> None:
        """Stop all timers; the caller closes ``streams`` and ``tunnels``."""
        self._clear()
        self.response_timeouts.clear()

    def _clear(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()


def _now() -> float:
    return asyncio.get_running_loop().time()
