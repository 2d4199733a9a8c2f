"""WebSocket frames as bytes, and a server that sends messages back."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Iterable
from types import TracebackType

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from support.ports import LOOPBACK

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x9a\x01\xf3\x77"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 §1.3


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    masked: bool = True,
    size: int | None = None,
) -> bytes:
    """One frame as a client sends it (RFC 6455 §5.2), or a wrong one on purpose.

    Args:
        reserved: the three reserved bits.
        size: what the frame says instead of its true size.
    """
    told = len(payload) if size is None else size
    first = (0x80 if final else 0) | reserved << 4 | opcode
    bit = 0x80 if masked else 0
    if told < 126:
        head = struct.pack("!BB", first, bit | told)
    elif told < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, told)
    else:
        head = struct.pack("!BBQ", first, bit | 127, told)
    if not masked:
        return head + payload
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload) ^ int.from_bytes(key)
    return head + MASK + mixed.to_bytes(len(payload))


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A client's Close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(opcode: int, pieces: Iterable[bytes], between: bytes = b"") -> bytes:
    """A message in several frames, with *between* (control frames) between them."""
    parts = list(pieces)
    frames = [
        frame(opcode if not i else CONTINUATION, part, final=i == len(parts) - 1)
        for i, part in enumerate(parts)
    ]
    return between.join(frames)


def opening(path: str, host: str, cookie: str = "", **fields: str) -> bytes:
    """The request that asks for a WebSocket."""
    lines = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade"}
    lines |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
    lines |= {"Cookie": cookie} if cookie else {}
    lines |= fields
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


class EchoServer:
    """Sends every message back, in a thread; ``port`` is where it listens.

    A text message ``close CODE REASON`` is answered with that Close frame instead.
    The frames are judged by the `websockets` library, one at a time: what comes back
    depends on what the client sent alone, never on the pieces in which it arrived.
    """

    def __init__(self) -> None:
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> EchoServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(
            lambda reader, writer: _Echo(reader, writer).run(), LOOPBACK, 0
        )
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()


class _Echo:
    """One connection of the server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = ServerProtocol(max_size=None)
        self._message = b""
        self._is_text = False

    async def run(self) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self._protocol.receive_data(await self._reader.readuntil(b"\r\n\r\n"))
            while self._protocol.state is State.OPEN or self._is_new:
                self._act()
                await self._send()
                if self._protocol.state is State.OPEN:
                    await self._feed()
            self._act()
        # The rest is read, or a reset could overtake what was sent.
        with contextlib.suppress(ConnectionError):
            await self._send()
            if self._writer.can_write_eof():
                self._writer.write_eof()
            while await self._reader.read(1 << 16):
                pass
        self._writer.close()

    @property
    def _is_new(self) -> bool:
        return self._protocol.state is State.CONNECTING

    async def _feed(self) -> None:
        """Take exactly one frame; what there is of it, when the client has left."""
        try:
            start = await self._take_in(2)
            size = start[1] & 0x7F
            if size > 125:
                size = int.from_bytes(await self._take_in(2 if size == 126 else 8))
            await self._take_in(size + (4 if start[1] & 0x80 else 0))
        except asyncio.IncompleteReadError as error:
            self._protocol.receive_data(error.partial)
            self._protocol.receive_eof()

    async def _take_in(self, size: int) -> bytes:
        """The next *size* bytes; not asked for once the library has seen enough."""
        if self._protocol.state is not State.OPEN:
            return bytes(min(size, 8))
        data = await self._reader.readexactly(size)
        self._protocol.receive_data(data)
        return data

    def _act(self) -> None:
        """Answer what the frame meant."""
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
            elif isinstance(event, Frame):
                self._take(event)

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text, self._message = frame.opcode is Opcode.TEXT, b""
        self._message += frame.data
        if not frame.fin:
            return
        if not self._is_text:
            self._protocol.send_binary(self._message)
            return
        try:
            text = self._message.decode()
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA)
            return
        if text.startswith("close "):
            code, _, reason = text.removeprefix("close ").partition(" ")
            self._protocol.send_close(int(code), reason)
        else:
            self._protocol.send_text(self._message)

    async def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
        await self._writer.drain()
