"""A server that discards all bytes, and one that responds to auth checks.

    python -m flood_kinds.discard SINK_PORT CHECK_PORT CERTIFICATE KEY

It shows how far the attackers alone slow down a client on this machine. Without
CERTIFICATE and KEY, both ports are without TLS.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

import uvloop

from flood_kinds.link import LOOPBACK

RESPONSE = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


class Check(asyncio.Protocol):
    """Responds to each request with 202."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Respond to each complete head."""
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        self._transport.write(RESPONSE * len(heads))


class Sink(asyncio.Protocol):
    """Discards what it receives; one response per read keeps clients busy."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport: Any = transport
        self._paused = False

    def data_received(self, data: bytes) -> None:
        """Respond once."""
        if not self._paused:
            self._transport.write(RESPONSE)

    def pause_writing(self) -> None:
        """Stop responding to a client that does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """Respond again."""
        self._paused = False


async def serve(sink: int, check: int, tls: ssl.SSLContext | None) -> None:
    """Serve until the process stops."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Sink, LOOPBACK, sink, ssl=tls, backlog=4096)
    server = await loop.create_server(Check, LOOPBACK, check, ssl=tls, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Serve until the process stops."""
    sink, check, *files = sys.argv[1:]
    tls = None
    if files:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*files)
        tls.set_alpn_protocols(["h2", "http/1.1"])
    uvloop.run(serve(int(sink), int(check), tls))


if __name__ == "__main__":
    main()
