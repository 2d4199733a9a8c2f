"""One HTTP/2 request: its body from a stream, its response to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import monotonic
from typing import Protocol, TypeAlias

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
from ..http.body_decoders import MAX_READ_BYTES
from ..http.request_head import RequestHead
from ..http.simple_response import SimpleResponse
from ..http.trailers import forwardable_trailers
from ..http2 import hpack_encoder
from ..http2.streams import Stream
from ..logs.formatter import RequestRecord
from ..net.tunnel import Tunnel, UpgradedConnection
from ..serve.body_reader import read_body
from ..serve.worker_context import WorkerContext
from .h1_exchange import ClientDisconnect

SMALL_BYTES = 4096  # smaller parts of a body are joined when they are received
MAX_JOINED_BYTES = 64 << 10


class FrameSender(Protocol):
    """The connection as its exchanges use it."""

    worker: WorkerContext
    client: str

    def encode_response_head(self, respond: Respond) -> bytes:
        """Return the header block of a complete response; raises ValueError."""

    def send_head(self, stream: OpenStream, block: bytes, *, ends: bool) -> None:
        """Send a head or trailers."""

    def send_data(self, stream: OpenStream, data: bytes, *, ends: bool) -> None:
        """Send body data; the rest that can't be sent yet stays in the stream."""

    def acknowledge(self, stream: OpenStream, count: int) -> None:
        """Extend the window by *count* bytes, which have been taken."""

    def abort_stream(self, stream: OpenStream) -> None:
        """Reset a stream whose response can't be completed."""

    def release(self, exchange: StreamExchange) -> None:
        """Count a request that is served; its response may still be unsent."""


class StreamBody:
    """The request body of a stream; implements `contract.BufferedBody`.

    The window is extended when bytes are taken, not when they are received, so the
    client can't send more than fits into it (flow control, RFC 9113 §5.2).
    """

    def __init__(
        self, connection: FrameSender, stream: OpenStream, head: RequestHead
    ) -> None:
        self.length = head.length
        self.incomplete = False  # the rest of it can't be received
        self.malformed = False
        self.trailers: Headers = ()
        self.response_started = False  # too late for "100 Continue"
        self.ended = head.length == 0  # the client has sent all of it
        self._owes_continue = head.expects_continue
        self._connection = connection
        self._stream = stream
        self._parts: list[bytes | bytearray] = []  # received and not taken
        self._counted = 0  # their bytes of the window
        self._timeout = connection.worker.limits.head_timeout
        self._waiter: asyncio.Future[None] | None = None

    def decode_buffered(self) -> None:
        """Do nothing: the frames have already been checked."""

    @property
    def is_buffered(self) -> bool:
        """Return whether the whole body has been received and is small."""
        return self.ended and self._counted <= MAX_READ_BYTES

    def take_all(self) -> bytes:
        """Return the whole body, which must be buffered."""
        return self._take()

    @property
    def is_awaited(self) -> bool:
        """Return whether the request waits for more of the body."""
        return self._waiter is not None

    def feed(self, data: bytes, counted: int) -> None:
        """Queue received data that used *counted* bytes of the window."""
        self._counted += counted
        parts = self._parts
        if len(data) >= SMALL_BYTES:
            parts.append(data)
        elif (
            parts
            and isinstance(parts[-1], bytearray)
            and len(parts[-1]) < MAX_JOINED_BYTES
        ):
            parts[-1] += data
        else:
            parts.append(bytearray(data))
        self._wake()

    def end(self, trailers: Iterable[Header]) -> None:
        """Mark the body as complete."""
        self.trailers = forwardable_trailers(trailers)
        self.ended = True
        self._wake()

    def abort(self) -> None:
        """Mark the body as incomplete: no more of it will be received."""
        self.incomplete = not self.ended
        self._wake()

    def discard(self) -> None:
        """Discard the queued data and extend the window by its size."""
        self._parts.clear()
        self._acknowledge()

    def _take(self) -> bytes:
        """Return all queued data and extend the window by its size."""
        data = b"".join(self._parts)
        self.discard()
        return data

    def _acknowledge(self) -> None:
        counted, self._counted = self._counted, 0
        if counted:
            self._connection.acknowledge(self._stream, counted)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._parts or not self.ended:
            if self._parts:
                data = self._take()
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
            block = hpack_encoder.encode_status(100)
            self._connection.send_head(self._stream, block, ends=False)
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
            self._parts.insert(0, data)


class StreamExchange:
    """A request and its response; implements `contract.FastPathExchange`."""

    def __init__(
        self,
        connection: FrameSender,
        stream: OpenStream,
        head: RequestHead,
        request: Request,
        application: Application,
        request_started: float,
    ) -> None:
        self.worker = connection.worker
        self.stream = stream
        self.head = head
        self.request = request
        self.application = application
        self.body = StreamBody(connection, stream, head)
        self.started = False
        self.finished = False
        self.disconnected = ClientDisconnect()
        self.forwarded_at = 0.0
        self._connection = connection
        self._request_started = request_started  # monotonic seconds
        self._open = True  # more of the response may be sent
        self._status = 0
        self._size = 0
        self._remaining: int | None = 0  # bytes of the response body, None if unknown
        self._upstream_seconds: float | None = None
        self._failure = ""  # why the client does not get the response
        self._trailers: Headers | None = None  # to send after the unsent data
        self._sent_waiter: asyncio.Future[None] | None = None
        self.worker.metrics.request_started()

    # Called by the connection.

    def on_sent(self) -> None:
        """Continue: no data is unsent."""
        trailers, self._trailers = self._trailers, None
        if trailers is not None:
            self._send_trailers(trailers)
        self._wake()

    def reset(self, reason: str = "client disconnected") -> None:
        """End the response: the stream is closed."""
        self._failure, self._open = reason, False
        self.body.abort()
        self.body.discard()
        self._wake()
        self.disconnected.set()

    @property
    def waits_for_client(self) -> bool:
        """Return whether the client has to send or to read something."""
        return self.body.is_awaited or bool(self.stream.unsent)

    def _wake(self) -> None:
        if self._sent_waiter is not None and not self._sent_waiter.done():
            self._sent_waiter.set_result(None)

    # Streamed responses.

    async def send_informational(self, status: int, headers: Headers) -> None:
        """Send a 1xx response."""
        if self._open and not self.started:
            fields = hpack_encoder.encode_fields(headers)
            block = hpack_encoder.encode_status(status) + fields
            self._connection.send_head(self.stream, block, ends=False)

    async def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the final head; *length* is the body size in bytes, None if unknown."""
        self._check_open()
        may_have_body = response_encoder.has_body(status)
        with_body = may_have_body and self.head.method != b"HEAD"
        self._remaining = length if with_body else 0
        fields = hpack_encoder.encode_fields(headers)
        self._send_head(
            status,
            fields,
            length if may_have_body else None,
            has_date=any(name == b"date" for name, _ in headers),
            ends=self._remaining == 0,
        )

    def _send_head(
        self,
        status: int,
        fields: bytes,
        length: int | None,
        *,
        has_date: bool,
        ends: bool,
    ) -> None:
        if self.forwarded_at:
            self._upstream_seconds = monotonic() - self.forwarded_at
        self.started = self.body.response_started = True
        self._status = status
        date = b"" if has_date else self.worker.clock.date
        block = hpack_encoder.encode_head(status, fields, length, date)
        self._open = not ends
        self._connection.send_head(self.stream, block, ends=ends)

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
        self._send_data(data, ends=ends)
        while self.stream.unsent:
            self._sent_waiter = asyncio.get_running_loop().create_future()
            try:
                await self._sent_waiter
            finally:
                self._sent_waiter = None
        if self._failure:
            raise ClientGone(self._failure)

    def _send_data(self, data: bytes, *, ends: bool) -> None:
        self._open = not ends
        self._connection.send_data(self.stream, data, ends=ends)

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
            self._send_trailers(trailers)
        self.finished = True

    def _send_trailers(self, trailers: Headers) -> None:
        """End the response body, with or without trailers (RFC 9113 §8.1)."""
        block = hpack_encoder.encode_fields(trailers)
        if block:
            self._open = False
            self._connection.send_head(self.stream, block, ends=True)
        else:
            self._send_data(b"", ends=True)

    def _check_open(self) -> None:
        if not self._open:
            raise ClientGone(self._failure or "response is complete")

    def abort(self) -> None:
        """Reset the stream: the client sees an incomplete response."""
        was_open = self._open or bool(self.stream.unsent)
        self._open = False
        self._failure = self._failure or "response aborted"
        self.disconnected.set()
        self.body.abort()
        if was_open:
            self._connection.abort_stream(self.stream)
        self._wake()

    # Complete responses.

    def respond(self, respond: Respond, *, last: bool = False) -> None:
        """Send a complete response; *last* is ignored, other streams go on."""
        status, body = respond.status, respond.body
        block = self._connection.encode_response_head(respond)
        if self.head.method == b"HEAD" or not response_encoder.has_body(status):
            body = b""
        self._size, self._status = len(body), status
        self.started = self.finished = self.body.response_started = True
        if self._open:
            self._open = bool(body)
            self._connection.send_head(self.stream, block, ends=not body)
            if body:
                self._send_data(body, ends=True)

    def relay(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        length: int | None,
        trailers: Headers = (),
    ) -> None:
        """Send a complete upstream response; *length* is its Content-Length."""
        fields = hpack_encoder.encode_fields(headers)
        has_date = any(name == b"date" for name, _ in headers)
        self._relay(status, fields, body, length, trailers, has_date=has_date)

    def relay_simple(self, response: SimpleResponse, added: Headers) -> None:
        """Send *response* with the reused fields *added* before its fields."""
        fields = self.worker.hpack_fields.encoded(added)
        fields += hpack_encoder.translate_fields(response.fields)
        self._relay(
            response.status,
            fields,
            response.body,
            response.length,
            (),
            has_date=response.has_date,
        )

    def _relay(
        self,
        status: int,
        fields: bytes,
        body: bytes,
        length: int | None,
        trailers: Headers,
        *,
        has_date: bool,
    ) -> None:
        self.finished = True
        self._size = len(body)
        if not self._open:
            self._status = status
            return
        if not response_encoder.has_body(status):
            length = None
        ends = not body and not trailers
        self._send_head(status, fields, length, has_date=has_date, ends=ends)
        if body:
            if trailers:
                self._trailers = trailers
            self._send_data(body, ends=not trailers)
        elif trailers:
            self._send_trailers(trailers)

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
        self.body.discard()
        self._connection.release(self)


OpenStream: TypeAlias = Stream[StreamExchange]
