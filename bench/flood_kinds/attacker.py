"""A process of attackers: reads an `Order` from its standard input.

    python -m flood_kinds.attacker < ORDER

It prints one line of JSON: bytes, connections, and its CPU time in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import ssl
import sys
import time

import uvloop

from flood_kinds import auth, http1, http2, tls
from flood_kinds.kinds import FLOODS, Flood
from flood_kinds.link import Link, Order, Pace

MODULES = (auth, http1, http2, tls)  # they fill `FLOODS`
MAX_PAUSE = 0.5  # seconds after a refused connection


class Attackers:
    """All connections of this process."""

    def __init__(self, order: Order, flood: Flood) -> None:
        self._order = order
        self._flood = flood
        self._bytes = Pace(order.bytes_per_second)
        self._requests = Pace(order.requests_per_second)
        self._connects = Pace(order.connects_per_second)
        self._tls = context(flood.alpn) if flood.alpn else None
        self.opened = self.refused = self.sent = self.received = 0

    async def run(self) -> None:
        """Attack until the time is over."""
        count = self._order.attackers * self._flood.connections
        if self._flood.total:
            count = self._flood.total
        tasks = [asyncio.create_task(self._repeat()) for _ in range(count)]
        await asyncio.sleep(self._order.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5)

    async def _repeat(self) -> None:
        while True:
            await self._connects.take(1)
            link = Link(self._bytes, self._requests, self._order.cookie)
            try:
                await link.open(
                    self._order.port,
                    self._order.source,
                    self._tls,
                    is_reader=self._flood.is_reader,
                )
                self.opened += 1
                await self._flood.attack(link)
            except (OSError, TimeoutError):
                self.refused += link.sent == 0
                await asyncio.sleep(MAX_PAUSE if link.sent == 0 else 0)
            finally:
                self.sent += link.sent
                self.received += link.received
                with contextlib.suppress(AttributeError):
                    link.transport.abort()


def context(alpn: str) -> ssl.SSLContext:
    """Return a TLS context for a self-signed certificate."""
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols([alpn])
    return made


def main() -> None:
    """Attack as ordered; print the totals."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.disable()  # asyncio reports writes to connections that the server closed
    order = Order(**json.loads(sys.stdin.readline()))
    attackers = Attackers(order, FLOODS[order.flood])
    uvloop.run(attackers.run())
    totals = {
        "opened": attackers.opened,
        "refused": attackers.refused,
        "sent": attackers.sent,
        "received": attackers.received,
        "cpu_seconds": time.process_time(),
    }
    print(json.dumps(totals), flush=True)


if __name__ == "__main__":
    main()
