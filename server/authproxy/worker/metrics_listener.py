"""The metrics listener of a worker: its application and its context.

Every path and method gets the metrics, summed over the workers or, with the query
``by=worker``, of each worker.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from authproxy_core.effects import Flow, Outcome
from authproxy_core.messages import Forward, Headers, Request, Respond

from ..logs.formatter import RequestRecord
from ..metrics.exposition import CONTENT_TYPE, render_per_worker, render_totals
from ..metrics.metrics import Metrics
from ..serve.worker_context import WorkerContext

MAX_CONNECTIONS = 64  # per worker; further ones replace the longest idle
HEADERS: Headers = ((b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store"))


class MetricsPage:
    """The application of the metrics listener.

    *publish* updates this worker's values before they are read.
    """

    def __init__(self, metrics: Metrics, publish: Callable[[], None]) -> None:
        self._metrics = metrics
        self._publish = publish

    def handle(self, request: Request) -> Outcome:
        """Return the metrics of all workers."""
        _, _, query = request.target.partition(b"?")
        per_worker = b"by=worker" in query.split(b"&")
        render = render_per_worker if per_worker else render_totals
        with self._metrics.track_scrape():
            self._publish()
            text = render(self._metrics.shared.used_slots())
        return Respond(200, HEADERS, text.encode())

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

    def record_response(self, record: RequestRecord, events: object) -> None:
        """Do not log or count the request."""

    def make_room(self) -> None:
        """Close the longest-idle connections above `MAX_CONNECTIONS`."""
        surplus = len(self.connections) - MAX_CONNECTIONS + 1
        if surplus > 0:
            oldest = heapq.nsmallest(
                surplus, self.connections, key=lambda one: one.eviction_order
            )
            for connection in oldest:
                connection.transport.abort()

    def stop(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.transport.abort()
