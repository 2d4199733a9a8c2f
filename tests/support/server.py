"""A server on real sockets, in a thread, with an application for tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import uvloop

from authproxy.downstream.h1_connection import Connection
from authproxy.downstream.h2_connection import H2Connection
from authproxy.logs.logger import Logs
from authproxy.logs.writer import LogWriter
from authproxy.loop.clock import Clock
from authproxy.loop.receive_buffer import ReceiveBuffer, receive_buffer
from authproxy.metrics.families import IN_FLIGHT
from authproxy.metrics.shared_memory import LAYOUT
from authproxy.net.idp_client import HttpClient
from authproxy.serve.performer import Performer
from authproxy.serve.worker_context import WorkerContext
from authproxy.server_settings import (
    ClientSettings,
    ForwardSettings,
    Limits,
    LogSettings,
)
from authproxy.upstream.forwarder import Forwarder
from authproxy_core.effects import Effect, Flow, Outcome
from authproxy_core.messages import Forward, Request, Respond
from authproxy_core.settings.root import Settings
from support.ports import LOOPBACK

DEADLINE = 60.0  # seconds to wait for a response or a condition on a busy machine
TICK = 0.01  # seconds between two checks of the timeouts
Handler = Callable[[Request], Outcome]


def hello(request: Request) -> Outcome:
    """Return a response with method and target as its body."""
    return Respond(
        200, ((b"content-type", b"text/plain"),), request.method + b" " + request.target
    )


@dataclass
class Application:
    """An application that calls *handler* and records the requests."""

    handler: Handler = hello
    requests: list[Request] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lasting: bool = True

    def handle(self, request: Request) -> Outcome:
        """Return the outcome of the handler."""
        self.requests.append(request)
        return self.handler(request)

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Return the value of ``lasting``."""
        yield from ()
        return self.lasting

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """Return a response with the reason as its body."""
        self.failures.append(reason)
        return Respond(504 if reason == "timeout" else 502, (), reason.encode())


class Server:
    """Connections, performer and forwarder on a uvloop in a thread.

    With *http2*, clients start with HTTP/2.
    """

    def __init__(
        self,
        handler: Handler = hello,
        limits: Limits | None = None,
        *,
        http2: bool = False,
        tls: ssl.SSLContext | None = None,
        forward: ForwardSettings | None = None,
    ) -> None:
        self.application = Application(handler)
        self._protocol = H2Connection if http2 else Connection
        self._tls = tls
        self._forward = forward
        self.limits = limits or Limits()
        self.port = 0
        self.context: WorkerContext
        self.received: ReceiveBuffer
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()))
        self._failure: BaseException | None = None

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.call(self._stop.set)
        self._thread.join(DEADLINE)
        self._log.close()
        assert not self._thread.is_alive()
        assert self._failure is None, self._failure
        assert self.received.unsent == 0, "unsent bytes that still count"
        assert self.in_flight() == 0, "requests in flight that never ended"

    def in_flight(self) -> float:
        """Return the number of requests that have not ended."""
        numbers = self.context.metrics.shared.slot(0)
        return numbers[LAYOUT.offset(IN_FLIGHT)]

    def call(self, function: Callable[[], Any]) -> None:
        """Run *function* on the server's event loop."""
        self._loop.call_soon_threadsafe(function)

    def log(self) -> str:
        """Return the log lines written so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    def logged(self, text: str) -> str:
        """Wait until *text* is in the log; return the log."""
        until(lambda: text in self.log(), f"{text!r} in the log")
        return self.log()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._failed)
        self._stop = asyncio.Event()
        self.received = receive_buffer()
        clock, writer = Clock(), LogWriter(self._log.fileno())
        client, forwarder = HttpClient(ClientSettings()), Forwarder(self._forward)
        logs = Logs(LogSettings(), Settings(), clock, writer, writer)
        self.context = WorkerContext(
            self.application,
            Performer(client),
            forwarder,
            logs,
            clock,
            self.limits,
            "x-request-id",
        )
        server = await self._loop.create_server(
            lambda: self._protocol(self.context), LOOPBACK, 0, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._stop.wait()
            clock.tick()
            for connection in list(self.context.connections):
                connection.check_timeouts(clock.now)
        server.close()
        for connection in list(self.context.connections):
            connection.transport.abort()
        for task in self.context.tasks:
            task.cancel()
        while self.context.tasks:
            await asyncio.wait(self.context.tasks)
        await forwarder.close()
        await client.close()
        writer.close()

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Record an error that the event loop reports, such as a failed callback."""
        self._failure = context.get("exception") or RuntimeError(context["message"])


@dataclass
class Answer:
    """A received response."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes
    trailers: dict[str, str] = field(default_factory=dict)


class Wire:
    """A client connection that sends raw bytes and reads responses strictly."""

    def __init__(self, port: int, source: str = LOOPBACK) -> None:
        self.socket = socket.create_connection(
            (LOOPBACK, port), timeout=DEADLINE, source_address=(source, 0)
        )
        self.buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send raw bytes; a closed connection is not an error."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def line(self) -> bytes:
        """Return the next line with its line end."""
        while b"\n" not in self.buffer:
            self._more()
        end = self.buffer.index(b"\n") + 1
        line, self.buffer = self.buffer[:end], self.buffer[end:]
        return line

    def take(self, size: int) -> bytes:
        """Return exactly *size* bytes."""
        while len(self.buffer) < size:
            self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def answer(self, *, head_only: bool = False) -> Answer:
        """Return the next response, which may be informational."""
        lines = [self.line()]
        while lines[-1] != b"\r\n":
            lines.append(self.line())
        assert all(line.endswith(b"\r\n") for line in lines), lines
        status = int(lines[0].split(b" ")[1])
        fields = {}
        for line in lines[1:-1]:
            name, _, value = line.decode("latin-1").partition(":")
            assert name.lower() not in fields or name.lower() == "set-cookie", lines
            fields[name.lower()] = value.strip()
        body = b""
        self._trailers: dict[str, str] = {}
        if not head_only and status >= 200 and status not in (204, 304):
            body = self._body(fields)
        return Answer(status, fields, body, b"".join(lines), self._trailers)

    def _body(self, fields: dict[str, str]) -> bytes:
        if fields.get("transfer-encoding") == "chunked":
            assert "content-length" not in fields
            chunks = []
            while size := int(self.line(), 16):
                chunks.append(self.take(size))
                assert self.take(2) == b"\r\n"
            while (line := self.line()) != b"\r\n":
                name, _, value = line.decode("latin-1").partition(":")
                self._trailers[name.lower()] = value.strip()
            return b"".join(chunks)
        if "content-length" in fields:
            return self.take(int(fields["content-length"]))
        assert fields.get("connection") == "close", fields
        return self.rest()

    def rest(self) -> bytes:
        """Return all bytes until the server closes or resets the connection."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self._more()
        data, self.buffer = self.buffer, b""
        return data

    @property
    def ended(self) -> bool:
        """Whether the server closes the connection without sending more bytes."""
        return self.rest() == b""

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError(f"the server closed; unread: {self.buffer[:200]!r}")
        self.buffer += data


def talk(port: int, data: bytes) -> bytes:
    """Send *data*, half-close, and return all received bytes."""
    with Wire(port) as wire:
        wire.send(data)
        with contextlib.suppress(OSError):
            wire.socket.shutdown(socket.SHUT_WR)
        return wire.rest()


def until(
    condition: Callable[[], object], what: str, seconds: float = DEADLINE
) -> None:
    """Wait until *condition* holds; raises AssertionError after *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.005)


def flow(effect: Effect[Any]) -> Iterator[Any]:
    """Yield one effect and return its result in a response."""
    result = yield effect
    return Respond(200, (), result if isinstance(result, bytes) else b"%r" % (result,))
