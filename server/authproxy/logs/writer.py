"""Writes log lines without ever blocking the loop.

Lines are collected on the loop's thread and handed over some times a second as one
chunk of bytes; a daemon thread writes it. The queue between them is bounded in bytes:
when the reader of the log is too slow, lines are lost and counted. So are those that
can't be written, because the reader is gone or the disk is full. When lines get through
again, one of them says how many were lost. Make it after forking: a thread does not
survive a fork.

Several workers write to one standard output. A chunk holds whole lines and is written
in one call, which files keep in one piece. Pipes do so up to PIPE_BUF, so a chunk for
a pipe is cut between lines into pieces of that size; only a single longer line can
mix with another worker's.
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
STOP_TIMEOUT = 2.0  # seconds for the last lines when stopping
INTERRUPT_CHECK_INTERVAL = 1.0  # seconds between looks at a stopped writer


def _dropped_line(count: int) -> str:
    return f"lost {count} log lines\n"


class Sink(Protocol):
    """Where lines end up."""

    def write(self, chunk: bytes) -> None:
        """Write whole lines; raises OSError. May block."""

    def close(self) -> None:
        """No more is to be written."""

    def interrupt(self) -> None:
        """A `write` that waits for the reader is to end; called by another thread."""


class FdSink:
    """A file descriptor that was there before us, such as standard output."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._interrupted = False

    def write(self, chunk: bytes) -> None:
        """Write *chunk*, in pieces that are not torn; raises OSError."""
        for piece in _split_lines(chunk) if self._pipe else (chunk,):
            self._write_all(piece)

    def close(self) -> None:
        """It stays open, for it is not ours."""

    def interrupt(self) -> None:
        """A `write` that waits for the reader is to end."""
        self._interrupted = True

    def _write_all(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                if self._interrupted:
                    raise
                select.select([], [self._fd], [], INTERRUPT_CHECK_INTERVAL)


class LogWriter:
    """Lines for one sink, or file descriptor.

    *lost_line* makes the line that tells how many were lost, *on_lost* hears of it on
    the loop's thread. ``lost`` counts them all.
    """

    def __init__(
        self,
        sink: Sink | int,
        *,
        queue_bytes: int = MAX_QUEUED_BYTES,
        on_lost: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.dropped_line: Callable[[int], str] = _dropped_line
        self._sink = FdSink(sink) if isinstance(sink, int) else sink
        self._queue_bytes = queue_bytes
        self._on_lost = on_lost
        self._lines: list[str] = []
        self._armed = False
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Each of these is changed by one thread alone: the loop's …
        self._handed_over = 0
        self._dropped = 0  # lines that found no room in the queue
        self._reported = 0
        # … and the writer's.
        self._finished = 0
        self._failed = 0  # lines that could not be written
        self._announced = 0  # lines about whose loss a line was written
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were lost so far."""
        return self._dropped + self._failed

    def write(self, line: str) -> None:
        """Take one line, which ends with its line end."""
        self._lines.append(line)
        if not self._armed:
            self._arm()

    def flush(self) -> None:
        """Hand over what has been collected."""
        self._armed = False
        if self.dropped != self._reported:
            self._reported, before = self.dropped, self._reported
            self._on_lost(self._reported - before)
        lines, self._lines = self._lines, []
        if not lines:
            return
        chunk = "".join(lines).encode("utf-8", "backslashreplace")
        if self._handed_over - self._finished + len(chunk) > self._queue_bytes:
            self._dropped += len(lines)
            return
        self._handed_over += len(chunk)
        self._chunks.put(chunk)

    def close(self) -> None:
        """Write what is left, within `STOP_TIMEOUT`."""
        self.flush()
        self._chunks.put(None)
        self._thread.join(STOP_TIMEOUT / 2)
        self._sink.interrupt()
        self._thread.join(STOP_TIMEOUT / 2)

    def _arm(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()  # no loop yet, or none any more
            return
        self._armed = True
        loop.call_later(FLUSH_INTERVAL, self.flush)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            lost = self.dropped
            untold = lost - self._announced
            try:
                if untold:
                    self._sink.write(self.dropped_line(untold).encode() + chunk)
                else:
                    self._sink.write(chunk)
            except OSError:
                # The reader is gone or the disk is full: there is nobody to tell now.
                self._failed += chunk.count(b"\n")
            else:
                self._announced = lost
            finally:
                self._finished += len(chunk)
        self._sink.close()


def _split_lines(chunk: bytes) -> Iterator[bytes]:
    """Cut *chunk* between lines into pieces that a pipe takes as a whole."""
    start = 0
    while len(chunk) - start > PIPE_WRITE_BYTES:
        end = chunk.rfind(b"\n", start, start + PIPE_WRITE_BYTES) + 1
        if end == 0:  # a longer line
            end = chunk.index(b"\n", start) + 1
        yield chunk[start:end]
        start = end
    yield chunk[start:]
