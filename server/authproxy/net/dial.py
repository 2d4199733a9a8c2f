"""Outgoing connections by TCP, TLS or unix socket, with back-pressure.

`Stream` replaces asyncio's reader and writer because a pool has to notice at once that
an idle connection was closed or received unexpected bytes, and a relay needs both
back-pressure signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from copy import copy
from typing import Any, Protocol, cast

from ..loop.lazy_event import LazyEvent
from ..loop.receive_buffer import MAX_READ_BYTES, receive_buffer
from .connect import open_socket

# TCP keep-alive, as Go's dialer sets it: seconds until the first probe, between probes,
# and the number of probes. So a peer that vanished ends a stream or tunnel, too.
KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 9}
HANDSHAKE_TIMEOUT = 10.0  # seconds for the TLS handshake; callers may be stricter


class StreamReceiver(Protocol):
    """Receiver of a stream's events, as an alternative to `Stream.read`."""

    def on_data(self, data: bytes) -> None:
        """Handle received bytes."""

    def on_end(self) -> None:
        """Handle the end of the stream; called once."""


class Stream(asyncio.BufferedProtocol):
    """An outgoing connection with back-pressure in both directions.

    It is in its owner's set *streams* while it is open. Received bytes count as unsent
    in the `ReceiveBuffer` until their reader reads again.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_error",
        "_paused",
        "_readable",
        "_size",
        "_streams",
        "_taken",
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
        self.closed = LazyEvent()  # set when the transport is closed
        self.receiver: StreamReceiver | None = None
        self.idle_since = 0.0  # monotonic seconds, set by the pool; 0: never idle
        self.on_closed: Callable[[], None] | None = None
        self._error: Exception | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0  # bytes of all chunks
        self._taken = 0  # bytes that the last `read` returned
        self._buffer = receive_buffer()
        self._paused = False
        self._readable = LazyEvent()
        self._writable = LazyEvent()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._streams.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.view[: self._buffer.read_size]

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer.view[:nbytes])
        if self.receiver is not None:
            self.receiver.on_data(data)
            return
        self._chunks.append(data)
        self._size += nbytes
        self._buffer.unsent += nbytes
        if self._size >= self._buffer.read_size and not self._paused:
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
        """Whether an idle connection can be used for a request.

        Bytes that arrive without a request are not a response, so they end its use.
        """
        return not (self.at_eof or self._chunks or self.transport.is_closing())

    async def read(self, size: int = MAX_READ_BYTES) -> bytes:
        """Return at most *size* bytes as soon as there are any; b"" at the end.

        The caller has sent or dropped the result of the last call. Raises OSError if the
        connection was reset: that must not look like the end of a body.
        """
        self.finish_read()
        await self._readable.wait()
        if not self._chunks:
            if self._error is not None:
                raise copy(self._error)  # a traceback would refer to this stream
            return b""
        data = self._chunks.popleft()
        if len(data) > size:
            self._chunks.appendleft(data[size:])
            data = data[:size]
        self._size -= len(data)
        self._taken = len(data)
        if not self._chunks and not self.at_eof:
            self._readable.clear()
        return data

    def finish_read(self) -> None:
        """Note that the result of the last `read` is sent, and resume reading."""
        self._buffer.unsent -= self._taken
        self._taken = 0
        if self._paused and not self._chunks:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def hold(self, size: int) -> None:
        """Count *size* bytes that its receiver got as the result of a `read`."""
        self._taken += size
        self._buffer.unsent += size

    def write(self, data: bytes) -> None:
        """Queue *data* for sending; errors are reported by `read` and `drain`."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def detach(self) -> bytes:
        """Hand over the transport; return the received bytes that were not read.

        The stream must not be read afterwards.
        """
        early = b"".join(self._chunks)
        self._drop()
        del self._chunks  # an empty deque is more than half of the stream's memory
        return early

    def _drop(self) -> None:
        """Drop the received bytes."""
        if held := self._size + self._taken:
            self._buffer.unsent -= held
            self._size = self._taken = 0
            self._chunks.clear()

    def move(self, streams: set[Stream]) -> None:
        """Change the owner's set to *streams*."""
        if self in self._streams:
            self._streams.remove(self)
            streams.add(self)
        self._streams = streams

    @property
    def is_writable(self) -> bool:
        """Whether the write buffer is below its high-water mark."""
        return self._writable.is_set() and not self.closed.is_set()

    async def drain(self) -> None:
        """Wait until the write buffer is low. Raises OSError if the connection closed."""
        await self._writable.wait()
        if self.closed.is_set():
            error = self._error or ConnectionResetError(
                errno.ECONNRESET, "connection closed"
            )
            raise copy(error)  # as in `read`

    def abort(self) -> None:
        """Close at once without flushing, and drop the received bytes."""
        self._drop()
        if not self.closed.is_set():  # asyncio's transports may fail on a second abort
            self.transport.abort()


async def dial(
    streams: set[Stream],
    host: str,
    port: int,
    context: ssl.SSLContext | None = None,
    name: str = "",
) -> Stream:
    """Connect to *host*; with *context*, by TLS to the server *name* (or *host*).

    Raises OSError; see `describe_error`.
    """
    stream = Stream(streams)
    await _await_connect(stream, _connect(stream, host, port, context, name or host))
    _keep_alive(stream.transport.get_extra_info("socket"))
    return stream


async def _connect(
    stream: Stream, host: str, port: int, context: ssl.SSLContext | None, name: str
) -> None:
    await asyncio.get_running_loop().create_connection(
        lambda: stream,
        sock=await open_socket(host, port),
        ssl=context,
        server_hostname=name if context else None,
        ssl_handshake_timeout=HANDSHAKE_TIMEOUT if context else None,
    )


def _keep_alive(tcp: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the connection was closed meanwhile
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):  # not on each platform
                tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def dial_unix(streams: set[Stream], path: str) -> Stream:
    """Connect to a unix socket. Raises OSError."""
    stream = Stream(streams)
    loop = asyncio.get_running_loop()
    return await _await_connect(
        stream, loop.create_unix_connection(lambda: stream, path)
    )


async def _await_connect(
    stream: Stream, connect: Coroutine[Any, Any, object]
) -> Stream:
    """Return *stream* after *connect*; if that fails, mark the stream as closed.

    If uvloop is cancelled between connecting and returning, it closes the socket
    without a call of ``connection_lost``, and waits for ``closed`` would never end.
    """
    try:
        await connect
    except UnicodeError:  # from the resolver, for a label of more than 63 characters
        stream.connection_lost(None)
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    except BaseException:
        stream.connection_lost(None)
        raise
    return stream


async def close_all(streams: set[Stream]) -> None:
    """Abort all *streams* and wait until their sockets are closed."""
    for stream in list(streams):
        stream.abort()
    for stream in list(streams):
        await stream.closed.wait()


async def start_tls(stream: Stream, context: ssl.SSLContext, name: str) -> None:
    """Start TLS on *stream* (after a proxy's CONNECT). Raises OSError."""
    loop = asyncio.get_running_loop()
    transport = await loop.start_tls(
        stream.transport,
        stream,
        context,
        server_hostname=name,
        ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
    )
    if transport is None:  # asyncio, if the peer closes during the handshake
        raise ConnectionResetError(errno.ECONNRESET, "connection closed")
    stream.transport = transport


def describe_error(error: OSError, where: str) -> str:
    """Return the cause of a failed connection to *where*, in lower case, for logs."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate not trusted: {where}: {error.verify_message.lower()}"
        case ssl.SSLError():
            # The attribute exists only if OpenSSL gave a reason.
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
    """Return the errno, also of asyncio's combined error for several addresses."""
    if error.errno is not None:
        return error.errno
    if isinstance(error, ConnectionError):  # such as an interrupted TLS handshake
        return errno.ECONNRESET
    codes = set(re.findall(r"\[Errno (\d+)\]", str(error)))
    return int(codes.pop()) if len(codes) == 1 else None
