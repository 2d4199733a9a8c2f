"""Helper process: gates, the upstream, and a DNS server.

The upstream responds to each request with JSON: its path and the identity that the proxy
has added.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import uvloop

from chaos_parts.control import serve_commands
from chaos_parts.gates import LOOPBACK, Gate

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


class App(asyncio.Protocol):
    """The upstream; reads bodies with a length."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Respond to each complete request."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            fields = {}
            start, *lines = head.decode("latin-1").split("\r\n")
            for line in lines:
                name, _, value = line.partition(":")
                fields[name.strip().lower()] = value.strip()
            length = int(fields.get("content-length", "0"))
            if len(rest) < length:
                return
            self._received = rest[length:]
            seen = {
                "path": start.split(" ")[1],
                "email": fields.get("x-forwarded-email", ""),
                "size": length,
            }
            body = json.dumps(seen).encode()
            self._transport.write(HEAD % len(body) + body)


class Dns(asyncio.DatagramProtocol):
    """Resolves all names to the loopback address while ``is_up``."""

    def __init__(self) -> None:
        self.is_up = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport: Any = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        """Respond to a query (RFC 1035 §4.1)."""
        if not self.is_up or len(data) < 17:
            return
        end = data.index(b"\0", 12) + 5
        is_a = data[end - 4 : end - 2] == b"\0\1"
        counts = b"\0\1" + (b"\0\1" if is_a else b"\0\0") + bytes(4)
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(LOOPBACK)
        reply = data[:2] + b"\x81\x80" + counts + data[12:end]
        self._transport.sendto(reply + (answer if is_a else b""), address)


class Network:
    """All gates, the upstream and the DNS server."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._dns = Dns()

    async def start(
        self, gates: dict[str, int], seed: int, dns: str
    ) -> dict[str, int | str]:
        """Start; *gates* maps names to ports, 0 for the upstream. Returns the ports."""
        loop = asyncio.get_running_loop()
        app = await loop.create_server(App, LOOPBACK, 0, backlog=1024)
        self._app = app
        ports: dict[str, int | str] = {}
        for number, (name, port) in enumerate(gates.items()):
            target = port or app.sockets[0].getsockname()[1]
            gate = self._gates[name] = Gate(target, seed + number)
            ports[name] = await gate.listen()
        with contextlib.suppress(OSError):
            await loop.create_datagram_endpoint(lambda: self._dns, local_addr=(dns, 53))
            ports["dns"] = dns
        return ports

    def handle(
        self,
        gate: str = "",
        mode: str = "pass",
        seconds: float = 0.0,
        size: int = 0,
        dns: bool | None = None,
    ) -> None:
        """Change a gate, or whether the DNS server responds."""
        if dns is not None:
            self._dns.is_up = dns
        if gate:
            self._gates[gate].set(mode, seconds, size)


async def main() -> None:
    """Start with the first command; obey the others until the input ends."""
    network = Network()
    first = json.loads(await asyncio.to_thread(input))
    print(json.dumps(await network.start(**first)), flush=True)
    await serve_commands(network.handle)


if __name__ == "__main__":
    uvloop.run(main())
