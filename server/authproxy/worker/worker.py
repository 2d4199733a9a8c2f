"""One worker: accepts connections, serves them, and stops without losing a request.

The listening sockets are shared by all workers. Each accepts one connection per round
of its loop, so that an idle worker gets it rather than a busy one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import uvloop

from authproxy_core import AuthProxy, drive
from authproxy_core.messages import Event

from ..downstream.alpn import AlpnProtocol
from ..downstream.h1_connection import Connection
from ..logs.logger import Logs, log_writers
from ..metrics.metrics import Metrics
from ..net.clock import Clock
from ..net.control_channel import ControlChannel
from ..net.idp_client import HttpClient
from ..net.listeners import ListeningSocket, refuse_connections
from ..net.proxy_protocol import HeaderError, TrustedSources, read_header
from ..net.tls import client_context
from ..reload.reload_settings import ConfigSource, Prepared, contexts
from ..reload.worker_reload import SingleProcessReload, WorkerReload
from ..serve.field_cache import FieldCache
from ..serve.perform import Performer
from ..serve.response_head_cache import ResponseHeadCache
from ..serve.worker_context import WorkerContext
from ..server_settings import ServerSettings
from ..stores.create import create
from ..stores.monitor import StoreMonitor
from ..upstream.forwarder import Forwarder
from .metrics_listener import ScrapeContext

TIMEOUT_CHECK_INTERVAL = 1.0  # seconds between looks at time limits
KEEP_ALIVE_GRACE = (
    1.0  # seconds in which an open connection may still send a request when stopping
)
ACCEPT_DRAIN_TIME = 0.25  # seconds for TCP handshakes under way when stopping
WARM_UP = 3.0  # seconds for a new provider to get ready before a reload switches to it
HANDSHAKE_TIMEOUT = 10.0  # seconds
ACCEPT_DEFERRAL = (
    0.002  # seconds in which a worker with fewer connections may take the next one
)
IMBALANCE_DIVISOR = (
    8  # a worker may have one and an eighth more than who has the fewest
)
SHORT_LIVED_RATE = (
    32  # connections that end within one or two seconds: they are short-lived
)
ACCEPT_PAUSE = 0.1  # seconds after a failed accept (no file descriptors)
MAX_EVICTIONS = (
    64  # connections closed at once to make room: looking for them takes time
)
# Requests die by reference counting: 100 000 checks cause three young collections with
# Python's 700, and none with this. It is for what logins and pages leave behind.
GC_THRESHOLDS = (10_000, 20, 50)


Client: TypeAlias = tuple[str, int] | None  # address and port


class Worker:
    """Serves the listening sockets on one event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[ListeningSocket],
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._accepting: set[ListeningSocket] = set()
        self._lost = [0, 0]  # connections that ended in the second before, and in this
        self._attaching = 0  # accepted, but perhaps still in their TLS handshake
        self._stopping = asyncio.Event()
        self._senders = _senders(settings)
        self._warm_up: asyncio.Task[None] | None = None
        clock = Clock(local_time=settings.logs.local_time)
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._output, self._errors = log_writers(
            settings.logs, self._metrics.lines_lost
        )
        self._logs = self._new_logs(settings)
        self._logs.attach_writers()
        self._client = HttpClient(settings.client, version=settings.core.version)
        store = create(settings.store, settings.core.cookie.name)
        self._performer = Performer(
            self._client, store, self._metrics, settings.limits.body_bytes
        )
        self._proxy = AuthProxy(settings.core, on_event=self._note)
        self._store = StoreMonitor(store, self._proxy, self._logs)
        self._forwarder = Forwarder(settings.forward)
        self._hub = WorkerContext(
            self._proxy,
            self._performer,
            self._forwarder,
            self._logs,
            clock,
            settings.limits,
            settings.request_id_header,
            self._metrics,
        )
        self._scraped = ScrapeContext(self._hub, self._publish)

    def _note(self, event: Event) -> None:
        self._metrics.event(event)
        self._logs.event(event)

    def _publish(self) -> None:
        """Bring the numbers up to date that are not counted where they arise."""
        self._metrics.ready(self._proxy.ready)
        self._metrics.unsealed(self._proxy.sessions_unsealed)

    def stop(self) -> None:
        """Stop gently."""
        self._stopping.set()

    def stop_or_abort(self) -> None:
        """Stop gently; a second time, at once."""
        if self._stopping.is_set():
            self._abort_all()
        self._stopping.set()

    # Reloads.

    @property
    def settings(self) -> ServerSettings:
        """Those in force."""
        return self._settings

    async def prepare(self, settings: ServerSettings) -> Prepared:
        """Make what *settings* need; raises what shows that they can't be used.

        New providers are given a moment to get ready before they are relied on.
        """
        prepared = Prepared(
            settings,
            self._proxy.with_settings(settings.core),
            contexts(settings),
            client_context(settings.client),
            self._new_logs(settings),
        )
        if not prepared.application.ready and self._proxy.ready:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WARM_UP):
                    await drive(prepared.application.warm_up(), self._performer.perform)
        return prepared

    def switch(self, prepared: Prepared) -> None:
        """Use what was prepared, from the next request and handshake on."""
        settings = self._settings = prepared.settings
        for listening, context in zip(self._sockets, prepared.contexts, strict=True):
            listening.context = context
        self._clock.local_time = settings.logs.local_time
        self._client.use(settings.client, prepared.client_context)
        self._logs.replace_with(prepared.logs)
        self._proxy = self._hub.application = prepared.application
        self._hub.limits = settings.limits
        self._hub.request_id_header = settings.request_id_header.lower().encode()
        self._hub.answers, self._hub.fields = ResponseHeadCache(), FieldCache()
        self._senders = _senders(settings)
        self._store.attach(self._proxy)
        self._start_warm_up()

    def count_reload(self, outcome: Literal["success", "failure"]) -> None:
        """Count a reload."""
        self._metrics.reload(outcome)

    def notice(self, text: str, *, good: bool = False) -> None:
        """Log a line; *good* if nobody needs to look at it."""
        log = self._logs.info if good else self._logs.error
        log("server", text)

    def _new_logs(self, settings: ServerSettings) -> Logs:
        return Logs(
            settings.logs, settings.core, self._clock, self._output, self._errors
        )

    def _start_warm_up(self) -> None:
        if self._warm_up is not None:
            self._warm_up.cancel()
        self._warm_up = self._hub.spawn(
            drive(self._proxy.warm_up(), self._performer.perform)
        )

    # Its life.

    def abort(self) -> None:
        """Stop at once."""
        self._stopping.set()
        self._abort_all()

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, then finish what is in flight."""
        loop = asyncio.get_running_loop()
        sweeper = loop.create_task(self._sweep())
        await self._store.start()
        self._start_warm_up()
        for listening in self._sockets:
            self._accept_from(listening)
        self._hub.on_connection_lost = self._on_lost
        started()
        await self._stopping.wait()
        if self._warm_up is not None:
            self._warm_up.cancel()
        await self._stop_listening()
        await self._drain()
        self._scraped.stop()
        sweeper.cancel()
        await self._forwarder.close()
        await self._client.close()
        await self._store.close()
        self._output.close()
        self._errors.close()

    # Accepting.

    def _accept_from(self, listening: ListeningSocket) -> None:
        self._accepting.add(listening)
        asyncio.get_running_loop().add_reader(
            listening.socket.fileno(), self._on_acceptable, listening
        )

    def _stop_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        for listening in self._accepting:
            loop.remove_reader(listening.socket.fileno())
        self._accepting.clear()

    async def _stop_listening(self) -> None:
        """Let nobody new in, take those who are connected, close the sockets.

        When the last worker has closed them, who connects is refused at once instead
        of waiting for nobody. Until then nobody may get into the queue of a socket that
        is about to be closed: a request could be sent, and lost, there.
        """
        self._hub.stopping = True
        for listening in self._sockets:
            refuse_connections(listening)
        await asyncio.sleep(ACCEPT_DRAIN_TIME)
        self._stop_accepting()
        for listening in self._sockets:
            while self._accept_one(listening):
                pass
            listening.socket.close()

    def _on_acceptable(self, listening: ListeningSocket) -> None:
        """A connection waits; a worker with fewer of them may have it first.

        Else who is awake takes all that come at once, and keeps them. Where connections
        last for a request only, they are spread as it is.
        """
        count = len(self._hub.connections) + self._attaching
        surplus = count - self._metrics.fewest_connections()
        if (
            surplus <= 1 + count // IMBALANCE_DIVISOR
            or sum(self._lost) > SHORT_LIVED_RATE
        ):
            self._accept_one(listening)
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening.socket.fileno())
        loop.call_later(ACCEPT_DEFERRAL, self._accept_deferred, listening)

    def _accept_deferred(self, listening: ListeningSocket) -> None:
        """Accept what nobody else has taken meanwhile."""
        if listening in self._accepting:
            self._accept_one(listening)
        if listening in self._accepting:
            self._accept_from(listening)

    def _accept_one(self, listening: ListeningSocket) -> bool:
        """Accept a connection; False when there was none, or no room for it."""
        if listening.metrics:
            self._scraped.make_room()
        elif self._is_full():
            self._stop_accepting()  # `_go_on` follows when one has ended
            self._evict()
            return False
        try:
            accepted, _ = listening.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker was faster
        except OSError as error:
            self._logs.error("server", f"can't accept a connection: {error}")
            self._stop_accepting()
            self._evict()
            asyncio.get_running_loop().call_later(ACCEPT_PAUSE, self._resume_accepting)
            return False
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._attaching += 1
        self._hub.spawn(self._attach(accepted, listening))
        return True

    async def _attach(
        self, accepted: socket.socket, listening: ListeningSocket
    ) -> None:
        hub = self._scraped if listening.metrics else self._hub
        options: dict[str, Any] = {}
        protocol: Callable[[WorkerContext, Client], asyncio.Protocol] = Connection
        if listening.context is not None:
            protocol = AlpnProtocol
            options = {
                "ssl": listening.context,
                "ssl_handshake_timeout": HANDSHAKE_TIMEOUT,
            }
        try:
            client = await self._proxy_protocol_client(accepted, listening)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol(hub, client), accepted, **options
            )
        except HeaderError as error:
            self._logs.info("server", f"refused a connection: {error}")
            accepted.close()
        except (OSError, TimeoutError):
            accepted.close()  # a failed handshake is the client's affair
        finally:
            self._attaching -= 1
            self._resume_accepting()

    async def _proxy_protocol_client(
        self, accepted: socket.socket, listening: ListeningSocket
    ) -> Client:
        """The client that a load balancer announces, None where none has to."""
        if listening.metrics or self._senders is None:
            return None
        if not self._senders.include(accepted):
            return None
        return (await read_header(accepted)).client

    def _is_full(self) -> bool:
        count = len(self._hub.connections) + self._attaching
        return count >= self._settings.limits.connections

    def _evict(self) -> None:
        """Close those that have waited longest without a request being answered.

        Many silent clients thus keep nobody out, not even the health check.
        """
        self._hub.outbox.flush()
        evictable = [one for one in self._hub.connections if one.evictable]
        count = min(MAX_EVICTIONS, len(evictable) // 8 + 1)
        for one in heapq.nsmallest(count, evictable, key=lambda one: one.waiting):
            one.transport.abort()

    def _on_lost(self) -> None:
        self._lost[1] += 1
        self._resume_accepting()

    def _resume_accepting(self) -> None:
        """Accept again, if there is room by now."""
        if not (self._accepting or self._stopping.is_set() or self._is_full()):
            for listening in self._sockets:
                self._accept_from(listening)

    # Time limits, and stopping.

    async def _sweep(self) -> None:
        clock = self._hub.clock
        while True:
            await asyncio.sleep(
                min(TIMEOUT_CHECK_INTERVAL, clock.until_next_second() + 0.001)
            )
            clock.tick()
            self._lost = [self._lost[1], 0]
            self._publish()
            for connection in [*self._hub.connections, *self._scraped.connections]:
                try:
                    connection.check(clock.now)
                except Exception as error:  # noqa: BLE001 - the sweep must live on
                    self._logs.exception("server", "a time limit failed", error)
                    connection.transport.abort()
            if self._is_full() and not self._accepting:
                self._evict()  # nobody may have been idle before

    async def _drain(self) -> None:
        """Let requests in flight finish, within ``drain_timeout``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEEP_ALIVE_GRACE):
                await self._until_empty()
        self._hub.outbox.flush()
        for connection in list(self._hub.connections):
            if connection.idle:
                connection.transport.close()
        try:
            async with asyncio.timeout(self._settings.limits.drain_timeout):
                await self._until_empty()
        except TimeoutError:
            self._logs.error("server", "requests were cut off when stopping")
            self._abort_all()

    async def _until_empty(self) -> None:
        while self._hub.connections or self._hub.tasks:
            if self._hub.tasks:
                await asyncio.wait(self._hub.tasks, timeout=0.05)
            else:
                await asyncio.sleep(0.02)

    def _abort_all(self) -> None:
        self._hub.outbox.flush()
        for connection in list(self._hub.connections):
            connection.transport.abort()
        for task in self._hub.tasks:
            task.cancel()


def serve(
    settings: ServerSettings,
    sockets: Sequence[ListeningSocket],
    *,
    parent: int | None = None,
    channel: ControlChannel | None = None,
    source: ConfigSource | None = None,
    started: Callable[[], None] = lambda: None,
    metrics: Metrics | None = None,
) -> None:
    """Run a worker in this process until SIGTERM or SIGINT.

    *parent* is a file descriptor that becomes readable when the supervisor is gone, and
    *channel* leads to it. With a supervisor, SIGINT is its affair (a terminal sends it
    to all) and so is SIGHUP, SIGTERM may come twice (from it and from a service
    manager), and SIGQUIT stops at once. Without, *source* is the configuration
    for reloads.
    """
    if metrics is not None:
        metrics.worker_started()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)

    async def main() -> None:
        worker = Worker(settings, sockets, metrics)
        loop = asyncio.get_running_loop()
        reloads: WorkerReload | SingleProcessReload
        if parent is None or channel is None:
            reloads = SingleProcessReload(worker, source)
            loop.add_signal_handler(signal.SIGHUP, reloads.ask)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, worker.stop_or_abort)
        else:
            reloads = WorkerReload(worker, channel)
            loop.add_signal_handler(signal.SIGTERM, worker.stop)
            for number in (signal.SIGINT, signal.SIGHUP):
                loop.add_signal_handler(number, lambda: None)
            loop.add_signal_handler(signal.SIGQUIT, worker.abort)
            loop.add_reader(parent, _orphaned, loop, parent, worker)

        def up() -> None:
            reloads.start()
            started()

        await worker.run(up)
        reloads.stop()

    uvloop.run(main())


def _senders(settings: ServerSettings) -> TrustedSources | None:
    """Who speaks the PROXY protocol; None: nobody."""
    listed = settings.proxy_protocol_from
    return TrustedSources(listed) if listed else None


def _orphaned(loop: asyncio.AbstractEventLoop, parent: int, worker: Worker) -> None:
    loop.remove_reader(parent)
    worker.stop()
