"""The queue of spans: bounded, counted, and closed within a limit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is missing")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from authproxy.tracing.limits import MAX_BATCH_SPANS
from authproxy.tracing.span_queue import SpanQueue

SPAN = ReadableSpan("a")


class Exporter(SpanExporter):
    """Waits for ``open`` in each export, and returns the next of *results*."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.sizes: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record the size of the batch."""
        self.sizes.append(len(spans))
        self.entered.set()
        self.open.wait()
        result = self.results.pop(0) if self.results else SpanExportResult.SUCCESS
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, SpanExportResult)
        return result


def test_full_queue_drops_and_counts_spans() -> None:
    exporter = Exporter()
    queue = SpanQueue(exporter, max_queued=3, interval=0.01)
    queue.on_end(SPAN)
    assert exporter.entered.wait(20)
    for _ in range(5):
        queue.on_end(SPAN)
    assert (queue.dropped, queue.exported) == (2, 0)
    exporter.open.set()
    queue.close(20)
    assert (queue.dropped, queue.exported) == (2, 4)
    assert exporter.sizes == [1, 3]


def test_failed_export_counts_spans_and_keeps_cause() -> None:
    exporter = Exporter(ValueError("no route"), SpanExportResult.FAILURE)
    exporter.open.set()
    queue = SpanQueue(exporter, interval=60)
    for _ in range(2 * MAX_BATCH_SPANS):
        queue.on_end(SPAN)
    queue.close(20)
    assert queue.dropped == 2 * MAX_BATCH_SPANS
    assert queue.problem == "the exporter failed"
    exporter = Exporter(ValueError("no route"))
    exporter.open.set()
    queue = SpanQueue(exporter, interval=60)
    queue.on_end(SPAN)
    queue.close(20)
    assert "no route" in queue.problem


def test_close_gives_up_on_hanging_export() -> None:
    exporter = Exporter()
    queue = SpanQueue(exporter, interval=0.01)
    queue.on_end(SPAN)
    assert exporter.entered.wait(20)
    queue.on_end(SPAN)
    queue.close(0.01)
    assert queue.dropped == 1
    exporter.open.set()
