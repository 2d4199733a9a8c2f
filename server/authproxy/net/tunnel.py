"""Tunnel: copy bytes in both directions after an upgrade (101).

Each side is a protocol that writes received bytes to the other side's transport: no
task, no buffer. When the write buffer of a transport exceeds `WRITE_HIGH_WATER`, reading
from the other side is paused; a read is limited by the `ReceiveBuffer`. The bytes are not interpreted, so the peers see
each other's frames and close codes unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from ..loop.receive_buffer import receive_buffer

HALF_CLOSED_TIMEOUT = 60.0  # seconds for a side to finish after the other's EOF
WRITE_HIGH_WATER = 16 << 10  # bytes to a peer that does not read them
FLUSH_TIMEOUT = 10.0  # seconds for the last bytes to a side after the other closed


class UpgradedConnection(Struct):
    """A connection that has switched protocols.

    ``early`` are received bytes of the new protocol. ``on_lost`` is called when the
    connection closes, unless it is ``closed`` already.
    """

    transport: asyncio.Transport
    on_lost: Callable[[Exception | None], None]
    early: bytes = b""
    closed: bool = False


class _Side(asyncio.BufferedProtocol):
    """One of the two connections."""

    __slots__ = (
        "_buffer",
        "_held",
        "_on_lost",
        "_tunnel",
        "at_eof",
        "closed",
        "other",
        "size",
        "transport",
    )

    other: _Side

    def __init__(self, tunnel: Tunnel, upgraded: UpgradedConnection) -> None:
        self.transport = upgraded.transport
        self.size = 0  # bytes received
        self.at_eof = False  # it has sent its last byte
        self.closed = False
        self._on_lost = None if upgraded.closed else upgraded.on_lost
        self._tunnel = tunnel
        self._buffer = receive_buffer()
        self._held = 0  # bytes that count as unsent

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer of a read."""
        return self._buffer.view[: self._buffer.read_size]

    def buffer_updated(self, nbytes: int) -> None:
        """Write received bytes to the other side."""
        self.forward(bytes(self._buffer.view[:nbytes]))

    def forward(self, data: bytes) -> None:
        """Write *data* to the other side."""
        self.size += len(data)
        if not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Half-close the other side, or close both if that is not possible."""
        other = self.other.transport
        self.at_eof = True
        if other.is_closing():
            return False
        if self.other.at_eof or not other.can_write_eof():
            other.close()
            return False
        other.write_eof()
        self._tunnel.abort_after(HALF_CLOSED_TIMEOUT)
        return True

    def pause_writing(self) -> None:
        """Pause reading from the other side."""
        self._hold(self.transport.get_write_buffer_size())
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume reading from the other side."""
        self._hold(0)
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def _hold(self, size: int) -> None:
        self._buffer.unsent += size - self._held
        self._held = size

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side, too, after its pending bytes."""
        self.closed = True
        self._hold(0)
        if self._on_lost is not None:
            self._on_lost(exc)
        if self.other.closed:
            self._tunnel.finish()
        else:
            self.other.transport.close()
            self._tunnel.abort_after(FLUSH_TIMEOUT)

    def detach(self) -> None:
        """Drop all references; both sides are closed."""
        self._on_lost = None
        del self.other, self._tunnel, self.transport


class Tunnel:
    """Two connections joined.

    There may be thousands of idle tunnels, so a tunnel has no task; callbacks report
    its end.
    """

    __slots__ = ("_client", "_done_callbacks", "_timer", "_upstream", "closed")

    def __init__(
        self, client: UpgradedConnection, upstream: UpgradedConnection
    ) -> None:
        self.closed = False  # both connections are closed
        self._done_callbacks: tuple[Callable[[], None], ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._client = _Side(self, client)
        self._upstream = _Side(self, upstream)
        self._client.other, self._upstream.other = self._upstream, self._client
        sides = ((self._client, client), (self._upstream, upstream))
        for side, upgraded in sides:
            if not upgraded.closed:
                upgraded.transport.set_protocol(side)
                if not upgraded.transport.is_closing():
                    upgraded.transport.set_write_buffer_limits(WRITE_HIGH_WATER)
                    upgraded.transport.resume_reading()
        # Only after both protocols are set, because many early bytes pause the other side.
        for side, upgraded in sides:
            if upgraded.early:
                side.forward(upgraded.early)
            if upgraded.closed:
                side.connection_lost(None)

    @property
    def bytes_to_client(self) -> int:
        """The number of bytes received from the upstream for the client."""
        return self._upstream.size

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call *callback* when both connections are closed, which may be at once."""
        if self.closed:
            callback()
        else:
            self._done_callbacks += (callback,)

    def abort_after(self, seconds: float) -> None:
        """Abort both sides in *seconds*, unless an earlier deadline is set."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self.abort)

    def abort(self) -> None:
        """Abort both sides at once."""
        for side in (self._client, self._upstream):
            if not side.closed:
                side.transport.abort()

    def finish(self) -> None:
        """Handle the end of the second connection; called by its side."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.closed = True
        callbacks, self._done_callbacks = self._done_callbacks, ()
        for callback in callbacks:
            callback()
        # Break the reference cycles; garbage collections are rare.
        self._client.detach()
        self._upstream.detach()
