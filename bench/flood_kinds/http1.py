"""Floods of HTTP/1.1: heads, bodies, pipelining, slow clients, connections."""

from __future__ import annotations

import asyncio

from flood_kinds.kinds import PROXIES, Variant, flood
from flood_kinds.link import Link

HOST = b"Host: app.example.com\r\n"
PING = b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n"
UPLOAD = (
    b"POST /public/upload HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
)
FORM = (
    b"POST /oauth2/sign_in HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)
CHUNK = b"1\r\nx\r\n"
AUTH = b"GET /oauth2/auth HTTP/1.1\r\n" + HOST
BLOCK = 16384  # bytes of a write
LIMITED = "max_connections = 100\n"


def repeated(data: bytes, size: int = BLOCK) -> bytes:
    """Return copies of *data*, about *size* bytes."""
    return data * max(1, size // len(data))


@flood(is_reader=False)
async def pipelined_unread(link: Link) -> None:
    """Pipelined requests; the responses are never read."""
    while True:
        await link.send(repeated(PING))


@flood()
async def pipelined(link: Link) -> None:
    """Pipelined requests at speed."""
    while True:
        await link.send(repeated(PING))


@flood()
async def empty_lines(link: Link) -> None:
    """Endless empty lines before a request."""
    while True:
        await link.send(repeated(b"\r\n"))


@flood()
async def one_byte_chunks(link: Link) -> None:
    """A forwarded body in chunks of one byte."""
    await link.send(UPLOAD)
    while True:
        await link.send(repeated(CHUNK))


@flood()
async def chunk_extensions(link: Link) -> None:
    """Chunks of one byte with extensions of 500 bytes."""
    await link.send(UPLOAD)
    while True:
        await link.send(repeated(b"1;" + b"e" * 500 + b"\r\nx\r\n"))


@flood(against=PROXIES)
async def one_byte_form_chunks(link: Link) -> None:
    """A sign-in form in chunks of one byte."""
    await link.send(FORM)
    while True:
        await link.send(repeated(CHUNK))


@flood()
async def one_byte_segments(link: Link) -> None:
    """A request head in segments of one byte at speed."""
    link.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
    head = b"GET /ping HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 4000 + b"\r\n\r\n"
    while True:
        for byte in head:
            await link.send(bytes((byte,)), requests=0.2)
            await asyncio.sleep(0)


@flood(connections=20)
async def slow_heads(link: Link) -> None:
    """Request heads of one byte per second (20 connections each)."""
    await link.send(b"GET /ping HTTP/1.1\r\n" + HOST)
    while True:
        await link.dribble(b"X-Slow: 1\r\n")


@flood(connections=20)
async def slow_bodies(link: Link) -> None:
    """Request bodies of one byte per second (20 connections each)."""
    await link.send(
        b"POST /public/upload HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n"
    )
    while True:
        await link.dribble(b"x")


@flood(connections=5, is_reader=False)
async def slow_readers(link: Link) -> None:
    """Downloads of 50 MB that are not read (5 connections each)."""
    await link.send(b"GET /public/large HTTP/1.1\r\n" + HOST + b"\r\n")
    while True:
        await asyncio.sleep(1)
        await link.send(b"")


@flood(connections=4000, total=4000)
async def idle_connections(link: Link) -> None:
    """4,000 idle connections in all."""
    await link.response(PING)
    await link.hold()


@flood(
    connections=400,
    total=400,
    against=("authproxy",),
    variant=Variant(own_toml=LIMITED),
)
async def connections_over_limit(link: Link) -> None:
    """400 silent connections in all, over a limit of 200."""
    await link.hold()


@flood()
async def reconnects(link: Link) -> None:
    """Connections that are closed after one request."""
    await link.response(PING)


@flood()
async def resets(link: Link) -> None:
    """Connections that are reset in the middle of a response."""
    await link.send(b"GET /public/large HTTP/1.1\r\n" + HOST + b"\r\n", requests=1)
    await asyncio.sleep(0.01)
    link.transport.abort()


@flood()
async def many_cookies(link: Link) -> None:
    """7,000 cookies in one request."""
    cookies = b"; ".join(b"c%d=%d" % (number, number % 10) for number in range(7000))
    head = AUTH + b"Cookie: " + cookies[:60000] + b"\r\n\r\n"
    while True:
        await link.response(head)


@flood(against=PROXIES)
async def session_cookie_parts(link: Link) -> None:
    """Session cookies of ten invalid parts."""
    part = b"A" * 3800
    parts = b"; ".join(b"_oauth2_proxy_%d=" % number + part for number in range(10))
    while True:
        await link.response(AUTH + b"Cookie: " + parts + b"\r\n\r\n")


@flood(against=PROXIES)
async def forged_session_cookies(link: Link) -> None:
    """Session cookies with a changed byte, a different one in each request."""
    number = 0
    while True:
        number += 1
        value = link.cookie[:-12] + b"%012d" % (link.number * 100_000 + number)
        await link.response(AUTH + b"Cookie: " + value + b"\r\n\r\n")


@flood()
async def huge_headers(link: Link) -> None:
    """A header of 60 kB in each request."""
    head = b"GET /ping HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 60000 + b"\r\n\r\n"
    while True:
        await link.response(head)


@flood()
async def endless_header(link: Link) -> None:
    """A header that never ends."""
    await link.send(b"GET /ping HTTP/1.1\r\n" + HOST + b"X: ")
    while True:
        await link.send(b"x" * BLOCK)


@flood()
async def many_headers(link: Link) -> None:
    """190 headers in each request."""
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(190))
    head = b"GET /ping HTTP/1.1\r\n" + HOST + lines + b"\r\n"
    while True:
        await link.response(head)


@flood()
async def long_targets(link: Link) -> None:
    """Request targets of 30 kB with 10,000 parameters."""
    query = b"&".join([b"a="] * 10_000)
    head = b"GET /oauth2/auth?" + query + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    while True:
        await link.response(head)


@flood()
async def bad_requests(link: Link) -> None:
    """Malformed requests, each on a new connection."""
    await link.response(b"GET /\x01 HTTP/9.9\r\n\x00: \r\n\r\n")


@flood()
async def websocket_pings(link: Link) -> None:
    """Pings on a WebSocket, echoed."""
    await link.response(
        b"GET /socket/ HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Cookie: " + link.cookie + b"\r\n\r\n"
    )
    while True:
        await link.send(repeated(b"\x89\x80\x00\x00\x00\x00"))


@flood(is_reader=False)
async def websocket_pings_unread(link: Link) -> None:
    """Pings on a WebSocket; the echo is never read."""
    await link.send(
        b"GET /socket/ HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Cookie: " + link.cookie + b"\r\n\r\n"
    )
    await asyncio.sleep(0.5)
    while True:
        await link.send(repeated(b"\x89\x80\x00\x00\x00\x00"))


@flood(
    port="proxy",
    connections=20,
    against=("authproxy", "nginx"),
    variant=Variant(own_toml='proxy_protocol_from = ["127.0.0.2"]\n'),
)
async def proxy_header_dribble(link: Link) -> None:
    """PROXY protocol headers of one byte per second (20 connections each)."""
    await link.dribble(b"PROXY TCP4 198.51.100.1 198.51.100.2 1000 443\r\n")


@flood(port="metrics", against=PROXIES)
async def metrics_scrapes(link: Link) -> None:
    """Scrapes of the metrics endpoint."""
    while True:
        await link.response(b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n")


@flood(port="metrics", against=PROXIES, is_reader=False)
async def metrics_scrapes_unread(link: Link) -> None:
    """Pipelined scrapes of the metrics endpoint that are never read."""
    while True:
        await link.send(b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n", requests=1)
