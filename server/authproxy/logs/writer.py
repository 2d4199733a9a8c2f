"""Write log lines without blocking the event loop.

The event loop's thread collects lines and queues them every `FLUSH_INTERVAL` as one
chunk of bytes; a daemon thread writes the chunks. The queue is bounded in bytes. If the
reader of the log is too slow, or a write fails (reader closed, disk full), lines are
dropped and counted. The next successful write starts with a line that contains the
count. Create a writer after forking, because threads do not survive a fork.

All workers write to one standard output. A chunk contains whole lines and is written by
one call, which is atomic for files in append mode. Writes to a pipe are atomic up to
PIPE_BUF bytes, so chunks for a pipe are split between lines; only a longer line can be
mixed with those of other workers.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

FLUSH_INTERVAL = 0.05  # seconds
MAX_QUEUED_BYTES = 4 << 20
PIPE_WRITE_BYTES = select.PIPE_BUF
STOP_TIMEOUT = 2.0  # seconds for the last lines in `close`
INTERRUPT_CHECK_INTERVAL = 1.0  # seconds


def _dropped_line(count: int) -> str:
    return f"dropped {count} log lines\n"


class Sink(Protocol):
    """Destination of log lines."""

    def write(self, chunk: bytes) -> None:
        """Write whole lines; may block. Raises OSError."""

    def close(self) -> None:
        """Release resources; no more writes follow."""

    def interrupt(self) -> None:
        """Let a `write` that waits for the reader fail; called by another thread."""


class FdSink:
    """An inherited file descriptor, such as standard output."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._interrupted = False

    def write(self, chunk: bytes) -> None:
        """Write *chunk*, in atomic parts for a pipe. Raises OSError."""
        for part in _split_lines(chunk) if self._pipe else (chunk,):
            self._write_all(part)

    def close(self) -> None:
        """Do nothing: the descriptor is not owned by the sink."""

    def interrupt(self) -> None:
        """Let a `write` that waits for the reader fail."""
        self._interrupted = True

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                if self._interrupted:
                    raise
                select.select([], [self._fd], [], INTERRUPT_CHECK_INTERVAL)


class LogWriter:
    """Writes lines to one sink or file descriptor.

    ``dropped_line`` formats the line about dropped lines. *on_dropped* is called with
    their number on the event loop's thread.
    """

    def __init__(
        self,
        sink: Sink | int,
        *,
        queue_bytes: int = MAX_QUEUED_BYTES,
        on_dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.dropped_line: Callable[[int], str] = _dropped_line
        self._sink = FdSink(sink) if isinstance(sink, int) else sink
        self._queue_bytes = queue_bytes
        self._on_dropped = on_dropped
        self._lines: list[str] = []
        self._armed = False
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Written by the event loop's thread only:
        self._queued = 0  # bytes put into the queue
        self._rejected = 0  # lines for which the queue was full
        self._reported = 0  # dropped lines that `on_dropped` got
        # Written by the writer's thread only:
        self._finished = 0  # bytes taken from the queue
        self._failed = 0  # lines whose write failed
        self._announced = 0  # dropped lines that a line was written about
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of lines dropped so far."""
        return self._rejected + self._failed

    def write(self, line: str) -> None:
        """Collect one line, which ends with a line feed."""
        self._lines.append(line)
        if not self._armed:
            self._arm()

    def flush(self) -> None:
        """Queue the collected lines."""
        self._armed = False
        if self.dropped != self._reported:
            self._reported, previous = self.dropped, self._reported
            self._on_dropped(self._reported - previous)
        lines, self._lines = self._lines, []
        if not lines:
            return
        chunk = "".join(lines).encode("utf-8", "backslashreplace")
        if self._queued - self._finished + len(chunk) > self._queue_bytes:
            self._rejected += len(lines)
            return
        self._queued += len(chunk)
        self._chunks.put(chunk)

    def close(self) -> None:
        """Write the remaining lines, within `STOP_TIMEOUT`."""
        self.flush()
        self._chunks.put(None)
        self._thread.join(STOP_TIMEOUT / 2)
        self._sink.interrupt()
        self._thread.join(STOP_TIMEOUT / 2)

    def _arm(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()  # before the event loop starts, or after it has stopped
            return
        self._armed = True
        loop.call_later(FLUSH_INTERVAL, self.flush)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            dropped = self.dropped
            unannounced = dropped - self._announced
            try:
                if unannounced:
                    self._sink.write(self.dropped_line(unannounced).encode() + chunk)
                else:
                    self._sink.write(chunk)
            except OSError:
                # The reader has closed, or the disk is full: there is no way to report it.
                self._failed += chunk.count(b"\n")
            else:
                self._announced = dropped
            finally:
                self._finished += len(chunk)
        self._sink.close()


def _split_lines(chunk: bytes) -> Iterator[bytes]:
    """Split *chunk* between lines into parts of at most PIPE_BUF bytes."""
    start = 0
    while len(chunk) - start > PIPE_WRITE_BYTES:
        end = chunk.rfind(b"\n", start, start + PIPE_WRITE_BYTES) + 1
        if end == 0:  # a longer line
            end = chunk.index(b"\n", start) + 1
        yield chunk[start:end]
        start = end
    yield chunk[start:]
