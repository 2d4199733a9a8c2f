"""A small HTTP/1.1 server for pure handlers, on asyncio and h11.

The handler is a function from a request to a response; it runs on the event loop, one
request after the other. `RunningServer` runs the loop in a thread.
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

from .config import HttpResponse

Handler: TypeAlias = Callable[[bytes, bytes, Headers, bytes], HttpResponse]

MAX_BODY_BYTES = 1 << 20  # bytes
IDLE_TIMEOUT = 60.0  # seconds without a byte from the client
READ_BYTES = 1 << 16  # bytes
BAD_REQUEST: HttpResponse = (400, ((b"content-type", b"text/plain"),), b"bad request\n")
TOO_LARGE: HttpResponse = (
    413,
    ((b"content-type", b"text/plain"),),
    b"body too large\n",
)
INTERNAL_ERROR: HttpResponse = (
    500,
    ((b"content-type", b"text/plain"),),
    b"internal error\n",
)


class Connection:
    """One client connection."""

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
        """Serve requests until the connection closes."""
        while await self._exchange():
            self.h11.start_next_cycle()

    async def _exchange(self) -> bool:
        """Serve one request; False if no other one can follow."""
        try:
            request = await self._next_event()
            if not isinstance(request, h11.Request):
                return False
            status, headers, body = await self._respond(request)
        except h11.RemoteProtocolError:
            await self._send(*BAD_REQUEST, with_body=True)
            return False
        await self._send(status, headers, body, with_body=request.method != b"HEAD")
        return self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE

    async def _respond(self, request: h11.Request) -> HttpResponse:
        body = await self._read_body()
        if body is None:
            return TOO_LARGE
        headers = tuple((bytes(name), bytes(value)) for name, value in request.headers)
        try:
            return self.handler(
                bytes(request.method), bytes(request.target), headers, body
            )
        except Exception as exc:  # noqa: BLE001  # the server keeps running
            asyncio.get_running_loop().call_exception_handler(
                {"message": "request handler failed", "exception": exc}
            )
            return INTERNAL_ERROR

    async def _read_body(self) -> bytes | None:
        """Return the whole body; None if it exceeds `MAX_BODY_BYTES`."""
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if isinstance(event, h11.Data):
                body += event.data
            if len(body) > MAX_BODY_BYTES or isinstance(event, h11.ConnectionClosed):
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
                data = await self.reader.read(READ_BYTES)
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


class ConnectionSet:
    """The open connections of a server."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one client; called by asyncio in a new task."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker
        self._open[task] = writer
        try:
            await Connection(self._handler, reader, writer).run()
        except (OSError, TimeoutError):
            pass  # the client has disconnected or is idle
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            del self._open[task]

    async def abort_all(self) -> None:
        """Abort all connections and wait until their tasks end.

        The tasks are not canceled, which early versions of 3.11 report as an error.
        """
        while self._open:
            for writer in self._open.values():
                writer.transport.abort()
            await asyncio.wait(self._open)


class RunningServer:
    """A server in its own thread; a context manager that stops it.

    Raises `OSError` if the port is taken.
    """

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
        self.port = self._port.result()
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def close(self) -> None:
        """Close the listener, abort all connections, end the thread. Idempotent."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> RunningServer:
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
        except Exception as exc:  # raised in the waiting thread
            if self._port.done():
                raise
            self._port.set_exception(exc)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        handler, host, port, tls = self._listen
        connections = ConnectionSet(handler)
        server = await asyncio.start_server(connections.serve, host, port, ssl=tls)
        self._port.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        await connections.abort_all()
