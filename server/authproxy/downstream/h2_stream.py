"""One HTTP/2 request: its body from a stream, its response to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Protocol

from authproxy_core.errors import ClientGone
from authproxy_core.messages import (
    Decision,
    Event,
    Header,
    Headers,
    Request,
    Respond,
    upstream_name,
)

from ..contract import Application
from ..http import response_encoder
from ..http.h2_request_head import CONNECTION_FIELDS
from ..http.request_head import RequestHead
from ..logs.formatter import RequestRecord
from ..net.tunnel import Tunnel, UpgradedConnection
from ..serve.body_reader import read_body
from ..serve.worker_context import WorkerContext


class FrameSender(Protocol):
    """The connection as its streams use it; *number* is the stream identifier."""

    worker: WorkerContext
    client: str

    def send_head(
        self, number: int, status: int, fields: Sequence[Header], *, ends: bool = False
    ) -> None:
        """Send a response head; dropped if the stream is closed."""

    def send_data(self, number: int, data: bytes, *, ends: bool) -> None:
        """Send body data that fits into the window."""

    def send_end(self, number: int, trailers: Sequence[Header]) -> None:
        """End the response body, with or without trailers."""

    def window(self, number: int) -> int:
        """Return the number of bytes that the client accepts on the stream."""

    async def wait_for_window(self, number: int) -> int:
        """Return the bytes that may be sent, once there are any; 0 after a disconnect.

        Raises TimeoutError if the client accepts nothing for the write timeout.
        """

    def acknowledge(self, number: int, count: int) -> None:
        """Extend the window by *count* bytes, which have been taken."""

    def reset(self, number: int) -> None:
        """Reset a stream whose response can't be completed."""

    def release(self, exchange: StreamExchange) -> None:
        """Remove a stream whose response is complete or was aborted."""


class StreamBody:
    """The request body of a stream; implements `contract.Body`.

    The window is extended when bytes are taken, not when they are received, so the
    client can't send more than fits into it (flow control, RFC 9113 §5.2).
    """

    def __init__(self, connection: FrameSender, number: int, head: RequestHead) -> None:
        self.length = head.length
        self.incomplete = False  # the rest of it can't be received
        self.malformed = False
        self.trailers: Headers = ()
        self.response_started = False  # too late for "100 Continue"
        self.ended = head.length == 0  # the client has sent all of it
        self._owes_continue = head.expects_continue
        self._connection = connection
        self._number = number
        self._chunks: deque[tuple[bytes, int]] = deque()  # data, bytes of the window
        self._timeout = connection.worker.limits.head_timeout
        self._waiter: asyncio.Future[None] | None = None

    @property
    def _done(self) -> bool:
        """Return whether all of it has been taken."""
        return self.ended and not self._chunks

    def decode_buffered(self) -> None:
        """Do nothing: the `h2` library has already checked the frames."""

    def feed(self, data: bytes, counted: int) -> None:
        """Queue received data that used *counted* bytes of the window."""
        self._chunks.append((data, counted))
        self._wake()

    def end(self) -> None:
        """Mark the body as complete."""
        self.ended = True
        self._wake()

    def abort(self) -> None:
        """Mark the body as incomplete: no more of it will be received."""
        self.incomplete = True
        self._wake()

    def discard(self) -> None:
        """Discard the queued data and extend the window by its size."""
        while self._chunks:
            self._connection.acknowledge(self._number, self._chunks.popleft()[1])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._done:
            if self._chunks:
                data, counted = self._chunks.popleft()
                self._connection.acknowledge(self._number, counted)
                if data:
                    yield data
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Wait for more data; raises `ClientGone`."""
        if self.incomplete or (self._owes_continue and self.response_started):
            self.incomplete = True
            raise ClientGone("client disconnected during the request body")
        if self._owes_continue:
            self._owes_continue = False
            self._connection.send_head(self._number, 100, ())
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout or None):
                await self._waiter
        except TimeoutError:
            self.incomplete = True
            raise ClientGone("client stalled during the request body") from None
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body; see `contract.BodySource.read_all`."""
        try:
            return await read_body(self, limit, self.length, self._timeout)
        except ClientGone:
            self.incomplete = True
            raise

    def unread(self, data: bytes) -> None:
        """Put the whole body back; the window was extended when it was read."""
        self.length = len(data)
        if data:
            self._chunks.appendleft((data, 0))


class StreamExchange:
    """A request and its response; implements `contract.ExchangeProtocol`."""

    def __init__(
        self,
        connection: FrameSender,
        number: int,
        head: RequestHead,
        request: Request,
        application: Application,
        request_started: float,
    ) -> None:
        self.worker = connection.worker
        self.head = head
        self.request = request
        self.application = application
        self.body = StreamBody(connection, number, head)
        self.started = False
        self.finished = False
        self.disconnected = asyncio.Event()
        self.number = number
        self.forwarded_at = 0.0
        self._connection = connection
        self._request_started = request_started  # monotonic seconds
        self._status = 0
        self._size = 0
        self._remaining: int | None = 0  # bytes of the response body, None if unknown
        self._open = True  # END_STREAM has not been sent
        self._upstream_seconds: float | None = None
        self.worker.metrics.request_started()

    # Called by the connection.

    def reset(self) -> None:
        """Handle a canceled stream or a closed connection."""
        self._open = False
        self.disconnected.set()
        self.body.abort()

    # Streamed responses.

    async def send_informational(self, status: int, headers: Headers) -> None:
        """Send a 1xx response, except 101 (RFC 9113 §8.1)."""
        if not self.started and self._open and status != 101:
            self._connection.send_head(self.number, status, _encode_fields(headers))

    async def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the final head; *length* is the body size in bytes, None if unknown."""
        with_body = response_encoder.has_body(status) and self.head.method != b"HEAD"
        self._remaining = length if with_body else 0
        fields = _encode_fields(headers)
        if length is not None and response_encoder.has_body(status):
            fields.append((b"content-length", b"%d" % length))
        self._check_open()
        if self.forwarded_at:
            self._upstream_seconds = monotonic() - self.forwarded_at
        self._send_head(status, fields, ends=self._remaining == 0)

    def _send_head(self, status: int, fields: list[Header], *, ends: bool) -> None:
        if not any(name == b"date" for name, _ in fields):
            fields.append((b"date", self.worker.clock.date[6:-2]))
        self._connection.send_head(self.number, status, fields, ends=ends)
        self.started = self.body.response_started = True
        self._status = status
        if ends:
            self._open = False

    async def write(self, data: bytes) -> None:
        """Send bytes of the body; raises `ClientGone`."""
        if not data:
            return
        self._check_open()
        ends = False
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                self.abort()
                raise ClientGone("response body exceeds its Content-Length")
            # Trailers may follow a body of known length too, if the client wants them.
            ends = self._remaining == 0 and b"trailers" not in self.head.fields.get(
                b"te", b""
            )
        self._size += len(data)
        await self._send(data, ends=ends)

    async def _send(self, data: bytes, *, ends: bool) -> None:
        try:
            while data:
                window = await self._connection.wait_for_window(self.number)
                self._check_open()
                chunk, data = data[:window], data[window:]
                last = ends and not data
                self._connection.send_data(self.number, chunk, ends=last)
                if last:
                    self._open = False
        except TimeoutError:
            self.abort()
            raise ClientGone("client does not read the response") from None

    def switch_protocols(self, headers: Headers) -> UpgradedConnection:
        """Raise `ClientGone`: HTTP/2 has no Upgrade (RFC 9113 §8.6)."""
        raise ClientGone("an HTTP/2 stream can't switch protocols")

    def attach_tunnel(self, tunnel: Tunnel) -> None:
        """Do nothing: a stream never becomes a tunnel."""

    async def finish(self, trailers: Headers = ()) -> None:
        """End the body, with *trailers* unless the stream has already ended."""
        if self._remaining:
            self.abort()
            return
        if self._open:
            self._connection.send_end(self.number, _encode_fields(trailers))
            self._open = False
        self.finished = True

    def _check_open(self) -> None:
        if not self._open:
            raise ClientGone("client disconnected")

    def abort(self) -> None:
        """Reset the stream: the client sees an incomplete response."""
        self.disconnected.set()
        self.body.abort()
        if self._open:
            self._open = False
            self._connection.reset(self.number)

    # Complete responses.

    def respond(self, respond: Respond, *, last: bool = False) -> None:
        """Send a complete response; *last* is ignored, other streams go on."""
        status, body = respond.status, respond.body
        fields = _encode_fields(respond.headers)
        if response_encoder.has_body(status):
            fields.append((b"content-length", b"%d" % len(body)))
        if self.head.method == b"HEAD" or not response_encoder.has_body(status):
            body = b""
        self._size = len(body)
        self.finished = True
        if not self._open:
            self.started, self._status = True, status
            return
        self._send_head(status, fields, ends=not body)
        if body:
            self._send_body(body)

    def _send_body(self, body: bytes) -> None:
        """Send the whole body: immediately if it fits into the window, else by a task."""
        if len(body) <= self._connection.window(self.number):
            self._connection.send_data(self.number, body, ends=True)
            self._open = False
        else:
            self.worker.spawn(self._send_large_body(body))

    async def _send_large_body(self, body: bytes) -> None:
        try:
            await self._send(body, ends=True)
        except ClientGone:
            pass
        finally:
            self._connection.release(self)

    # The end.

    def end(self, decision: Decision, events: tuple[Event, ...]) -> None:
        """Log the request and release the stream."""
        self.worker.metrics.request_ended()
        self.worker.record_response(
            RequestRecord(
                self.head,
                self.request,
                self._connection.client,
                self._status,
                self._size,
                monotonic() - self._request_started,
                decision.user,
                upstream_name(decision),
                decision.verdict,
                decision.reason,
                self._upstream_seconds,
            ),
            events,
        )
        if not self.finished:
            self.abort()
        if not self._open:
            self._connection.release(self)


def _encode_fields(headers: Headers) -> list[Header]:
    """Return the fields of a response without connection-specific ones.

    The last check against response splitting, as in `response_encoder.encode_fields`;
    raises ValueError.
    """
    for name, value in headers:
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise ValueError(f"control character in header field {name.decode()}")
    return [
        (name, value.strip(b" \t"))
        for name, value in headers
        if name not in CONNECTION_FIELDS
    ]
