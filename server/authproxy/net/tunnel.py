"""Bytes both ways after an upgrade (101), until one side ends or the time is over.

Each side is a protocol that hands what arrives to the other's transport: no task, no
buffer of its own. What the other side does not read fits into its transport's write
buffer; then this side's socket is not read either. Nothing is looked at, so close codes
and whatever else the two agree on pass as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

HALF_CLOSED_TIMEOUT = (
    60.0  # seconds that a side may still send after the other's last byte
)
FLUSH_TIMEOUT = 10.0  # seconds for the last bytes to a side after the other is gone


class UpgradedConnection(Struct):
    """A connection that has changed its protocol.

    ``early`` are bytes of the new protocol that have come already. ``lost`` is told
    when the connection ends, unless it is ``gone`` already.
    """

    transport: asyncio.Transport
    on_lost: Callable[[Exception | None], None]
    early: bytes = b""
    closed: bool = False


class _Side(asyncio.Protocol):
    """One of the two connections."""

    __slots__ = ("_lost", "_tunnel", "ended", "gone", "other", "size", "transport")

    other: _Side

    def __init__(self, tunnel: Tunnel, switched: UpgradedConnection) -> None:
        self.transport = switched.transport
        self.size = 0  # bytes received
        self.ended = False  # it has sent its last byte
        self.gone = False
        self._lost = None if switched.closed else switched.on_lost
        self._tunnel = tunnel

    def data_received(self, data: bytes) -> None:
        """Hand it on."""
        self.size += len(data)
        if not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """No more from here; the other side may still answer, if it can be told."""
        other = self.other.transport
        self.ended = True
        if other.is_closing():
            return False
        if self.other.ended or not other.can_write_eof():
            other.close()
            return False
        other.write_eof()
        self._tunnel.abort_after(HALF_CLOSED_TIMEOUT)
        return True

    def pause_writing(self) -> None:
        """This side does not keep up: the other must not send."""
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side has caught up."""
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side too, after what is still to be sent to it."""
        self.gone = True
        if self._lost is not None:
            self._lost(exc)
        if self.other.gone:
            self._tunnel.finish()
        else:
            self.other.transport.close()
            self._tunnel.abort_after(FLUSH_TIMEOUT)

    def detach(self) -> None:
        """Both are gone: nothing is told to this side any more."""
        self._lost = None
        del self.other, self._tunnel, self.transport


class Tunnel:
    """Two connections joined; ``sent`` counts the bytes to the client.

    Nobody waits for its end: it tells it. Most tunnels only wait, and there may be
    thousands, so this is all that one keeps.
    """

    __slots__ = ("_client", "_done_callbacks", "_timer", "_upstream", "closed")

    def __init__(
        self, client: UpgradedConnection, upstream: UpgradedConnection
    ) -> None:
        self.closed = False  # both connections are gone
        self._done_callbacks: tuple[Callable[[], None], ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._client = _Side(self, client)
        self._upstream = _Side(self, upstream)
        self._client.other, self._upstream.other = self._upstream, self._client
        sides = ((self._client, client), (self._upstream, upstream))
        for side, switched in sides:
            if not switched.closed:
                switched.transport.set_protocol(side)
                if not switched.transport.is_closing():
                    switched.transport.resume_reading()
        # Only now: what is early may be so much that the other side has to pause.
        for side, switched in sides:
            if switched.early:
                side.data_received(switched.early)
            if switched.closed:
                side.connection_lost(None)

    @property
    def bytes_to_client(self) -> int:
        """How many bytes went to the client."""
        return self._upstream.size

    def add_done_callback(self, call: Callable[[], None]) -> None:
        """Have *call* called when both connections are gone, which may be at once."""
        if self.closed:
            call()
        else:
            self._done_callbacks += (call,)

    def abort_after(self, seconds: float) -> None:
        """Cut both sides after *seconds*, if they are still there and not cut before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self.abort)

    def abort(self) -> None:
        """Cut both sides at once."""
        for side in (self._client, self._upstream):
            if not side.gone:
                side.transport.abort()

    def finish(self) -> None:
        """Both connections are gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.closed = True
        calls, self._done_callbacks = self._done_callbacks, ()
        for call in calls:
            call()
        # Else the four would hold each other until the garbage is collected, rarely.
        self._client.detach()
        self._upstream.detach()
