"""One HTTP/1.1 request that is answered by a task or the forwarder's fast path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic

from authproxy_core.errors import ClientGone, RequestError
from authproxy_core.messages import (
    Decision,
    Event,
    Headers,
    Request,
    Respond,
    upstream_name,
)

from ..contract import Application
from ..http import response_encoder
from ..http.body_decoders import MAX_READ_BYTES, Decoder, create_decoder
from ..http.request_head import RequestHead
from ..http.simple_response import SimpleResponse
from ..http.trailers import forwardable_trailers
from ..logs.formatter import RequestRecord
from ..loop.lazy_event import LazyEvent
from ..net.tunnel import Tunnel, UpgradedConnection
from ..serve.body_reader import read_body
from ..serve.worker_context import WorkerContext
from .client_stream import ClientStream

MAX_DRAIN_BYTES = 64 << 10  # bytes of an unread body that are skipped, not closed on


class RequestBody:
    """The request body of an exchange; implements `contract.BufferedBody`."""

    def __init__(self, stream: ClientStream, head: RequestHead, timeout: float) -> None:
        self.length = head.length
        self.decoder: Decoder = create_decoder(head.length)
        self.incomplete = False  # the rest of it can't be received
        self.malformed = False
        self.response_started = False  # too late for "100 Continue"
        self._decoded = b""  # by `decode_buffered`
        self._framing = 0  # bytes without data that the last `_take` removed
        self._stream = stream
        self._timeout = timeout
        self._owes_continue = head.expects_continue

    @property
    def trailers(self) -> Headers:
        """The forwardable trailers, available after the last chunk."""
        return forwardable_trailers(self.decoder.trailers)

    @property
    def is_buffered(self) -> bool:
        """Return whether the whole body has been received and is small."""
        if self.length == 0:
            return True
        received = len(self._stream.received)
        return (
            self.length is not None
            and self.length <= min(received, MAX_READ_BYTES)
            and not self._owes_continue
        )

    def take_all(self) -> bytes:
        """Return the whole body, which must be buffered."""
        return self._take() if self.length else b""

    @property
    def awaits_continue(self) -> bool:
        """Return whether the client waits for "100 Continue" to send the body."""
        return self._owes_continue

    def decode_buffered(self) -> None:
        """Decode the first bytes of a chunked body before the request is forwarded.

        Raises `RequestError` if they are malformed. Later bytes can still be malformed,
        but the upstream has the head by then.
        """
        if self.length is None:
            self._decoded = self._take()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._decoded:
            data, self._decoded = self._decoded, b""
            yield data
        while not self.decoder.done:
            data = self._take()
            if data:
                yield data
                await self._stream.spend_bytes(len(data), self._framing)
            elif not self.decoder.done:
                await self._wait()

    def _take(self) -> bytes:
        """Return the next decoded bytes; b"" at the end or if more must be received."""
        stream, decoder = self._stream, self.decoder
        if not stream.received:
            chunk = stream.next_chunk()
            data = decoder.pass_through(chunk)
            if data:
                self._framing = 0
                return data
            stream.received += chunk
        try:
            before = len(stream.received)
            data = decoder.take(stream.received)
            while not (data or decoder.done) and (chunk := stream.next_chunk()):
                stream.received += chunk
                before += len(chunk)
                data = decoder.take(stream.received)
            self._framing = before - len(stream.received) - len(data)
        except RequestError:
            self.incomplete = self.malformed = True
            raise
        return data

    async def _wait(self) -> None:
        """Wait for more bytes; raises `ClientGone`."""
        # A client that got the response before "100 Continue" need not send the body.
        more = not (self._owes_continue and self.response_started)
        if more and self._owes_continue:
            self._owes_continue = False
            self._stream.out.write_now(response_encoder.encode_informational(100))
        try:
            more = more and await self._stream.wait_readable(self._timeout)
        except TimeoutError:
            more = False
        if not more:
            self.incomplete = True
            raise ClientGone("client disconnected or stalled during the request body")

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body; see `contract.BodySource.read_all`."""
        try:
            return await read_body(self, limit, self.length, self._timeout)
        except ClientGone:
            self.incomplete = True
            raise

    def unread(self, data: bytes) -> None:
        """Put the whole body back; its size is known now."""
        self._stream.received[:0] = data
        self.length = len(data)
        self.decoder = create_decoder(len(data))


class ClientDisconnect(LazyEvent):
    """Set when the client disconnects; then *watcher* is called once."""

    __slots__ = ("watcher",)

    def __init__(self) -> None:
        super().__init__()
        self.watcher: Callable[[], None] | None = None

    def set(self) -> None:
        """Wake the waiters and call the watcher."""
        super().set()
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher()


class Exchange:
    """A request and its response; implements `contract.FastPathExchange`."""

    def __init__(
        self,
        stream: ClientStream,
        worker: WorkerContext,
        head: RequestHead,
        request: Request,
        application: Application,
        client: str,
        request_started: float,
    ) -> None:
        self.worker = worker
        self.head = head
        self.request = request
        self.application = application
        self.body = RequestBody(stream, head, worker.limits.head_timeout)
        self.started = False
        self.finished = False
        self.disconnected = ClientDisconnect()
        self.forwarded_at = 0.0
        self._tunnel: Tunnel | None = None  # that the connection has become a part of
        self._stream = stream
        self._client = client
        self._request_started = request_started  # monotonic seconds
        self._status = 0
        self._size = 0
        self._remaining: int | None = 0  # bytes of the response body, None if unknown
        self._chunked = False
        # Bytes after a declined Upgrade could be meant for the other protocol.
        self._persists = stream.may_persist(head) and b"upgrade" not in head.fields
        self._upstream_seconds: float | None = None
        worker.metrics.request_started()

    # Streamed responses.

    async def send_informational(self, status: int, headers: Headers) -> None:
        """Send a 1xx response; HTTP/1.0 clients don't know it (RFC 9110 §15.2)."""
        if self.head.minor and not self.started:
            await self._send(response_encoder.encode_informational(status, headers))

    async def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the final head; *length* is the body size in bytes, None if unknown."""
        self._stream.limit_unsent()
        await self._send(self._encode_head(status, headers, length))

    def _encode_head(self, status: int, headers: Headers, length: int | None) -> bytes:
        """Return the final head, which the caller sends immediately."""
        with_body = response_encoder.has_body(status) and self.head.method != b"HEAD"
        self._remaining = length if with_body else 0
        self._chunked = with_body and length is None and self.head.minor == 1
        if with_body and length is None and not self._chunked:
            self._persists = False
        self._mark_started(status)
        return response_encoder.encode_stream_head(
            status,
            headers,
            self.worker.clock.date,
            length=length,
            chunked=self._chunked,
            persistence=self._persistence(),
        )

    def _mark_started(self, status: int) -> None:
        if self._persists and not self._can_persist():
            self._persists = False
        self.started = self.body.response_started = True
        self._status = status
        if self.forwarded_at:
            self._upstream_seconds = monotonic() - self.forwarded_at

    async def write(self, data: bytes) -> None:
        """Send bytes of the body; raises `ClientGone`."""
        if not data:
            return
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                self.abort()
                raise ClientGone("response body exceeds its Content-Length")
        size = len(data)
        self._size += size
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (size, data)
        await self._send(data)
        await self._stream.spend_bytes(size)

    async def finish(self, trailers: Headers = ()) -> None:
        """End the body; *trailers* need the chunked coding (RFC 9112 §7.1.2)."""
        if self._remaining:
            self.abort()
            return
        if self._chunked:
            await self._send(b"0\r\n%b\r\n" % response_encoder.encode_fields(trailers))
        self.finished = True

    async def _send(self, data: bytes) -> None:
        if self._stream.lost:
            raise ClientGone("client disconnected")
        self._stream.out.write_now(data)
        if not await self._stream.wait_writable():
            raise ClientGone("client disconnected")

    def abort(self) -> None:
        """Abort the connection: the client sees an incomplete response."""
        self.disconnected.set()
        self._persists = False
        if not self._stream.lost:
            self._stream.out.abort()

    # Upgrades.

    def switch_protocols(self, headers: Headers) -> UpgradedConnection:
        """Send 101 and detach the connection; raises `ClientGone`."""
        if self._stream.lost:
            raise ClientGone("client disconnected")
        self._stream.out.write_now(response_encoder.encode_switching_protocols(headers))
        self.started = self.finished = True
        self._status, self._persists = 101, False
        return self._stream.detach()

    def attach_tunnel(self, tunnel: Tunnel) -> None:
        """Log the request when *tunnel* closes."""
        self._tunnel = tunnel

    # Complete responses.

    def respond(self, respond: Respond, *, last: bool = False) -> None:
        """Send a complete response; *last* closes the connection after it."""
        if last or not self._can_persist():
            self._persists = False
        data = response_encoder.encode_response(
            respond,
            self.worker.clock.date,
            head_only=self.head.method == b"HEAD",
            persistence=self._persistence(),
        )
        self.started = self.finished = self.body.response_started = True
        self._status, self._size = respond.status, len(respond.body)
        if not self._stream.lost:
            self._stream.out.write(data)

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
        head = self._encode_head(status, headers, length)
        self._size = len(body)
        if self._chunked:
            end = b"0\r\n%b\r\n" % response_encoder.encode_fields(trailers)
            body = b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end
        self.finished = True
        if not self._stream.lost:
            self._stream.out.write(head + body)

    def relay_simple(self, response: SimpleResponse, added: Headers) -> None:
        """Send *response* with the reused fields *added* before its fields."""
        self._mark_started(response.status)
        self._size = len(response.body)
        self.finished = True
        worker = self.worker
        data = response_encoder.encode_relayed(
            response.status,
            worker.field_cache.encoded(added),
            response.fields,
            b"" if response.has_date else worker.clock.date,
            response.body,
            length=response.length,
            persistence=self._persistence(),
        )
        if not self._stream.lost:
            self._stream.out.write(data)

    def _can_persist(self) -> bool:
        """Return whether another request may follow the rest of the body."""
        body = self.body
        if self.worker.stopping or body.incomplete or body.awaits_continue:
            return False
        remaining = body.decoder.remaining()
        return remaining is None or remaining <= MAX_DRAIN_BYTES

    def _persistence(self) -> response_encoder.Persistence:
        if not self._persists:
            return "close"
        return "" if self.head.minor else "keep-alive"

    # The end.

    def end(self, decision: Decision, events: tuple[Event, ...]) -> None:
        """Log the request and release the connection for the next one.

        *events* are those of the decision and of an error page sent instead.
        """
        record = RequestRecord(
            self.head,
            self.request,
            self._client,
            self._status,
            self._size,
            monotonic() - self._request_started,
            decision.user,
            upstream_name(decision),
            decision.verdict,
            decision.reason,
            self._upstream_seconds,
        )
        if self._tunnel is not None:
            # The callback holds only what the log line needs, not the exchange.
            log = partial(
                _record_tunnel,
                self.worker,
                self._tunnel,
                record,
                events,
                self._request_started,
            )
            self._tunnel.add_done_callback(log)
            return
        self.worker.metrics.request_ended()
        self.worker.record_response(record, events)
        if not self.finished:
            self.abort()
        close = not self._persists or not self._can_persist()
        self._stream.exchange_ended(self.body.decoder, close=close)


def _record_tunnel(
    worker: WorkerContext,
    tunnel: Tunnel,
    record: RequestRecord,
    events: tuple[Event, ...],
    request_started: float,
) -> None:
    """Log the request that opened the closed *tunnel*."""
    record.size, record.seconds = tunnel.bytes_to_client, monotonic() - request_started
    worker.metrics.request_ended()
    worker.record_response(record, events)
