"""The metrics listener's side of a worker: connections that are not clients'."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from ..logs.formatter import RequestRecord
from ..metrics.endpoint import MetricsPage
from ..metrics.metrics import Metrics
from ..serve.worker_context import WorkerContext

SCRAPERS = 64  # connections per worker; further ones replace the oldest


class ScrapeContext(WorkerContext):
    """What these connections share; their requests are neither logged nor counted."""

    def __init__(self, hub: WorkerContext, publish: Callable[[], None]) -> None:
        super().__init__(
            MetricsPage(hub.metrics, publish),
            hub.performer,
            None,
            hub.logs,
            hub.clock,
            hub.limits,
            "x-request-id",
            Metrics(),
        )

    def record_response(self, entry: RequestRecord, events: object) -> None:
        """Nobody wants to know."""

    def make_room(self) -> None:
        """Close the connections that have waited longest when there are too many."""
        surplus = len(self.connections) - SCRAPERS + 1
        if surplus > 0:
            oldest = heapq.nsmallest(
                surplus, self.connections, key=lambda one: one.waiting
            )
            for one in oldest:
                one.transport.abort()

    def stop(self) -> None:
        """Close all of them."""
        for connection in list(self.connections):
            connection.transport.abort()
