"""Receive buffer of an event loop, and the budget of bytes that wait for clients.

A client that does not read its download must not fill the memory. uvloop reads up to
250 kB at once for a plain protocol; a buffered protocol gives it this buffer, so a read
has a size. The more received bytes wait to be sent, over all connections of the event
loop, the smaller are further reads: the memory is bounded by `UNSENT_BUDGET` and
`MIN_READ_BYTES` for each connection, and clients that read still make progress.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Bytes of a read, about as many as uvloop reads by itself. A chunk with its header must be
# smaller than the blocks that are mapped one by one (`worker.allocator`).
MAX_READ_BYTES = 240 << 10
MIN_READ_BYTES = 4 << 10
UNSENT_BUDGET = 4 << 20  # bytes received from upstreams that clients have not taken
SHARES = UNSENT_BUDGET // MAX_READ_BYTES


class ReceiveBuffer:
    """The buffer and the budget of one event loop.

    ``view`` is valid from a read to its callback. ``unsent`` counts received bytes that
    clients have not taken.
    """

    __slots__ = ("unsent", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(MAX_READ_BYTES))
        self.unsent = 0

    @property
    def read_size(self) -> int:
        """The number of bytes that one connection may receive now."""
        size = (UNSENT_BUDGET - self.unsent) // SHARES
        return max(MIN_READ_BYTES, min(size, MAX_READ_BYTES))

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count *size* bytes as unsent within the context."""
        self.unsent += size
        try:
            yield
        finally:
            self.unsent -= size


class _Buffers(threading.local):
    """One buffer for each thread, because a thread runs one event loop."""

    def __init__(self) -> None:
        self.buffer = ReceiveBuffer()


_BUFFERS = _Buffers()


def receive_buffer() -> ReceiveBuffer:
    """Return the buffer of the event loop that runs in this thread."""
    return _BUFFERS.buffer
