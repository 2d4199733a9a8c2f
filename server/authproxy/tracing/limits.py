"""Limits of the export of traces."""

from __future__ import annotations

MAX_QUEUED_SPANS = 4096  # per worker
MAX_BATCH_SPANS = 256  # encoding more at once would delay the event loop (GIL)
EXPORT_INTERVAL = 1.0  # seconds between two exports, unless a batch is full
EXPORT_TIMEOUT = 5.0  # seconds, with the exporter's retries
FLUSH_TIMEOUT = 3.0  # seconds at shutdown
MAX_CAUSE_LENGTH = 300  # characters of an exporter's message in the log
MAX_ATTRIBUTE_LENGTH = 512  # characters of a path or a user agent
