"""One worker: serve clients, apply reloads, shut down without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Sequence
from typing import Literal

from authproxy_core import AuthProxy, drive
from authproxy_core.access.attempts import AttemptMemory
from authproxy_core.messages import Event

from ..contract import MODULE
from ..logs.formatter import Level
from ..logs.logger import LogOnce, Logs, create_writers
from ..loop.clock import Clock
from ..metrics.metrics import Metrics
from ..net.idp_client import HttpClient
from ..net.listeners import ListeningSocket
from ..net.proxy_protocol import TrustedSources
from ..net.tls import client_context, renew_context
from ..reload.reload_settings import PreparedReload, listener_contexts
from ..serve.performer import Performer
from ..server_settings import ServerSettings, check_server
from ..stores.create import create
from ..stores.monitor import StoreMonitor
from ..upstream.forwarder import Forwarder
from .acceptor import Acceptor
from .metrics_listener import ScrapeContext
from .traces import create_traces

TIMEOUT_CHECK_INTERVAL = 1.0  # seconds between two checks of all timeouts
# At shutdown: seconds in which an idle connection may still send a request.
KEEP_ALIVE_GRACE = 1.0
ACCEPT_DRAIN_TIME = 0.25  # seconds for pending TCP handshakes at shutdown
# Seconds for a provider to get ready: before the commit of a reload, and before a worker
# accepts connections that ready workers can accept.
WARM_UP_TIMEOUT = 3.0
RELEASE_DELAY = 2.0  # seconds after a reload, for requests in flight


class Worker:
    """Serves the listening sockets on one event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[ListeningSocket],
        metrics: Metrics | None = None,
        attempts: AttemptMemory | None = None,
        log_once: LogOnce | None = None,
    ) -> None:
        check_server(settings)
        self._log_once = log_once
        self._settings = settings
        self._sockets = sockets
        self._stopping = asyncio.Event()
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
        self._traces = create_traces(settings)
        self._proxy = AuthProxy(
            settings.core, on_event=self._on_event, attempts=attempts
        )
        self._proxy.other_workers_ready = lambda: all(self._metrics.ready_peers())
        self._store = StoreMonitor(store, self._proxy, self._logs, self._publish)
        self._forwarder = Forwarder(settings.forward)
        self._context = self._traces.create_context(
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
        self._clients = Acceptor(
            self._context, [one for one in sockets if not one.metrics]
        )
        self._clients.handshakes.proxy_sources = _proxy_sources(settings)
        self._acceptors = (
            self._clients,
            Acceptor(self._metrics_context, [one for one in sockets if one.metrics]),
        )

    def _on_event(self, event: Event) -> None:
        self._metrics.count_event(event)
        self._logs.event(event)
        self._traces.note(event)
        if event.kind == "provider_ready":
            self._publish()

    def _publish(self) -> None:
        """Update the metrics that are not counted where they arise."""
        self._metrics.set_ready(self._proxy.ready)
        self._metrics.count_cache_misses(self._proxy.session_cache_misses)
        self._traces.publish(self._metrics, self._logs)

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
            listener.context = renew_context(listener.context, context)
        self._clock.local_time = settings.logs.local_time
        self._client.reconfigure(settings.client, prepared.client_context)
        self._logs.replace_with(prepared.logs)
        self._proxy = prepared.application
        self._context.application = self._traces.application(self._proxy)
        self._context.limits = settings.limits
        self._context.request_id_header = settings.request_id_header.lower().encode()
        self._context.drop_caches()
        self._metrics_context.apply_limits(settings.limits)
        self._clients.handshakes.proxy_sources = _proxy_sources(settings)
        self._store.attach(self._proxy)
        self._publish()
        self._start_warm_up()
        # The replaced application has reference cycles, and a cache of up to
        # `session_cache_size`. Other full collections are hours apart.
        asyncio.get_running_loop().call_later(RELEASE_DELAY, gc.collect)

    def count_reload(self, outcome: Literal["success", "failure"]) -> None:
        """Count a reload in the metrics."""
        self._metrics.count_reload(outcome)

    def log(self, text: str, *, level: Level = "error") -> None:
        """Log a line."""
        self._logs.write(level, MODULE, text)

    def _new_logs(self, settings: ServerSettings) -> Logs:
        return Logs(
            settings.logs,
            settings.core,
            self._clock,
            self._output,
            self._errors,
            self._log_once,
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
        for acceptor in self._acceptors:
            acceptor.start()
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
        await self._traces.close()
        self._publish()
        self._output.close()
        self._errors.close()

    async def _stop_listening(self) -> None:
        """Refuse new connections, accept those in the backlog, close the sockets."""
        self._context.stopping = self._metrics_context.stopping = True
        self._metrics.set_accepting(False)
        for acceptor in self._acceptors:
            acceptor.refuse()
        await asyncio.sleep(ACCEPT_DRAIN_TIME)
        for acceptor in self._acceptors:
            acceptor.close()

    async def _check_timeouts(self) -> None:
        clock = self._context.clock
        while True:
            await asyncio.sleep(
                min(TIMEOUT_CHECK_INTERVAL, clock.seconds_to_next_tick() + 0.001)
            )
            clock.tick()
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
            for acceptor in self._acceptors:
                acceptor.check()

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
        self._clients.handshakes.close()
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
