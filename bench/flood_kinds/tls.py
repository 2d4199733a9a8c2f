"""Floods of TLS handshakes and records."""

from __future__ import annotations

import asyncio
import ssl

from flood_kinds.http1 import HOST, PING
from flood_kinds.kinds import TLS, Variant, flood
from flood_kinds.link import Link

LIMITED_TLS = Variant(tls=True, own_toml="max_connections = 100\n")


def client_hello() -> bytes:
    """Return a ClientHello."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="app.example.com")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


@flood(variant=TLS, connections=20)
async def tls_silent(link: Link) -> None:
    """Connections to the TLS port that send nothing (20 each)."""
    await link.hold()


@flood(variant=LIMITED_TLS, connections=400, total=400, against=("authproxy",))
async def tls_silent_over_limit(link: Link) -> None:
    """400 silent TLS handshakes in all, over a limit of 200 connections."""
    await link.hold()


@flood(variant=TLS, connections=20)
async def tls_hello_dribble(link: Link) -> None:
    """ClientHellos of one byte per second (20 connections each)."""
    await link.dribble(client_hello())


@flood(variant=TLS, connections=20)
async def tls_hello_only(link: Link) -> None:
    """Handshakes that stop after the ClientHello (20 connections each)."""
    await link.send(client_hello(), requests=1)
    await link.hold()


@flood(variant=TLS, alpn="http/1.1")
async def tls_handshakes(link: Link) -> None:
    """Complete handshakes, closed after one request."""
    await link.response(PING)


@flood(variant=TLS)
async def tls_garbage(link: Link) -> None:
    """Bytes that are no TLS, each on a new connection."""
    await link.send(b"GET / HTTP/1.1\r\n\r\n" * 10, requests=1)
    await link.hold()


@flood(variant=TLS, alpn="http/1.1")
async def tls_one_byte_records(link: Link) -> None:
    """Requests in TLS records of one byte."""
    head = b"GET /ping HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 4000 + b"\r\n\r\n"
    while True:
        for byte in head:
            await link.send(bytes((byte,)), requests=0.1)
            await asyncio.sleep(0)
