"""What is written in one turn of the loop is written together, at its end.

A write wakes its receiver. Where there are more programs than CPUs, the receiver then
takes the CPU from us after each answer, and does nothing with it but wait for the next.
So whole answers, and requests to upstreams, wait here until what came in the same turn
has been looked at, or until there are `TOGETHER` of them.
"""

from __future__ import annotations

import asyncio

MAX_COALESCED_WRITES = 16  # writes; the first of them waits for as many


class WriteCoalescer:
    """Writes of one worker that are yet to be done, in their order."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write *data* soon.

        Whatever else is done with *transport*, `flush` has to be called before.
        """
        waiting = self._waiting
        waiting.append((transport, data))
        count = len(waiting)
        if count == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif count >= MAX_COALESCED_WRITES:
            self.flush()

    def flush(self) -> None:
        """Write what waits; what has been closed meanwhile gets nothing."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for transport, data in waiting:
                if not transport.is_closing():
                    _write(transport, data)


def _write(transport: asyncio.WriteTransport, data: bytes) -> None:
    try:
        transport.write(data)
    except Exception:  # noqa: BLE001 - what others are to get waits behind it
        transport.abort()


class ConnectionWriter:
    """One connection's way out; keeps what waits in the order of all else."""

    __slots__ = ("_coalescer", "_pending", "_since", "_transport", "progress")

    def __init__(self, outbox: WriteCoalescer, transport: asyncio.Transport) -> None:
        self._coalescer = outbox
        self._transport = transport
        self._pending = 0  # bytes
        self._since = 0.0
        self.progress = False  # the peer has caught up

    def is_stalled(self, now: float, limit: float) -> bool:
        """Whether the peer has read nothing for *limit* seconds; asked now and then."""
        pending = self._transport.get_write_buffer_size()
        if not pending or pending != self._pending or self.progress:
            self._pending, self.progress, self._since = pending, False, now
            return False
        return now - self._since >= limit

    def write(self, data: bytes) -> None:
        """Write *data*, a whole answer or the last of one, soon."""
        self._coalescer.write(self._transport, data)

    def write_now(self, data: bytes) -> None:
        """Write *data*; when the peer does not keep up, the protocol hears it at once."""
        self._coalescer.flush()
        self._transport.write(data)

    def write_eof(self) -> None:
        """Nothing more will be written."""
        self._coalescer.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close when all has been written."""
        self._coalescer.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close, whatever is still to be sent."""
        self._coalescer.flush()
        self._transport.abort()
