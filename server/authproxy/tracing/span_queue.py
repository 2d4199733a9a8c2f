"""A bounded queue of ended spans, and the thread that exports them.

The SDK's batch processor does not count what it drops. Requests never wait for the
collector: with a full queue, and after a failed export, spans are dropped and counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from .limits import (
    EXPORT_INTERVAL,
    MAX_BATCH_SPANS,
    MAX_CAUSE_LENGTH,
    MAX_QUEUED_SPANS,
)


class _LastMessage(logging.Handler):
    """Keeps the last message of the exporter, which would be printed otherwise."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of *record*, shortened."""
        self.text = " ".join(record.getMessage().split())[:MAX_CAUSE_LENGTH]


class SpanQueue(SpanProcessor):
    """Exports ended spans in batches; ``exported`` counts the delivered ones.

    ``problem`` is the cause of the last failed export, "" after a successful one. Spans
    end on the event loop only.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        max_queued: int = MAX_QUEUED_SPANS,
        interval: float = EXPORT_INTERVAL,
    ) -> None:
        self.exported = 0
        self.problem = ""
        self._exporter = exporter
        self._max_queued = max_queued
        self._interval = interval
        self._spans: deque[ReadableSpan] = deque()
        self._overflowed = 0  # counted by the event loop
        self._failed = 0  # counted by the thread
        self._closing = False
        self._wake = threading.Event()
        self._messages = _LastMessage()
        logger = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [self._messages], False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of spans that no collector will get."""
        return self._overflowed + self._failed

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the ended *span*, or drop it if the queue is full."""
        if len(self._spans) >= self._max_queued:
            self._overflowed += 1
            return
        self._spans.append(span)
        if len(self._spans) >= MAX_BATCH_SPANS:
            self._wake.set()

    def close(self, seconds: float) -> None:
        """Export the queued spans, for at most *seconds*; blocks."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        self._overflowed += len(self._spans)
        self._spans.clear()
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._interval)
            self._wake.clear()
            while self._spans:
                self._export()

    def _export(self) -> None:
        count = min(len(self._spans), MAX_BATCH_SPANS)
        batch = [self._spans.popleft() for _ in range(count)]
        self._messages.text = ""
        try:
            result = self._exporter.export(batch)
        except Exception as error:  # noqa: BLE001 - the next batch may succeed
            result, self._messages.text = SpanExportResult.FAILURE, repr(error)
        if result is SpanExportResult.SUCCESS:
            self.exported += count
            self.problem = ""
        else:
            self._failed += count
            self.problem = self._messages.text or "the exporter failed"
