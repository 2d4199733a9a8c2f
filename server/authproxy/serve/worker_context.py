"""The shared state of one worker: services, open connections, running tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from authproxy_core.messages import Event

from ..contract import (
    MODULE,
    Application,
    ClientConnection,
    EffectPerformer,
    Forwarder,
)
from ..http2 import hpack_encoder
from ..logs.formatter import RequestRecord
from ..logs.logger import Logs
from ..loop.clock import Clock
from ..loop.fair_queue import FairQueue
from ..loop.write_coalescing import WriteCoalescer
from ..metrics.metrics import Metrics
from ..server_settings import Limits
from .encoding_caches import FieldCache, ResponseHeadCache
from .request_ids import RequestIds


class WorkerContext:
    """Everything that the connections of one worker share.

    A reload may replace ``application``; a request keeps the one that it started with.
    While ``stopping`` is set, every response closes its connection.
    """

    def __init__(
        self,
        application: Application,
        performer: EffectPerformer,
        forwarder: Forwarder | None,
        logs: Logs,
        clock: Clock,
        limits: Limits,
        request_id_header: str,
        metrics: Metrics | None = None,
    ) -> None:
        self.application = application
        self.performer = performer
        self.forwarder = forwarder
        self.logs = logs
        self.clock = clock
        self.limits = limits
        self.request_id_header = request_id_header.lower().encode()
        self.request_ids = RequestIds()
        self.metrics = metrics or Metrics()
        self.connections: set[ClientConnection] = set()
        self.stopping = False
        self.drop_caches()
        self.writes = WriteCoalescer()
        self.turns = FairQueue()
        self.on_connection_lost: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection_count = 0

    def add_connection(self, connection: ClientConnection) -> int:
        """Register a new connection; return its number, counted upwards."""
        self.connections.add(connection)
        self.metrics.connection_opened()
        self._connection_count += 1
        return self._connection_count

    def remove_connection(self, connection: ClientConnection) -> None:
        """Unregister a closed connection."""
        self.connections.discard(connection)
        self.metrics.connection_closed()

    def drop_caches(self) -> None:
        """Drop the encoded responses and fields of a replaced application."""
        self.response_heads = ResponseHeadCache()
        self.field_cache = FieldCache()
        self.hpack_heads = ResponseHeadCache(encode=hpack_encoder.encode_respond)
        self.hpack_fields = FieldCache(hpack_encoder.encode_fields)

    def record_response(self, record: RequestRecord, events: tuple[Event, ...]) -> None:
        """Log and count a response and the events of its decision."""
        metrics = self.metrics
        if metrics.enabled:
            request = record.request
            metrics.record_response(
                request.target,
                request.method,
                record.status,
                record.seconds,
                record.verdict,
                record.reason,
            )
            if record.upstream_seconds is not None:
                metrics.record_upstream_response(record.upstream_seconds)
        for event in events:
            metrics.count_event(event)
        self.logs.record_response(record, events)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* as a task; keep a reference to it and log its failure."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The running tasks."""
        return frozenset(self._tasks)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.logs.exception(MODULE, "task failed", error)
