"""Outgoing connections: TCP, TLS and unix sockets as a byte stream with bounds.

`Stream` is a thin asyncio protocol instead of asyncio's reader and writer: a pool must
see at once that an idle connection ended or that bytes came which nobody asked for,
and a relay needs both back-pressure signals.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from .lazy_event import LazyEvent

# Bytes buffered before reading from the socket is paused; uvloop reads 250 kB at once.
READ_HIGH_WATER = 256 << 10
HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS, where the caller has no shorter one


class StreamReceiver(Protocol):
    """Who takes what arrives at once, instead of asking for it."""

    def on_data(self, data: bytes) -> None:
        """Bytes have come."""

    def on_end(self) -> None:
        """No more will come; told once."""


class Stream(asyncio.Protocol):
    """A connection to read from and write to, with back-pressure both ways.

    It is in its owner's set *streams* for as long as it is open.
    """

    __slots__ = (
        "_chunks",
        "_error",
        "_paused",
        "_readable",
        "_size",
        "_streams",
        "_writable",
        "at_eof",
        "closed",
        "idle_since",
        "on_closed",
        "receiver",
        "transport",
    )
    transport: asyncio.Transport

    def __init__(self, streams: set[Stream]) -> None:
        self._streams = streams
        self.at_eof = False  # no more bytes will arrive
        self.closed = LazyEvent()  # the transport is gone
        self.receiver: StreamReceiver | None = None
        self.idle_since = 0.0  # of its pool
        self.on_closed: Callable[[], None] | None = None
        self._error: Exception | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0  # of all chunks
        self._paused = False
        self._readable = LazyEvent()
        self._writable = LazyEvent()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._streams.add(self)

    def data_received(self, data: bytes) -> None:
        if self.receiver is not None:
            self.receiver.on_data(data)
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > READ_HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self._readable.set()

    def eof_received(self) -> None:
        self.at_eof = True
        self._readable.set()
        self._notify_receiver()

    def connection_lost(self, exc: Exception | None) -> None:
        self.at_eof = True
        self._error = self._error or exc
        self._readable.set()
        self._writable.set()
        self.closed.set()
        self._streams.discard(self)
        self._notify_receiver()
        if self.on_closed is not None:
            self.on_closed()

    def _notify_receiver(self) -> None:
        listener, self.receiver = self.receiver, None
        if listener is not None:
            listener.on_end()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def is_reusable(self) -> bool:
        """Whether a pooled connection can still carry a request.

        Bytes that came while nothing was asked are no answer to anything.
        """
        return not (self.at_eof or self._chunks or self.transport.is_closing())

    async def read(self, size: int) -> bytes:
        """At most *size* bytes as soon as there are any; empty at the clean end.

        Raises OSError when the connection broke: a reset is never taken for the end of
        a body.
        """
        await self._readable.wait()
        if not self._chunks:
            if self._error is not None:
                raise self._error
            return b""
        data = self._chunks.popleft()  # as it came: large bodies are not copied here
        if len(data) > size:
            data, rest = data[:size], data[size:]
            self._chunks.appendleft(rest)
        self._size -= len(data)
        if not self._chunks and not self.at_eof:
            self._readable.clear()
        if self._paused and self._size <= READ_HIGH_WATER // 2:
            self._paused = False
            self.transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Send *data* as the peer reads; a broken connection shows in `read`."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def detach(self) -> bytes:
        """Give the transport away; what has been received and not read."""
        early = b"".join(self._chunks)
        del self._chunks  # an empty one is more than half of a waiting tunnel's stream
        return early

    def move(self, streams: set[Stream]) -> None:
        """Let *streams* be its owner's set."""
        if self in self._streams:
            self._streams.remove(self)
            streams.add(self)
        self._streams = streams

    @property
    def is_writable(self) -> bool:
        """Whether the peer takes what is written, so that there is nothing to wait for."""
        return self._writable.is_set() and not self.closed.is_set()

    async def drain(self) -> None:
        """Wait until the write buffer is below its mark; raises OSError when broken."""
        await self._writable.wait()
        if self.closed.is_set():
            raise self._error or ConnectionResetError(
                errno.ECONNRESET, "connection closed"
            )

    def abort(self) -> None:
        """Close without flushing; harmless when already closed."""
        if not self.closed.is_set():  # asyncio's transport can't always take it twice
            self.transport.abort()


async def dial(
    streams: set[Stream],
    host: str,
    port: int,
    context: ssl.SSLContext | None = None,
    name: str = "",
) -> Stream:
    """Connect to *host*, with *context* by TLS as *name*, if it is another.

    Raises OSError; see `failure`.
    """
    stream = Stream(streams)
    wish = asyncio.get_running_loop().create_connection(
        lambda: stream,
        host,
        port,
        ssl=context,
        server_hostname=(name or host) if context else None,
        ssl_handshake_timeout=HANDSHAKE_TIMEOUT if context else None,
    )
    return await _await_connect(stream, wish)


async def dial_unix(streams: set[Stream], path: str) -> Stream:
    """Connect to a unix socket. Raises OSError."""
    stream = Stream(streams)
    loop = asyncio.get_running_loop()
    return await _await_connect(
        stream, loop.create_unix_connection(lambda: stream, path)
    )


async def _await_connect(stream: Stream, wish: Coroutine[Any, Any, object]) -> Stream:
    """*stream* once *wish* has connected it; otherwise it counts as closed.

    Cancelled between connecting and returning, uvloop closes the socket and tells the
    protocol nothing; whoever waits for the stream's end would wait for ever.
    """
    try:
        await wish
    except UnicodeError:  # what the resolver says of a name with too long a label
        stream.connection_lost(None)
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    except BaseException:
        stream.connection_lost(None)
        raise
    return stream


async def close_all(streams: set[Stream]) -> None:
    """Abort every stream of a set and wait until their sockets are closed."""
    for stream in list(streams):
        stream.abort()
    for stream in list(streams):
        await stream.closed.wait()


async def start_tls(stream: Stream, context: ssl.SSLContext, name: str) -> None:
    """Go on by TLS on *stream* (after a proxy's CONNECT). Raises OSError."""
    loop = asyncio.get_running_loop()
    transport = await loop.start_tls(
        stream.transport,
        stream,
        context,
        server_hostname=name,
        ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
    )
    if transport is None:  # asyncio's answer when the peer left during the handshake
        raise ConnectionResetError(errno.ECONNRESET, "connection closed")
    stream.transport = transport


def describe_error(error: OSError, where: str) -> str:
    """One lower-case sentence for what happened to the connection to *where*."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate not trusted: {where}: {error.verify_message.lower()}"
        case ssl.SSLError():
            # The attribute is there only when OpenSSL itself gave a reason.
            reason: str = getattr(error, "reason", None) or "protocol error"
            cause = reason.lower().replace("_", " ")
            return f"tls with {where} failed: {cause}"
        case socket.gaierror():
            return f"name not resolved: {where}"
    match _errno(error):
        case errno.ECONNREFUSED:
            return f"connection refused by {where}"
        case errno.ECONNRESET | errno.EPIPE:
            return f"connection closed by {where}"
        case None:
            return f"connection to {where} failed"
        case code:
            return f"connection to {where} failed: {os.strerror(code).lower()}"


def _errno(error: OSError) -> int | None:
    """The error's number, also of asyncio's summary when several addresses failed."""
    if error.errno is not None:
        return error.errno
    if isinstance(error, ConnectionError):  # "SSL handshake interrupted" and the like
        return errno.ECONNRESET
    codes = set(re.findall(r"\[Errno (\d+)\]", str(error)))
    return int(codes.pop()) if len(codes) == 1 else None
