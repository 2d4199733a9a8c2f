"""TCP gates: forward bytes between two programs, or disturb them.

The modes: ``pass``; ``delay`` holds all bytes for *seconds*; ``reset`` resets open and
new connections; ``blackhole`` forwards nothing, as a link that drops packets; ``half_open``
closes the server's side, while the client's side stays open; ``garbage`` replaces what the
server sends and closes; ``cut`` closes after the first *size* bytes of the server.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import Any

LOOPBACK = "127.0.0.1"
MODES = ("delay", "reset", "blackhole", "half_open", "garbage", "cut")
BUFFER = 1 << 18  # bytes after which a side is not read


class Gate:
    """A listener whose connections are forwarded to a port."""

    def __init__(self, target: int, seed: int) -> None:
        self.target = target
        self.mode = "pass"
        self.seconds = 0.0
        self.size = 0
        self.random = random.Random(seed)
        self.pairs: set[Pair] = set()

    async def listen(self) -> int:
        """Start; return the port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Pair(self).client, LOOPBACK, 0, backlog=1024
        )
        self._server = server
        port: int = server.sockets[0].getsockname()[1]
        return port

    def set(self, mode: str, seconds: float, size: int) -> None:
        """Change the mode for open and new connections."""
        before, self.mode = self.mode, mode
        self.seconds, self.size = seconds, size
        for pair in list(self.pairs):
            pair.mode_changed(before)


class Side(asyncio.Protocol):
    """One of the two connections of a pair."""

    def __init__(self, pair: Pair, *, is_client: bool) -> None:
        self.pair = pair
        self.is_client = is_client
        self.transport: Any = None
        self.early: list[bytes] = []
        self.free_at = 0.0  # loop time until which bytes to this side are delayed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport and start the pair."""
        self.transport = transport
        self.pair.connected(self)

    def data_received(self, data: bytes) -> None:
        """Forward to the other side."""
        self.pair.forward(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other side."""
        self.pair.lost(self, error)

    def pause_writing(self) -> None:
        """Pause the other side."""
        self.pair.other(self).pause()

    def resume_writing(self) -> None:
        """Resume the other side."""
        if self.pair.gate.mode != "blackhole":
            self.pair.other(self).resume()

    def pause(self) -> None:
        """Stop reading."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send, or store until the connection is open."""
        if self.transport is None:
            self.early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def reset(self) -> None:
        """Close with RST."""
        if self.transport is None:
            return
        link = self.transport.get_extra_info("socket")
        if link is not None and link.fileno() >= 0:
            linger = struct.pack("ii", 1, 0)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


class Pair:
    """A client's connection and its connection to the server."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.client = Side(self, is_client=True)
        self.server = Side(self, is_client=False)
        self._sent = 0
        self._dead = False  # half-open: the server's side is closed
        gate.pairs.add(self)

    def other(self, side: Side) -> Side:
        """Return the other side."""
        return self.server if side.is_client else self.client

    def connected(self, side: Side) -> None:
        """Connect to the server, or send the stored bytes."""
        if not side.is_client:
            for data in side.early:
                side.transport.write(data)
            side.early.clear()
            return
        match self.gate.mode:
            case "reset":
                side.reset()
            case "blackhole" | "half_open":
                self._dead = self.gate.mode == "half_open"
                side.pause()
            case _:
                self._open()

    def _open(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self._task = task

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: self.server, LOOPBACK, self.gate.target
            )
        except OSError:
            self.client.reset()

    def forward(self, side: Side, data: bytes) -> None:
        """Send bytes to the other side as the mode says."""
        gate, other = self.gate, self.other(side)
        if self._dead:
            side.reset()  # bytes for a connection that the server does not know
            return
        match gate.mode:
            case "delay" | "pass":
                self._write_later(other, data)
            case "garbage" if not side.is_client:
                other.write(gate.random.randbytes(len(data)))
                self.close()
            case "cut" if not side.is_client:
                other.write(data[: max(0, gate.size - self._sent)])
                self._sent += len(data)
                if self._sent >= gate.size:
                    self.close()
            case _:
                other.write(data)

    def _write_later(self, side: Side, data: bytes) -> None:
        """Write after the delay of the gate; bytes never overtake each other."""
        loop = asyncio.get_running_loop()
        delay = self.gate.seconds if self.gate.mode == "delay" else 0.0
        now = loop.time()
        if delay == 0.0 and side.free_at <= now:
            side.write(data)
            return
        side.free_at = max(now + delay, side.free_at + 0.001)
        loop.call_at(side.free_at, side.write, data)

    def mode_changed(self, before: str) -> None:
        """Apply a new mode to this pair."""
        mode = self.gate.mode
        self._sent = 0
        if mode == "reset":
            self.client.reset()
            self.server.reset()
        elif mode == "blackhole":
            self.client.pause()
            self.server.pause()
        elif mode == "half_open":
            self._dead = True
            self.client.pause()
            self.server.reset()
        elif before in ("blackhole", "half_open"):
            if self.server.transport is None and not self._dead:
                self._open()
            self.client.resume()
            self.server.resume()

    def close(self) -> None:
        """Close both sides after the written bytes."""
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.close()

    def lost(self, side: Side, error: Exception | None) -> None:
        """Close the other side, unless it stays half-open."""
        if self._dead and not side.is_client:
            return
        self.gate.pairs.discard(self)
        other = self.other(side)
        if other.transport is None:
            return
        if error is not None:
            other.reset()
        elif other.free_at > (now := asyncio.get_running_loop().time()):
            delay = other.free_at - now + 0.01
            asyncio.get_running_loop().call_later(delay, other.transport.close)
        else:
            other.transport.close()
