"""A well-behaved client in its own process.

    python -m flood_kinds.probe PORT TLS COOKIE_FILE

Each line of its standard input is a number of seconds. It sends auth checks for that
time at a fixed rate and prints their latencies as JSON. A latency starts when the request
is due, so a late request counts as slow. Every fifth check opens a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from flood_kinds.attacker import context
from flood_kinds.link import LOOPBACK

RATE = 100  # checks per second
CONNECTIONS = 4  # that stay open
NEW_EVERY = 5  # checks
TIMEOUT = 10.0  # seconds of a check
PRIORITY = -10  # niceness, so that the latency is that of the server
REQUEST = b"GET /oauth2/auth HTTP/1.1\r\nHost: app.example.com\r\nCookie: %b\r\n%b\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Probe:
    """Sends the checks and measures them."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, cookies: Path) -> None:
        self._port = port
        self._tls = tls
        self._cookies = itertools.cycle(cookies.read_bytes().splitlines())
        self._idle: list[Streams] = []

    async def measure(self, seconds: float) -> dict[str, Any]:
        """Return the latencies of *seconds* as percentiles in milliseconds."""
        start = time.perf_counter()
        tasks = []
        for number in range(int(seconds * RATE)):
            due = start + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self._check(due, number)))
        results = await asyncio.gather(*tasks)
        times = sorted(latency for latency, _ in results)
        problems = Counter(problem for _, problem in results if problem)
        return {
            "count": len(times),
            "p50_ms": times[len(times) // 2] * 1000,
            "p99_ms": times[max(0, -(-99 * len(times) // 100) - 1)] * 1000,
            "max_ms": times[-1] * 1000,
            "problems": dict(problems),
        }

    async def _check(self, due: float, number: int) -> tuple[float, str]:
        problem = ""
        try:
            async with asyncio.timeout(TIMEOUT):
                is_new = number % NEW_EVERY == 0
                status = await self._request(is_new=is_new)
                if status != b"202":
                    problem = f"status {status.decode('latin-1')}"
        except TimeoutError:
            problem = "timeout"
        except (OSError, EOFError) as error:
            problem = type(error).__name__
        return time.perf_counter() - due, problem

    async def _request(self, *, is_new: bool) -> bytes:
        while self._idle and not is_new:
            streams = self._idle.pop(0)
            with contextlib.suppress(OSError, EOFError):
                return await self._exchange(streams, is_new)
        opened = asyncio.open_connection(LOOPBACK, self._port, ssl=self._tls)
        return await self._exchange(await opened, is_new)

    async def _exchange(self, streams: Streams, is_new: bool) -> bytes:
        reader, writer = streams
        close = b"Connection: close\r\n" if is_new else b""
        try:
            writer.write(REQUEST % (next(self._cookies), close))
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            await reader.readexactly(length)
        except BaseException:
            writer.transport.abort()
            raise
        if is_new or len(self._idle) >= CONNECTIONS:
            writer.transport.abort()
        else:
            self._idle.append(streams)
        return head.split(b" ", 2)[1]


async def serve(probe: Probe) -> None:
    """Measure for each line of the standard input."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await probe.measure(float(line))), flush=True)


def main() -> None:
    """Run until the standard input ends."""
    with contextlib.suppress(OSError):
        os.nice(PRIORITY)
    port, tls, cookies = sys.argv[1:]
    encrypted = context("http/1.1") if tls == "tls" else None
    uvloop.run(serve(Probe(int(port), encrypted, Path(cookies))))


if __name__ == "__main__":
    main()
