"""A small HTTP/1.1 server for pure handlers, on asyncio and h11.

The handler is an ordinary function from a request to a whole answer; it runs on the
loop, one request after the other. `start` runs the loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeAlias

import h11

from authproxy_core.messages import Headers

from .config import Answer

Handler: TypeAlias = Callable[[bytes, bytes, Headers, bytes], Answer]

BODY_LIMIT = 1 << 20  # bytes
IDLE_TIMEOUT = 60.0  # seconds without a byte from the client
READ_SIZE = 1 << 16  # bytes
BAD_REQUEST: Answer = (400, ((b"content-type", b"text/plain"),), b"bad request\n")
TOO_LARGE: Answer = (413, ((b"content-type", b"text/plain"),), b"body too large\n")
BROKEN: Answer = (500, ((b"content-type", b"text/plain"),), b"internal error\n")


class Connection:
    """One client: requests in, answers out, until either side has enough."""

    def __init__(
        self,
        handler: Handler,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.handler = handler
        self.reader = reader
        self.writer = writer
        self.h11 = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        """Answer requests until the connection ends."""
        while await self._exchange():
            self.h11.start_next_cycle()

    async def _exchange(self) -> bool:
        """One request and its answer; False when the connection is over."""
        try:
            request = await self._next_event()
            if not isinstance(request, h11.Request):
                return False
            status, headers, body = await self._answer(request)
        except h11.RemoteProtocolError:
            await self._send(*BAD_REQUEST, with_body=True)
            return False
        await self._send(status, headers, body, with_body=request.method != b"HEAD")
        return self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE

    async def _answer(self, request: h11.Request) -> Answer:
        body = await self._body()
        if body is None:
            return TOO_LARGE
        headers = tuple((bytes(name), bytes(value)) for name, value in request.headers)
        try:
            return self.handler(
                bytes(request.method), bytes(request.target), headers, body
            )
        except Exception as exc:  # noqa: BLE001  # the border of a connection
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the demonstration's handler failed", "exception": exc}
            )
            return BROKEN

    async def _body(self) -> bytes | None:
        """The whole body, None when it is above the limit."""
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if isinstance(event, h11.Data):
                body += event.data
            if len(body) > BODY_LIMIT or isinstance(event, h11.ConnectionClosed):
                return None

    async def _next_event(self) -> h11.Event:
        while True:
            if self.h11.they_are_waiting_for_100_continue:
                await self._write(
                    h11.InformationalResponse(status_code=100, headers=[])
                )
            event = self.h11.next_event()
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                return h11.ConnectionClosed()
            async with asyncio.timeout(IDLE_TIMEOUT):
                data = await self.reader.read(READ_SIZE)
            self.h11.receive_data(data)

    async def _send(
        self, status: int, headers: Headers, body: bytes, *, with_body: bool
    ) -> None:
        if self.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        length = (b"content-length", str(len(body)).encode())
        reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        await self._write(
            h11.Response(
                status_code=status, headers=[*headers, length], reason=reason.encode()
            ),
            h11.Data(data=body if with_body else b""),
            h11.EndOfMessage(),
        )

    async def _write(self, *events: h11.Event) -> None:
        self.writer.write(b"".join(self.h11.send(event) or b"" for event in events))
        await self.writer.drain()


class Clients:
    """The connections of a server; ends them all when it stops."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one client; called by asyncio in a task of its own."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker
        self._open[task] = writer
        try:
            await Connection(self._handler, reader, writer).run()
        except (OSError, TimeoutError):
            pass  # the client has left, or is silent
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            del self._open[task]

    async def drop(self) -> None:
        """End all connections at once and wait until their tasks have ended.

        They are not cancelled: early versions of 3.11 report that as an error.
        """
        while self._open:
            for writer in self._open.values():
                writer.transport.abort()
            await asyncio.wait(self._open)


class Running:
    """A server in a thread of its own; a context manager that stops it."""

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self._listen = (handler, host, port, tls)
        self._port: Future[int] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.port = self._port.result()  # raises OSError when the port is taken
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def close(self) -> None:
        """Stop listening, drop all connections, end the thread. May be repeated."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has already ended
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as exc:  # handed to the thread that waits
            if self._port.done():
                raise
            self._port.set_exception(exc)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        handler, host, port, tls = self._listen
        clients = Clients(handler)
        server = await asyncio.start_server(clients.serve, host, port, ssl=tls)
        self._port.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        await clients.drop()
