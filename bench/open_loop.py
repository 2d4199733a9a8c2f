"""An open-loop HTTP/1.1 load generator: requests at fixed times, whatever happens.

    python bench/open_loop.py PORT COOKIES RATE SECONDS [CONNECTIONS]

A request counts from the time at which it was due, also if it waited for a free
connection, so a server that stops for a second is seen in every request of that second
(no coordinated omission). It prints JSON: the latencies in milliseconds, the number of
requests, errors, and how late the generator itself noticed that one is due (p99).
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

HOST = "127.0.0.1"
RECEIVE_BYTES = 65536
GRACE = 10.0  # seconds for the last responses
PERCENTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}


class Connection:
    """A connection, and the time at which its request was due."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=GRACE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.received = b""

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return self.socket.fileno()


class Generator:
    """Sends *requests* in rotation to *port*, *rate* each second."""

    def __init__(
        self, port: int, requests: list[bytes], rate: float, connections: int
    ) -> None:
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.errors = 0
        self._port = port
        self._requests, self._rate = requests, rate
        self._idle = [Connection(port) for _ in range(connections)]
        self._busy: set[Connection] = set()

    def run(self, seconds: float) -> None:
        """Send for *seconds*, then wait for the last responses."""
        total = int(seconds * self._rate)
        waiting: deque[float] = deque()
        start = time.monotonic()
        end = start + seconds + GRACE
        sent = planned = 0
        while sent < total or self._busy:
            now = time.monotonic()
            if now > end:
                self.errors += total - sent + len(self._busy)
                return
            while planned < total and (due := start + planned / self._rate) <= now:
                waiting.append(due)
                self.lateness.append(now - due)
                planned += 1
            while waiting and self._idle:
                self._send(waiting.popleft(), sent)
                sent += 1
            # `select` waits in microseconds, unlike epoll and poll.
            pause = start + planned / self._rate - time.monotonic()
            timeout = max(pause, 0.0) if planned < total else 0.05
            for connection in select.select(self._busy, (), (), timeout)[0]:
                self._receive(connection)

    def _send(self, due: float, number: int) -> None:
        connection = self._idle.pop()
        connection.due = due
        try:
            connection.socket.send(self._requests[number % len(self._requests)])
        except OSError:  # closed by the server; the request counts as failed
            self.errors += 1
            self._idle.append(Connection(self._port))
            return
        self._busy.add(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.received += data
        if data and not is_complete(connection.received):
            return
        self._busy.discard(connection)
        if connection.received[9:10] != b"2":
            self.errors += 1
        else:
            self.latencies.append(time.monotonic() - connection.due)
        if not data:
            connection.socket.close()
            connection = Connection(self._port)
        connection.received = b""
        self._idle.append(connection)


def is_complete(received: bytes) -> bool:
    """Return whether *received* is a response, of which the body may be empty."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return False
    _, found, rest = head.lower().partition(b"content-length:")
    return len(body) >= (int(rest.partition(b"\r")[0]) if found else 0)


def percentile(values: list[float], part: float) -> float:
    """Return the value in milliseconds that the *part* of all do not exceed."""
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1e3, 3)


def main() -> int:
    """Generate the load of the arguments."""
    port, cookies, rate, seconds, *more = sys.argv[1:]
    requests = [
        f"GET /oauth2/auth HTTP/1.1\r\nHost: localhost\r\nCookie: {line}\r\n\r\n".encode()
        for line in Path(cookies).read_text().splitlines()
    ]
    connections = int(more[0]) if more else 64
    generator = Generator(int(port), requests, float(rate), connections)
    generator.run(float(seconds))
    result: dict[str, float] = {
        name: percentile(generator.latencies, part)
        for name, part in PERCENTILES.items()
        if generator.latencies
    }
    result["late_ms"] = percentile(generator.lateness, 0.99)
    result["requests"] = len(generator.latencies)
    result["errors"] = generator.errors
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
