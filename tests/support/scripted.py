"""Servers that run a coroutine of the test for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeAlias, TypeVar

import uvloop

T = TypeVar("T")
WATCHDOG = 30.0  # seconds; limit for one test

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(main: Coroutine[Any, Any, T], loop: str = "asyncio") -> T:
    """Run *main* on a new event loop of the kind *loop*, for at most `WATCHDOG`."""

    async def limited() -> T:
        async with asyncio.timeout(WATCHDOG):
            return await main

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(limited())


class Seen(NamedTuple):
    """A received request; field names are lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]] = []  # noqa: RUF012 - a named tuple's default

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of all fields *name*."""
        return [value for field, value in self.headers if field == name]


class Peer:
    """An accepted connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.trailers: list[tuple[bytes, bytes]] = []

    async def head(self) -> Seen:
        """Read the head of the next request."""
        text = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = text[:-4].split(b"\r\n")
        method, target, _ = first.split(b" ")
        pairs = [line.split(b":", 1) for line in lines]
        headers = [(name.lower(), value.strip()) for name, value in pairs]
        return Seen(method, target, headers, b"")

    async def request(self) -> Seen:
        """Read the next request with its body."""
        seen = await self.head()
        if seen.values(b"transfer-encoding"):
            body = await self.chunked()
            return seen._replace(body=body, trailers=self.trailers)
        length = int((seen.values(b"content-length") or [b"0"])[0])
        return seen._replace(body=await self.reader.readexactly(length))

    async def chunked(self) -> bytes:
        """Read a chunked body; ``trailers`` takes its trailers."""
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        self.trailers = []
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.partition(b":")
            self.trailers.append((name.lower(), value.strip()))
        return body

    async def send(self, data: bytes) -> None:
        """Write *data* and wait until the client has read enough."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes = b"", *, status: bytes = b"200 OK", head: bytes = b""
    ) -> None:
        """Send a response with Content-Length; *head* has more lines with CRLF."""
        length = b"content-length: %d\r\n" % len(body)
        await self.send(
            b"HTTP/1.1 " + status + b"\r\n" + length + head + b"\r\n" + body
        )

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script: TypeAlias = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Runs *script* for each connection, then closes it.

    Listens on a free loopback port, or on the Unix socket *path*. Leaving the context
    raises the first error of a script; disconnects of a client are not errors.
    """

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, path: str = ""
    ) -> None:
        self.connections = 0
        self._script = script
        self._tls = tls
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._errors: list[BaseException] = []

    @property
    def port(self) -> int:
        """The port of a TCP server."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> ScriptedServer:
        self._server = await (
            asyncio.start_unix_server(self._accept, self._path)
            if self._path
            else asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.close()
        await self._finish_accepts()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in self._writers:
            # A transport that was closed with bytes to send has no loop left, so
            # aborting it raises AttributeError (CPython).
            with contextlib.suppress(AttributeError):
                writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if self._errors and kind is None:
            raise self._errors[0]

    @staticmethod
    async def _finish_accepts() -> None:
        """Wait for connections that the loop has accepted, or they would leak."""
        await asyncio.sleep(0)
        accepts = [
            task
            for task in asyncio.all_tasks()
            if getattr(task.get_coro(), "__name__", "") == "_accept_connection2"
        ]
        if accepts:
            await asyncio.wait(accepts, timeout=WATCHDOG)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self._writers.append(writer)
        task = asyncio.get_running_loop().create_task(
            self._run_script(Peer(reader, writer))
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_script(self, peer: Peer) -> None:
        try:
            await self._script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            self._errors.append(error)
        finally:
            peer.writer.close()


async def accept_nobody() -> tuple[socket.socket, int]:
    """Return a bound socket that refuses connections, and its port."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound, bound.getsockname()[1]
