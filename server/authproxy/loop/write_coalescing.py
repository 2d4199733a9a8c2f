"""Write coalescing: the writes of one event-loop iteration are done at its end.

A write wakes the receiver. With more busy processes than CPUs, the kernel may then run
the receiver after each response, although it only waits for the next one. So complete
responses and requests to upstreams are queued until all input of the iteration has been
handled, or until there are `MAX_COALESCED_WRITES`.
"""

from __future__ import annotations

import asyncio

MAX_COALESCED_WRITES = 16  # bounds the delay of the first write


class WriteCoalescer:
    """The queue of one worker's writes, in order."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: list[tuple[asyncio.WriteTransport, bytes]] = []

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Queue *data* for *transport*.

        Call `flush` before any other operation on *transport*.
        """
        queue = self._queue
        queue.append((transport, data))
        count = len(queue)
        if count == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif count >= MAX_COALESCED_WRITES:
            self.flush()

    def flush(self) -> None:
        """Do all queued writes; skip transports that have been closed meanwhile."""
        if self._queue:
            queue, self._queue = self._queue, []
            for transport, data in queue:
                if not transport.is_closing():
                    _write(transport, data)


def _write(transport: asyncio.WriteTransport, data: bytes) -> None:
    try:
        transport.write(data)
    except Exception:  # noqa: BLE001 - one failed write must not stop the others
        transport.abort()


class ConnectionWriter:
    """Writes of one connection; keeps queued and direct operations in order."""

    __slots__ = ("_coalescer", "_pending", "_since", "_transport", "progress")

    def __init__(self, coalescer: WriteCoalescer, transport: asyncio.Transport) -> None:
        self._coalescer = coalescer
        self._transport = transport
        self._pending = 0  # bytes in the write buffer at the last check
        self._since = 0.0  # monotonic seconds of the last progress
        self.progress = False  # set by the protocol when the write buffer drains

    def is_stalled(self, now: float, limit: float) -> bool:
        """Return whether the peer has read nothing for *limit* seconds.

        Call it periodically; *now* is in monotonic seconds.
        """
        pending = self._transport.get_write_buffer_size()
        if not pending or pending != self._pending or self.progress:
            self._pending, self.progress, self._since = pending, False, now
            return False
        return now - self._since >= limit

    def write(self, data: bytes) -> None:
        """Queue *data*, a complete response or the last part of one."""
        self._coalescer.write(self._transport, data)

    def write_now(self, data: bytes) -> None:
        """Write *data* at once, so that back-pressure takes effect at once."""
        self._coalescer.flush()
        self._transport.write(data)

    def write_eof(self) -> None:
        """Half-close the connection after all writes."""
        self._coalescer.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection after all writes."""
        self._coalescer.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once; the write buffer is lost."""
        self._coalescer.flush()
        self._transport.abort()
