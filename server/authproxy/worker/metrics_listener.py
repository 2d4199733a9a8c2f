"""The metrics listener of a worker: its application and its context.

Every path and method gets the metrics, summed over the workers or, with the query
``by=worker``, of each worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from authproxy_core.effects import Flow, Outcome
from authproxy_core.messages import Forward, Headers, Request, Respond

from ..logs.formatter import RequestRecord
from ..metrics.exposition import CONTENT_TYPE, render_per_worker, render_totals
from ..metrics.metrics import Metrics
from ..serve.worker_context import WorkerContext
from ..server_settings import Limits

MAX_CONNECTIONS = 64  # per worker; further ones replace the longest idle
HEADERS: Headers = ((b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store"))


class MetricsPage:
    """The application of the metrics listener.

    *publish* updates this worker's values before they are read.
    """

    def __init__(self, metrics: Metrics, publish: Callable[[], None]) -> None:
        self._metrics = metrics
        self._publish = publish
        self._rendered: dict[bool, bytes] = {}  # in this event-loop iteration

    def handle(self, request: Request) -> Outcome:
        """Return the metrics of all workers."""
        _, _, query = request.target.partition(b"?")
        per_worker = b"by=worker" in query.split(b"&")
        with self._metrics.track_scrape():
            text = self._rendered.get(per_worker) or self._render(per_worker)
        return Respond(200, HEADERS, text)

    def _render(self, per_worker: bool) -> bytes:
        """Return the metrics; it takes milliseconds, so simultaneous scrapes share it."""
        if not self._rendered:
            asyncio.get_running_loop().call_soon(self._rendered.clear)
        render = render_per_worker if per_worker else render_totals
        self._publish()
        text = render(self._metrics.shared.used_slots()).encode()
        self._rendered[per_worker] = text
        return text

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Never called, because this application opens no tunnel."""
        raise AssertionError

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """Never called, because this application forwards nothing."""
        raise AssertionError


class ScrapeContext(WorkerContext):
    """Shared by the metrics connections; their requests are not logged or counted."""

    def __init__(self, context: WorkerContext, publish: Callable[[], None]) -> None:
        super().__init__(
            MetricsPage(context.metrics, publish),
            context.performer,
            None,
            context.logs,
            context.clock,
            context.limits,
            "x-request-id",
            Metrics(),
        )
        self.apply_limits(context.limits)

    def record_response(self, record: RequestRecord, events: object) -> None:
        """Do not log or count the request."""

    def apply_limits(self, limits: Limits) -> None:
        """Use *limits*, but with few connections."""
        self.limits = replace(limits, connections=MAX_CONNECTIONS)

    def stop(self) -> None:
        """Close all connections and handshakes."""
        for task in self.tasks:
            task.cancel()
        for connection in list(self.connections):
            connection.transport.abort()
