"""One request being answered by a task: its body comes in, the answer goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from authproxy_core.errors import BodyTooLarge, ClientGone, RequestError
from authproxy_core.messages import (
    Decision,
    Event,
    Headers,
    Request,
    Respond,
    upstream_name,
)

from ..http import response_encoder
from ..http.body_decoders import MAX_READ_BYTES, Decoder, decoder_for
from ..http.request_head import RequestHead
from ..http.simple_response import SimpleResponse
from ..http.trailers import forwardable_trailers
from ..logs.formatter import RequestRecord
from ..net.lazy_event import LazyEvent
from ..net.tunnel import Tunnel, UpgradedConnection

if TYPE_CHECKING:
    from ..serve.worker_context import Application, WorkerContext
    from .h1_connection import Connection

MAX_DRAIN_BYTES = 64 << 10  # bytes of an unread body that do not cost the connection


class RequestBody:
    """The body of a request, pulled piece by piece.

    ``length`` is 0 without a body and None for chunks. Raises `ClientGone` when the
    client leaves or stalls, `RequestError` on malformed chunks.
    """

    def __init__(
        self, connection: Connection, head: RequestHead, timeout: float
    ) -> None:
        self.length = head.length
        self.decoder: Decoder = decoder_for(head.length)
        self.broken = False  # the rest of it can't be had
        self.malformed = False
        self._previewed = b""
        self.answered = False  # the answer has begun: it is too late for a 100
        self._connection = connection
        self._timeout = timeout
        self._owes_continue = head.expects

    @property
    def trailers(self) -> Headers:
        """What came behind the chunks and may go on."""
        return forwardable_trailers(self.decoder.trailers)

    @property
    def is_buffered(self) -> bool:
        """Whether all of it, a small one, has been received."""
        if self.length == 0:
            return True
        received = len(self._connection.received)
        return (
            self.length is not None
            and self.length <= min(received, MAX_READ_BYTES)
            and not self._owes_continue
        )

    def take_all(self) -> bytes:
        """All of a body that `is_here`."""
        return self._take() if self.length else b""

    @property
    def awaits_continue(self) -> bool:
        """Whether the client still waits to be told to send the body."""
        return self._owes_continue

    def decode_buffered(self) -> None:
        """Decode what has come of a chunked body, so that nonsense is seen at once.

        Raises `RequestError`. What comes later can still be malformed, but then the
        request is on its way.
        """
        if self.length is None:
            while len(self._previewed) < MAX_READ_BYTES and (piece := self._take()):
                self._previewed += piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._previewed:
            piece, self._previewed = self._previewed, b""
            yield piece
        while not self.decoder.done:
            piece = self._take()
            if piece:
                yield piece
            elif not self.decoder.done:
                await self._more()

    def _take(self) -> bytes:
        """The next piece; b"" when more must be received, or when it is complete."""
        connection, decoder = self._connection, self.decoder
        if not connection.received:
            chunk = connection.next_chunk()
            piece = decoder.passed(chunk)
            if piece:
                return piece
            connection.received += chunk
        try:
            piece = decoder.take(connection.received)
            while not (piece or decoder.done) and (chunk := connection.next_chunk()):
                connection.received += chunk
                piece = decoder.take(connection.received)
        except RequestError:
            self.broken = self.malformed = True
            raise
        return piece

    async def _more(self) -> None:
        # Who has seen the answer before "100 Continue" need not send the body at all.
        there = not (self._owes_continue and self.answered)
        if there and self._owes_continue:
            self._owes_continue = False
            self._connection.out.write_now(response_encoder.informational(100))
        try:
            there = there and await self._connection.wait_readable(self._timeout)
        except TimeoutError:
            there = False
        if not there:
            self.broken = True
            raise ClientGone("the client left before its body had arrived")

    async def read_all(self, limit: int) -> bytes:
        """The whole body; raises `BodyTooLarge` above *limit* bytes.

        The time limit is for all of it: byte by byte it would take for ever.
        """
        if self.length is not None and self.length > limit:
            raise BodyTooLarge(f"the body has {self.length} bytes, allowed: {limit}")
        try:
            async with asyncio.timeout(self._timeout or None):
                return await self._collected(limit)
        except TimeoutError:
            self.broken = True
            raise ClientGone("the body took too long") from None

    def unread(self, data: bytes) -> None:
        """Put the whole body back in front of what follows it; its size is known now."""
        self._connection.received[:0] = data
        self.length = len(data)
        self.decoder = decoder_for(len(data))

    async def _collected(self, limit: int) -> bytes:
        pieces, size = [], 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


class ClientDisconnect(LazyEvent):
    """Set when the client has left; a *watcher* is called then."""

    __slots__ = ("watcher",)

    def __init__(self) -> None:
        super().__init__()
        self.watcher: Callable[[], None] | None = None

    def set(self) -> None:
        """The client has left."""
        super().set()
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher()


class Exchange:
    """One request and its answer on one connection."""

    def __init__(
        self,
        connection: Connection,
        hub: WorkerContext,
        head: RequestHead,
        request: Request,
        application: Application,
        client: str,
        began: float,
    ) -> None:
        self.hub = hub
        self.head = head
        self.request = request
        self.application = application
        self.body = RequestBody(connection, head, hub.limits.head_timeout)
        self.started = False
        self.finished = False
        self._tunnel: Tunnel | None = None  # the connection is a part of it now
        self.gone = ClientDisconnect()
        self._connection = connection
        self._client = client
        self._began = began
        self._status = 0
        self._size = 0
        self._left: int | None = 0
        self._chunked = False
        # What follows a refused Upgrade could be meant for the other protocol.
        self._persists = connection.may_persist(head) and b"upgrade" not in head.fields
        self.forwarded_at = 0.0
        self._upstream_seconds: float | None = None
        hub.metrics.request_started()

    @property
    def decoder(self) -> Decoder:
        """What is left of the request's body."""
        return self.body.decoder

    # The answer, streamed.

    async def send_informational(self, status: int, headers: Headers) -> None:
        """Pass on an interim answer; HTTP/1.0 knows none (RFC 9110 §15.2)."""
        if self.head.minor and not self.started:
            await self._send(response_encoder.informational(status, headers))

    async def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the final head; *length* is the body's size in bytes, None if unknown."""
        await self._send(self._begun(status, headers, length))

    def _begun(self, status: int, headers: Headers, length: int | None) -> bytes:
        """The final head, which is as good as sent."""
        with_body = response_encoder.has_body(status) and self.head.method != b"HEAD"
        self._left = length if with_body else 0
        self._chunked = with_body and length is None and self.head.minor == 1
        if with_body and length is None and not self._chunked:
            self._persists = False
        self._answered(status)
        return response_encoder.encode_stream_head(
            status,
            headers,
            self.hub.clock.date,
            length=length,
            chunked=self._chunked,
            persistence=self._persistence(),
        )

    def _answered(self, status: int) -> None:
        """The final answer has begun."""
        if self._persists and not self._keeps():
            self._persists = False
        self.started = self.body.answered = True
        self._status = status
        if self.forwarded_at:
            self._upstream_seconds = monotonic() - self.forwarded_at

    def relay(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        length: int | None,
        trailers: Headers = (),
    ) -> None:
        """Send an upstream's answer that is whole already: head, body and trailers."""
        head = self._begun(status, headers, length)
        self._size = len(body)
        if self._chunked:
            last = b"0\r\n%b\r\n" % response_encoder.fields(trailers)
            body = b"%x\r\n%b\r\n%b" % (len(body), body, last) if body else last
        self.finished = True
        if not self._connection.lost:
            self._connection.out.write(head + body)

    def relay_plain(self, answer: SimpleResponse, ours: Headers) -> None:
        """Send *answer* with *ours*, fields that come again, before its own."""
        self._answered(answer.status)
        self._size = len(answer.body)
        self.finished = True
        hub = self.hub
        data = response_encoder.encode_relayed(
            answer.status,
            hub.fields.encoded(ours),
            answer.fields,
            b"" if answer.dated else hub.clock.date,
            answer.body,
            length=answer.length,
            persistence=self._persistence(),
        )
        if not self._connection.lost:
            self._connection.out.write(data)

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits for the client, raises `ClientGone`."""
        if not data:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                raise ClientGone("more bytes than announced")
        self._size += len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self._send(data)

    async def finish(self, trailers: Headers = ()) -> None:
        """The body is complete; *trailers* need chunks (RFC 9112 §7.1.2)."""
        if self._left:
            self.abort()
            return
        if self._chunked:
            await self._send(b"0\r\n%b\r\n" % response_encoder.fields(trailers))
        self.finished = True

    def switch(self, headers: Headers) -> UpgradedConnection:
        """Send 101, and give the connection away; raises `ClientGone`."""
        if self._connection.lost:
            raise ClientGone("the client has left")
        self._connection.out.write_now(response_encoder.switching(headers))
        self.started = self.finished = True
        self._status, self._persists = 101, False
        return self._connection.give_away()

    def attach_tunnel(self, tunnel: Tunnel) -> None:
        """After `switch`: the request lasts as long as *tunnel*."""
        self._tunnel = tunnel

    async def _send(self, data: bytes) -> None:
        if self._connection.lost:
            raise ClientGone("the client has left")
        self._connection.out.write_now(data)
        if not await self._connection.wait_writable():
            raise ClientGone("the client has left")

    def abort(self) -> None:
        """Cut the connection: the client sees an incomplete answer."""
        self.gone.set()
        self._persists = False
        if not self._connection.lost:
            self._connection.out.abort()

    # The answer as a whole.

    def respond(self, respond: Respond, *, last: bool = False) -> None:
        """Send a complete answer, the *last* one of the connection if so."""
        if last or not self._keeps():
            self._persists = False
        data = response_encoder.encode_response(
            respond,
            self.hub.clock.date,
            head_only=self.head.method == b"HEAD",
            persistence=self._persistence(),
        )
        self.started = self.finished = self.body.answered = True
        self._status, self._size = respond.status, len(respond.body)
        if not self._connection.lost:
            self._connection.out.write(data)

    def _keeps(self) -> bool:
        """Whether another request may follow: no stop, and the body's rest is small."""
        if self.hub.stopping or self.body.broken or self.body.awaits_continue:
            return False
        remaining = self.decoder.remaining()
        return remaining is None or remaining <= MAX_DRAIN_BYTES

    def _persistence(self) -> response_encoder.Persistence:
        if not self._persists:
            return "close"
        return "" if self.head.minor else "keep-alive"

    def end(self, decision: Decision, events: tuple[Event, ...]) -> None:
        """Write the log lines, and give the connection to the next request.

        *decision* is the core's, *events* are its and those of what was answered
        instead.
        """
        entry = RequestRecord(
            self.head,
            self.request,
            self._client,
            self._status,
            self._size,
            monotonic() - self._began,
            decision.user,
            upstream_name(decision),
            decision.verdict,
            decision.reason,
            self._upstream_seconds,
        )
        if self._tunnel is not None:
            # Nothing of this exchange is kept meanwhile, but what the line tells.
            told = partial(
                _tunnel_ended, self.hub, self._tunnel, entry, events, self._began
            )
            self._tunnel.add_done_callback(told)
            return
        self.hub.metrics.request_ended()
        self.hub.record_response(entry, events)
        if not self.finished:
            self.abort()
        closes = not self._persists or not self._keeps()
        self._connection.exchange_ended(self, close=closes)


def _tunnel_ended(
    hub: WorkerContext,
    tunnel: Tunnel,
    entry: RequestRecord,
    events: tuple[Event, ...],
    began: float,
) -> None:
    """Write the log line of the request that began *tunnel*."""
    entry.size, entry.seconds = tunnel.sent, monotonic() - began
    hub.metrics.request_ended()
    hub.record_response(entry, events)
