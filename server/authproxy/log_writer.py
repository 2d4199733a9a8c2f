"""Writes log lines without ever blocking the loop.

Lines are collected on the loop's thread and handed over some times a second as one
chunk of bytes; a daemon thread writes it. The queue between them is bounded in bytes:
when the reader of the log is too slow, lines are dropped and counted, and a line says
how many. Make it after forking: a thread does not survive a fork.

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
from collections.abc import Iterator

FLUSH_INTERVAL = 0.05  # seconds
QUEUE_BYTES = 4 << 20
PIPE_PIECE = select.PIPE_BUF
STOP_TIMEOUT = 2.0  # seconds for the last lines when stopping
WRITABLE_WAIT = 1.0  # seconds between looks at a stopped writer

LOST = "dropped {count} log lines: the log's reader is too slow\n"


class LogWriter:
    """Lines for one file descriptor."""

    def __init__(self, fd: int, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self.dropped = 0  # lines since the last word about it
        self._fd = fd
        self._queue_bytes = queue_bytes
        self._lines: list[str] = []
        self._armed = False
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Each of the two is changed by one thread alone.
        self._handed_over = 0
        self._finished = 0
        self._stopped = False
        self._pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Take one line, which ends with its line end."""
        self._lines.append(line)
        if not self._armed:
            self._arm()

    def flush(self) -> None:
        """Hand over what has been collected."""
        self._armed = False
        lines, self._lines = self._lines, []
        if not lines:
            return
        if self.dropped:
            lines.append(LOST.format(count=self.dropped))
        chunk = "".join(lines).encode("utf-8", "backslashreplace")
        if self._handed_over - self._finished + len(chunk) > self._queue_bytes:
            self.dropped += len(lines) - (1 if self.dropped else 0)
            return
        self.dropped = 0
        self._handed_over += len(chunk)
        self._chunks.put(chunk)

    def close(self) -> None:
        """Write what is left, within `STOP_TIMEOUT`."""
        self.flush()
        self._stopped = True
        self._chunks.put(None)
        self._thread.join(STOP_TIMEOUT)

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
            try:
                for piece in _pieces(chunk) if self._pipe else (chunk,):
                    self._write_all(piece)
            except OSError:
                # The reader is gone or the disk is full: there is nobody to tell.
                pass
            finally:
                self._finished += len(chunk)

    def _write_all(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                if self._stopped:
                    return
                select.select([], [self._fd], [], WRITABLE_WAIT)


def _pieces(chunk: bytes) -> Iterator[bytes]:
    """Cut *chunk* between lines into pieces that a pipe takes as a whole."""
    start = 0
    while len(chunk) - start > PIPE_PIECE:
        end = chunk.rfind(b"\n", start, start + PIPE_PIECE) + 1
        if end == 0:  # a longer line
            end = chunk.index(b"\n", start) + 1
        yield chunk[start:end]
        start = end
    yield chunk[start:]
