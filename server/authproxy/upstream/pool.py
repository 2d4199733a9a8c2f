"""The connections to one upstream: new ones, and unused ones that are kept.

An upstream may close an unused connection at any moment, also while a request is on its
way to it. Only what may be sent twice is worth that risk on a connection that has
waited; one that was in use a moment ago is good for every request.
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
    """Connections to *upstream*; *context* is for TLS, None without."""

    def __init__(
        self,
        upstream: Upstream,
        context: ssl.SSLContext | None,
        settings: ForwardSettings,
    ) -> None:
        self.upstream = upstream
        self.streams: set[Stream] = set()
        self.tunnels: set[Stream] = set()
        self.deadlines = TimeoutQueue(upstream.timeout)  # for answers
        self._context = context
        self._settings = settings
        self._idle: list[Stream] = []
        self._connecting = 0
        self._retired = not upstream.keep_alive
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    def take(self, *, repeatable: bool) -> Stream | None:
        """The one used last that is still alive, if the request may take it."""
        while self._idle:
            stream = self._idle[-1]
            if not stream.is_reusable:
                self._idle.pop().abort()
            elif repeatable or _now() - stream.idle_since < self._settings.recent:
                return self._idle.pop()
            else:
                break
        return None

    def put(self, stream: Stream) -> None:
        """Keep *stream*, or close it when there are enough."""
        if self._retired or len(self._idle) >= self._settings.idle_connections:
            stream.abort()
            return
        stream.idle_since = _now()
        self._idle.append(stream)
        if self._sweeper is None:
            self._sweep_at(stream.idle_since + self._settings.idle_timeout)
        self._wake()

    async def connect(self, *, repeatable: bool | None = None) -> Stream:
        """A new connection; waits when there are too many. Raises OSError.

        Who waited may get one that has just become unused, as `take` gives it (its
        ``idle_since`` is set); with None only a new one.
        """
        reused = await self._room(repeatable)
        if reused is not None:
            return reused
        self._connecting += 1
        try:
            stream = await self._dial()
        except BaseException:
            self._wake()
            raise
        finally:
            self._connecting -= 1
        stream.on_closed = self._wake
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
        """Whether there are as many connections as may be."""
        limit = self._settings.connections
        return bool(limit) and len(self.streams) + self._connecting >= limit

    @property
    def has_connections(self) -> bool:
        """Whether it has any connection, a tunnel's included."""
        return bool(self.streams or self.tunnels)

    def detach(self, stream: Stream) -> None:
        """*stream* belongs to a tunnel now, and takes no room among the others.

        There may be as many of these as there may be clients.
        """
        stream.move(self.tunnels)
        self._wake()

    async def _room(self, repeatable: bool | None) -> Stream | None:
        while self.is_full:
            if repeatable is not None:
                stream = self.take(repeatable=repeatable)
                if stream is not None:
                    return stream
            if self._idle:  # none of those that the request could have taken
                self._idle.pop(0).abort()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # it was our turn: let the next one have it
                raise
        return None

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _sweep(self) -> None:
        """Close those that nobody used for long; look again while there are others."""
        oldest = _now() - self._settings.idle_timeout
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).abort()
        self._sweeper = None
        if self._idle:
            self._sweep_at(self._idle[0].idle_since + self._settings.idle_timeout)

    def _sweep_at(self, when: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_at(when, self._sweep)

    def failure(self, error: OSError) -> str:
        """What went wrong in connecting, for the log."""
        upstream = self.upstream
        origin = Origin(upstream.scheme, upstream.host, upstream.port)
        return describe_error(error, upstream.unix or origin.where)

    def retire(self) -> None:
        """Keep no connection any more."""
        self._retired = True
        for stream in self._idle:
            stream.abort()
        self.clear()

    def resume(self) -> None:
        """Keep connections again."""
        self._retired = not self.upstream.keep_alive

    def clear(self) -> None:
        """Forget the unused ones; whoever closes the streams does the rest."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()

    def close(self) -> None:
        """The end: no time limit matters any more."""
        self.clear()
        self.deadlines.clear()


def _now() -> float:
    return asyncio.get_running_loop().time()
