"""One connection of an attacker: paced sending, counted or paused reading."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple

LOOPBACK = "127.0.0.1"
READ_LIMIT = 4096  # bytes of the receive buffer of an attacker that does not read


class Pace:
    """A rate that all connections of a process share."""

    def __init__(self, rate: float) -> None:
        """Allow *rate* units per second."""
        self._rate = rate
        self._next = 0.0

    async def take(self, units: float) -> None:
        """Wait until *units* may be used."""
        now = time.perf_counter()
        start = max(self._next, now)
        self._next = start + units / self._rate
        if start - now > 0.001:
            await asyncio.sleep(start - now)


class Order(NamedTuple):
    """What an attacker process does; sent to it as JSON."""

    flood: str
    port: int
    tls: bool
    source: str
    attackers: int
    first: int  # number of its first attacker
    seconds: float
    bytes_per_second: float
    requests_per_second: float
    connects_per_second: float
    cookie: str


class Link(asyncio.Protocol):
    """A connection; all methods raise ConnectionError after the server closed it."""

    _numbers = itertools.count()

    def __init__(self, bytes_pace: Pace, request_pace: Pace, cookie: str) -> None:
        self._bytes_pace = bytes_pace
        self._request_pace = request_pace
        self.cookie = cookie.encode()
        self.number = next(self._numbers)
        self.received = 0
        self.sent = 0
        self.on_data: Callable[[bytes], None] | None = None
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = False

    async def open(
        self, port: int, source: str, tls: ssl.SSLContext | None, *, is_reader: bool
    ) -> None:
        """Connect; without *is_reader* the connection never reads."""
        self._is_reader = is_reader
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            await loop.create_connection(
                lambda: self, LOOPBACK, port, ssl=tls, local_addr=(source, 0)
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport; pause reading if the flood does not read."""
        self.transport: Any = transport
        transport.set_write_buffer_limits(65536)  # type: ignore[attr-defined]
        if not self._is_reader:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Count the bytes; pass them to the flood's parser."""
        self.received += len(data)
        if self.on_data is not None:
            self.on_data(data)
        self._changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        """End all waits."""
        self.closed = True
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """Make senders wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let senders continue."""
        self._writable.set()

    async def send(self, data: bytes, *, requests: float = 0) -> None:
        """Send bytes within the rate limits and the back-pressure of the server."""
        await self._bytes_pace.take(len(data))
        if requests:
            await self._request_pace.take(requests)
        await self._writable.wait()
        self._check()
        self.transport.write(data)
        self.sent += len(data)

    async def response(self, data: bytes) -> None:
        """Send a request and wait for bytes of the response."""
        self._changed.clear()
        await self.send(data, requests=1)
        await self._changed.wait()
        self._check()

    async def changed(self) -> None:
        """Wait for the next received bytes."""
        self._changed.clear()
        self._check()
        await self._changed.wait()
        self._check()

    async def dribble(self, data: bytes, interval: float = 1.0) -> None:
        """Send one byte per *interval* seconds."""
        for byte in data:
            await self.send(bytes((byte,)))
            await asyncio.sleep(interval)

    async def hold(self) -> None:
        """Stay connected until the server closes."""
        while True:
            await self.changed()

    def _check(self) -> None:
        if self.closed:
            raise ConnectionError("closed by the server")
