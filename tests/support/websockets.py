"""WebSocket frames as bytes, and a server that echoes messages."""

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
    """Return a frame as a client sends it (RFC 6455 §5.2), or a malformed one.

    Args:
        reserved: the three reserved bits.
        size: the length in the frame, by default the payload's.
    """
    length = len(payload) if size is None else size
    first = (0x80 if final else 0) | reserved << 4 | opcode
    bit = 0x80 if masked else 0
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    if not masked:
        return head + payload
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload) ^ int.from_bytes(key)
    return head + MASK + mixed.to_bytes(len(payload))


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """Return a client's Close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(opcode: int, pieces: Iterable[bytes], between: bytes = b"") -> bytes:
    """Return a message in several frames, with control frames *between* them."""
    parts = list(pieces)
    frames = [
        frame(opcode if not i else CONTINUATION, part, final=i == len(parts) - 1)
        for i, part in enumerate(parts)
    ]
    return between.join(frames)


def opening(path: str, host: str, cookie: str = "", **fields: str) -> bytes:
    """Return the opening handshake of a client."""
    lines = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade"}
    lines |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
    lines |= {"Cookie": cookie} if cookie else {}
    lines |= fields
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


class EchoServer:
    """Echoes all messages, in a thread; it listens on ``port``.

    A text message ``close CODE REASON`` makes it send that Close frame instead. The
    `websockets` library validates the frames, one at a time, so the responses do not
    depend on how the received bytes are split.
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
                self._respond()
                await self._send()
                if self._protocol.state is State.OPEN:
                    await self._feed()
            self._respond()
        # Unread bytes would cause a reset, which could discard the sent ones.
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
        """Receive exactly one frame, or its first part if the client disconnects."""
        try:
            start = await self._receive(2)
            size = start[1] & 0x7F
            if size > 125:
                size = int.from_bytes(await self._receive(2 if size == 126 else 8))
            await self._receive(size + (4 if start[1] & 0x80 else 0))
        except asyncio.IncompleteReadError as error:
            self._protocol.receive_data(error.partial)
            self._protocol.receive_eof()

    async def _receive(self, size: int) -> bytes:
        """Return the next *size* bytes; stop reading when the library closes."""
        if self._protocol.state is not State.OPEN:
            return bytes(min(size, 8))
        data = await self._reader.readexactly(size)
        self._protocol.receive_data(data)
        return data

    def _respond(self) -> None:
        """Respond to the received frames."""
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
            elif isinstance(event, Frame):
                self._on_frame(event)

    def _on_frame(self, frame: Frame) -> None:
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
