"""One worker: accept connections, serve them, shut down without losing a request.

All workers share the listening sockets. Each accepts one connection per iteration of
its event loop, so idle workers accept more than busy ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import socket
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from authproxy_core import AuthProxy, drive
from authproxy_core.access.attempts import AttemptMemory
from authproxy_core.messages import Event

from ..contract import MODULE
from ..downstream.alpn import AlpnProtocol
from ..downstream.h1_connection import Connection
from ..logs.logger import Logs, create_writers
from ..metrics.metrics import Metrics
from ..net.clock import Clock
from ..net.idp_client import HttpClient
from ..net.listeners import ListeningSocket, refuse_connections
from ..net.proxy_protocol import HeaderError, TrustedSources, read_header
from ..net.tls import client_context
from ..reload.reload_settings import PreparedReload, listener_contexts
from ..serve.performer import Performer
from ..serve.worker_context import WorkerContext
from ..server_settings import ServerSettings
from ..stores.create import create
from ..stores.monitor import StoreMonitor
from ..upstream.forwarder import Forwarder
from .metrics_listener import ScrapeContext

TIMEOUT_CHECK_INTERVAL = 1.0  # seconds between two checks of all timeouts
# At shutdown: seconds in which an idle connection may still send a request.
KEEP_ALIVE_GRACE = 1.0
ACCEPT_DRAIN_TIME = 0.25  # seconds for pending TCP handshakes at shutdown
# Seconds for a provider to get ready: before the commit of a reload, and before a worker
# accepts connections that ready workers can accept.
WARM_UP_TIMEOUT = 3.0
HANDSHAKE_TIMEOUT = 10.0  # seconds
# Seconds in which a less loaded worker may accept a connection first.
ACCEPT_DEFERRAL = 0.002
IMBALANCE_DIVISOR = 8  # a worker may exceed the least loaded one by 1 + 1/8
SHORT_LIVED_RATE = 32  # connections closed in 1-2 s above which none is deferred
ACCEPT_RETRY_DELAY = 0.1  # seconds after a failed accept (no file descriptors)
MAX_EVICTIONS = 64  # connections closed at once, because the search takes time

Client: TypeAlias = tuple[str, int] | None  # address and port of the PROXY protocol


class Worker:
    """Serves the listening sockets on one event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[ListeningSocket],
        metrics: Metrics | None = None,
        attempts: AttemptMemory | None = None,
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._accepting: set[ListeningSocket] = set()
        self._closed = [0, 0]  # connections closed in the previous second, and in this
        self._attaching = 0  # accepted connections before the end of their handshake
        self._stopping = asyncio.Event()
        self._proxy_sources = _proxy_sources(settings)
        self._warm_up: asyncio.Task[None] | None = None
        clock = Clock(local_time=settings.logs.local_time)
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._output, self._errors = create_writers(
            settings.logs, self._metrics.count_dropped_lines
        )
        self._logs = self._new_logs(settings)
        self._logs.attach_writers()
        self._client = HttpClient(settings.client, version=settings.core.version)
        store = create(settings.store, settings.core.cookie.name)
        self._performer = Performer(
            self._client, store, self._metrics, settings.limits.body_bytes
        )
        self._proxy = AuthProxy(
            settings.core, on_event=self._on_event, attempts=attempts
        )
        self._proxy.other_workers_ready = lambda: all(self._metrics.ready_peers())
        self._store = StoreMonitor(store, self._proxy, self._logs, self._publish)
        self._forwarder = Forwarder(settings.forward)
        self._context = WorkerContext(
            self._proxy,
            self._performer,
            self._forwarder,
            self._logs,
            clock,
            settings.limits,
            settings.request_id_header,
            self._metrics,
        )
        self._metrics_context = ScrapeContext(self._context, self._publish)
        self._withdrawn_by_peers = self._metrics.peer_events("keys_withdrawn")

    def _on_event(self, event: Event) -> None:
        self._metrics.count_event(event)
        self._logs.event(event)
        if event.kind == "provider_ready":
            self._publish()

    def _publish(self) -> None:
        """Update the metrics that are not counted where they arise."""
        self._metrics.set_ready(self._proxy.ready)
        self._metrics.count_cache_misses(self._proxy.session_cache_misses)

    def stop(self) -> None:
        """Start a graceful shutdown."""
        self._stopping.set()

    def stop_or_abort(self) -> None:
        """Start a graceful shutdown; the second call aborts requests in flight."""
        if self._stopping.is_set():
            self._abort_all()
        self._stopping.set()

    def abort(self) -> None:
        """Shut down and abort requests in flight."""
        self._stopping.set()
        self._abort_all()

    @property
    def settings(self) -> ServerSettings:
        """The settings in effect."""
        return self._settings

    async def prepare(self, settings: ServerSettings) -> PreparedReload:
        """Build what *settings* need; raises if they can't be used.

        If a provider is new, wait up to `WARM_UP_TIMEOUT` until it is ready.
        """
        prepared = PreparedReload(
            settings,
            self._proxy.with_settings(settings.core),
            listener_contexts(settings),
            # Reading the system's CA certificates takes some 20 ms.
            await asyncio.to_thread(client_context, settings.client),
            self._new_logs(settings),
        )
        if not prepared.application.ready and self._proxy.ready:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WARM_UP_TIMEOUT):
                    await drive(prepared.application.warm_up(), self._performer.perform)
        return prepared

    def commit(self, prepared: PreparedReload) -> None:
        """Use the prepared settings from the next request and TLS handshake on."""
        settings = self._settings = prepared.settings
        for listener, context in zip(self._sockets, prepared.contexts, strict=True):
            listener.context = context
        self._clock.local_time = settings.logs.local_time
        self._client.reconfigure(settings.client, prepared.client_context)
        self._logs.replace_with(prepared.logs)
        self._proxy = self._context.application = prepared.application
        self._context.limits = settings.limits
        self._context.request_id_header = settings.request_id_header.lower().encode()
        self._context.drop_caches()
        self._proxy_sources = _proxy_sources(settings)
        self._store.attach(self._proxy)
        self._publish()
        self._start_warm_up()

    def count_reload(self, outcome: Literal["success", "failure"]) -> None:
        """Count a reload in the metrics."""
        self._metrics.count_reload(outcome)

    def log(self, text: str, *, info: bool = False) -> None:
        """Log a line, at error level unless *info*."""
        log = self._logs.info if info else self._logs.error
        log(MODULE, text)

    def _new_logs(self, settings: ServerSettings) -> Logs:
        return Logs(
            settings.logs, settings.core, self._clock, self._output, self._errors
        )

    def _start_warm_up(self) -> asyncio.Task[None]:
        if self._warm_up is not None:
            self._warm_up.cancel()
        self._warm_up = self._context.spawn(
            drive(self._proxy.warm_up(), self._performer.perform)
        )
        return self._warm_up

    async def _wait_for_warm_up(self, warm_up: asyncio.Task[None]) -> None:
        """Leave new connections to ready workers until this one is ready as well.

        So a worker that replaces a crashed one does not make the server unready, unless
        its provider is unavailable for `WARM_UP_TIMEOUT`.
        """
        if any(self._metrics.ready_peers()):
            stop = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait(
                (warm_up, stop),
                timeout=WARM_UP_TIMEOUT,
                return_when=asyncio.FIRST_COMPLETED,
            )
            stop.cancel()

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, then finish the requests in flight.

        *started* is called once the worker accepts connections.
        """
        loop = asyncio.get_running_loop()
        timeouts = loop.create_task(self._check_timeouts())
        await self._store.start()
        await self._wait_for_warm_up(self._start_warm_up())
        self._publish()
        self._metrics.set_accepting(True)
        for listener in self._sockets:
            self._accept_from(listener)
        self._context.on_connection_lost = self._on_connection_lost
        started()
        await self._stopping.wait()
        if self._warm_up is not None:
            self._warm_up.cancel()
        await self._stop_listening()
        await self._drain()
        self._metrics_context.stop()
        timeouts.cancel()
        await self._forwarder.close()
        await self._client.close()
        await self._store.close()
        self._output.close()
        self._errors.close()

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

    async def _stop_listening(self) -> None:
        """Refuse new connections, accept those in the backlog, close the sockets.

        A connection that entered the backlog just before the close would lose its
        request, so the backlog is closed first. Once the last worker has closed the
        socket, the kernel refuses connections.
        """
        self._context.stopping = True
        self._metrics.set_accepting(False)
        for listener in self._sockets:
            refuse_connections(listener)
        await asyncio.sleep(ACCEPT_DRAIN_TIME)
        self._stop_accepting()
        for listener in self._sockets:
            while self._accept_one(listener):
                pass
            listener.socket.close()

    def _on_acceptable(self, listener: ListeningSocket) -> None:
        """Accept a connection, or defer the accept for a less loaded worker.

        Otherwise the worker that happens to be awake would accept a whole burst of
        long-lived connections. Short-lived connections need no balancing.
        """
        count = len(self._context.connections) + self._attaching
        surplus = count - self._metrics.fewest_connections()
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
        if listener.metrics:
            self._metrics_context.make_room()
        elif self._is_full():
            self._stop_accepting()  # until `_resume_accepting`
            self._evict()
            return False
        try:
            accepted, _ = listener.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker has accepted it
        except OSError as error:
            delay = ACCEPT_RETRY_DELAY
            self._logs.error(
                MODULE, f"cannot accept connections: {error}; retry in {delay} s"
            )
            self._stop_accepting()
            self._evict()
            asyncio.get_running_loop().call_later(delay, self._resume_accepting)
            return False
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._attaching += 1
        self._context.spawn(self._attach(accepted, listener))
        return True

    async def _attach(self, accepted: socket.socket, listener: ListeningSocket) -> None:
        context = self._metrics_context if listener.metrics else self._context
        options: dict[str, Any] = {}
        protocol: Callable[[WorkerContext, Client], asyncio.Protocol] = Connection
        if listener.context is not None:
            protocol = AlpnProtocol
            options = {
                "ssl": listener.context,
                "ssl_handshake_timeout": HANDSHAKE_TIMEOUT,
            }
        try:
            client = await self._proxy_protocol_client(accepted, listener)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol(context, client), accepted, **options
            )
        except HeaderError as error:
            self._logs.info(MODULE, f"connection refused: {error}")
            accepted.close()
        except (OSError, TimeoutError):
            accepted.close()  # TLS handshake errors are client errors: not logged
        finally:
            self._attaching -= 1
            self._resume_accepting()

    async def _proxy_protocol_client(
        self, accepted: socket.socket, listener: ListeningSocket
    ) -> Client:
        """Return the client of the PROXY protocol header; None if none is expected."""
        sources = self._proxy_sources
        if listener.metrics or sources is None or not sources.contains(accepted):
            return None
        return (await read_header(accepted)).client

    def _is_full(self) -> bool:
        count = len(self._context.connections) + self._attaching
        return count >= self._settings.limits.connections

    def _evict(self) -> None:
        """Close the longest-idle connections to make room.

        So idle clients at the connection limit cannot block others, such as the health
        check.
        """
        self._context.writes.flush()
        evictable = [one for one in self._context.connections if one.evictable]
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
        if not (self._accepting or self._stopping.is_set() or self._is_full()):
            for listener in self._sockets:
                self._accept_from(listener)

    async def _check_timeouts(self) -> None:
        clock = self._context.clock
        while True:
            await asyncio.sleep(
                min(TIMEOUT_CHECK_INTERVAL, clock.seconds_to_next_tick() + 0.001)
            )
            clock.tick()
            self._closed = [self._closed[1], 0]
            self._publish()
            self._expire_keys_of_peers()
            for connection in [
                *self._context.connections,
                *self._metrics_context.connections,
            ]:
                try:
                    connection.check_timeouts(clock.now)
                except Exception as error:  # noqa: BLE001 - the others need their check
                    self._logs.exception(MODULE, "timeout check failed", error)
                    connection.transport.abort()
            if self._is_full() and not self._accepting:
                self._evict()  # an earlier call may have found none

    def _expire_keys_of_peers(self) -> None:
        """Fetch the keys again if another worker has found that one was withdrawn."""
        withdrawn = self._metrics.peer_events("keys_withdrawn")
        if withdrawn != self._withdrawn_by_peers:
            self._withdrawn_by_peers = withdrawn
            self._proxy.expire_keys()

    async def _drain(self) -> None:
        """Wait for the requests in flight, at most ``drain_timeout`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEEP_ALIVE_GRACE):
                await self._wait_until_empty()
        self._context.writes.flush()
        for connection in list(self._context.connections):
            if connection.idle:
                connection.transport.close()
        try:
            async with asyncio.timeout(self._settings.limits.drain_timeout):
                await self._wait_until_empty()
        except TimeoutError:
            self._logs.error(
                MODULE,
                "drain timeout expired: aborted requests in flight; "
                "raise drain_timeout if needed",
            )
            self._abort_all()

    async def _wait_until_empty(self) -> None:
        while self._context.connections or self._context.tasks:
            if self._context.tasks:
                await asyncio.wait(self._context.tasks, timeout=0.05)
            else:
                await asyncio.sleep(0.02)

    def _abort_all(self) -> None:
        self._context.writes.flush()
        for connection in list(self._context.connections):
            connection.transport.abort()
        for task in self._context.tasks:
            task.cancel()


def _proxy_sources(settings: ServerSettings) -> TrustedSources | None:
    """Return the sources that send PROXY protocol headers; None if none is set."""
    sources = settings.proxy_protocol_from
    return TrustedSources(sources) if sources else None
