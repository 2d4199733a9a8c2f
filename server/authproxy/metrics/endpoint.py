"""What answers on the metrics listener: every path and method gets the numbers.

With the query ``by=worker`` they are told for each worker instead of summed up.
"""

from __future__ import annotations

from collections.abc import Callable

from authproxy_core.effects import Flow, Outcome
from authproxy_core.messages import Forward, Headers, Request, Respond

from .exposition import CONTENT_TYPE, render_per_worker, render_totals
from .metrics import Metrics

HEADERS: Headers = ((b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store"))


class MetricsPage:
    """An application for the connections of the metrics listener.

    *publish* is called before the numbers are read, to bring this worker's up to date.
    """

    def __init__(self, metrics: Metrics, publish: Callable[[], None]) -> None:
        self._metrics = metrics
        self._publish = publish

    def handle(self, request: Request) -> Outcome:
        """All numbers of all workers."""
        _, _, query = request.target.partition(b"?")
        write = (
            render_per_worker if b"by=worker" in query.split(b"&") else render_totals
        )
        with self._metrics.scraped():
            self._publish()
            text = write(self._metrics.shared.used())
        return Respond(200, HEADERS, text.encode())

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Nothing goes on here."""
        raise AssertionError

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """There is no upstream here."""
        raise AssertionError
