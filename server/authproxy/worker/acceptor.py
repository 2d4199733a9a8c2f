"""Accept connections, balance them over the workers, make room at the limit.

All workers share the listening sockets. Each accepts one connection per iteration of
its event loop, so idle workers accept more than busy ones.
"""

from __future__ import annotations

import asyncio
import heapq
import socket
from collections.abc import Sequence

from ..contract import MODULE
from ..net.descriptors import max_client_descriptors
from ..net.listeners import ListeningSocket, refuse_connections
from ..net.proxy_protocol import HeaderError
from ..serve.worker_context import WorkerContext
from .handshakes import Handshakes

# Seconds in which a less loaded worker may accept a connection first.
ACCEPT_DEFERRAL = 0.002
IMBALANCE_DIVISOR = 8  # a worker may exceed the least loaded one by 1 + 1/8
SHORT_LIVED_RATE = 32  # connections closed in 1-2 s above which none is deferred
ACCEPT_RETRY_DELAY = 0.1  # seconds after a failed accept (no file descriptors)
MAX_EVICTIONS = 64  # connections closed at once, because the search takes time


class Acceptor:
    """Accepts the connections of *context* from *listeners*.

    At the limit of connections the longest-idle ones are closed, so idle clients cannot
    block others, such as the health check.
    """

    def __init__(
        self, context: WorkerContext, listeners: Sequence[ListeningSocket]
    ) -> None:
        self.handshakes = Handshakes(context)
        self._context = context
        self._listeners = listeners
        self._max_descriptors = max_client_descriptors()
        self._accepting: set[ListeningSocket] = set()
        self._closed = [0, 0]  # connections closed in the previous second, and in this
        self._attaching = 0  # accepted connections before the end of their handshake
        context.on_connection_lost = self._on_connection_lost

    def start(self) -> None:
        """Accept connections."""
        for listener in self._listeners:
            self._accept_from(listener)

    def check(self) -> None:
        """Make room if an earlier attempt found no idle connection; once per second."""
        self._closed = [self._closed[1], 0]
        if self._is_full() and not self._accepting:
            self._evict()

    def refuse(self) -> None:
        """Refuse new connections; those in the backlog are still accepted."""
        for listener in self._listeners:
            refuse_connections(listener)

    def close(self) -> None:
        """Accept the connections in the backlog, and close the sockets.

        A connection that entered the backlog just before the close would lose its
        request, so `refuse` is called some time before. Once the last worker has closed
        the socket, the kernel refuses connections.
        """
        self._stop_accepting()
        for listener in self._listeners:
            while self._accept_one(listener):
                pass
            listener.socket.close()

    def _accept_from(self, listener: ListeningSocket) -> None:
        self._accepting.add(listener)
        asyncio.get_running_loop().add_reader(
            listener.socket.fileno(), self._on_acceptable, listener
        )

    def _stop_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._accepting:
            loop.remove_reader(listener.socket.fileno())
        self._accepting.clear()

    def _on_acceptable(self, listener: ListeningSocket) -> None:
        """Accept a connection, or defer the accept for a less loaded worker.

        Otherwise the worker that happens to be awake would accept a whole burst of
        long-lived connections. Short-lived connections need no balancing.
        """
        count = self._count
        surplus = count - self._context.metrics.fewest_connections()
        if (
            surplus <= 1 + count // IMBALANCE_DIVISOR
            or sum(self._closed) > SHORT_LIVED_RATE
        ):
            self._accept_one(listener)
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.socket.fileno())
        loop.call_later(ACCEPT_DEFERRAL, self._accept_deferred, listener)

    def _accept_deferred(self, listener: ListeningSocket) -> None:
        """Accept a deferred connection, unless another worker has accepted it."""
        if listener in self._accepting:
            self._accept_one(listener)
        if listener in self._accepting:
            self._accept_from(listener)

    def _accept_one(self, listener: ListeningSocket) -> bool:
        """Accept a connection; False without a pending one, or without room for it."""
        if self._is_full():
            self._stop_accepting()  # until `_resume_accepting`
            self._evict()
            return False
        try:
            accepted, _ = listener.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker has accepted it
        except OSError as error:
            delay = ACCEPT_RETRY_DELAY
            self._context.logs.error(
                MODULE, f"cannot accept connections: {error}; retry in {delay} s"
            )
            self._stop_accepting()
            self._evict()
            asyncio.get_running_loop().call_later(delay, self._resume_accepting)
            return False
        if len(self.handshakes) >= self._max_handshakes:
            self.handshakes.evict_oldest()
        self._attaching += 1
        self._context.spawn(self._attach(accepted, listener))
        return True

    async def _attach(self, accepted: socket.socket, listener: ListeningSocket) -> None:
        try:
            await self.handshakes.attach(accepted, listener)
        except HeaderError as error:
            self._context.logs.info(MODULE, f"connection refused: {error}")
            accepted.close()
        except (OSError, TimeoutError):
            accepted.close()  # TLS handshake errors are client errors: not logged
        except asyncio.CancelledError:
            accepted.close()
            raise
        finally:
            self._attaching -= 1
            self._resume_accepting()

    @property
    def _count(self) -> int:
        return len(self._context.connections) + self._attaching

    @property
    def _max_handshakes(self) -> int:
        """The limit of unfinished handshakes, at most half of all connections."""
        limits = self._context.limits
        return min(limits.handshakes, (self._max_connections + 1) // 2)

    @property
    def _max_connections(self) -> int:
        return min(self._context.limits.connections, self._max_descriptors)

    def _is_full(self) -> bool:
        return self._count >= self._max_connections

    def _evict(self) -> None:
        """Close the longest-idle connections, or the oldest handshake."""
        self._context.writes.flush()
        evictable = [one for one in self._context.connections if one.evictable]
        if not evictable:
            self.handshakes.evict_oldest()
            return
        count = min(MAX_EVICTIONS, len(evictable) // 8 + 1)
        for connection in heapq.nsmallest(
            count, evictable, key=lambda one: one.eviction_order
        ):
            connection.transport.abort()

    def _on_connection_lost(self) -> None:
        self._closed[1] += 1
        self._resume_accepting()

    def _resume_accepting(self) -> None:
        """Accept connections again if there is room."""
        if not (self._accepting or self._context.stopping or self._is_full()):
            self.start()
