"""One request of an HTTP/2 connection: its body comes in, its answer goes out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from time import monotonic
from typing import TYPE_CHECKING

from authproxy_core.errors import BodyTooLarge, ClientGone
from authproxy_core.messages import (
    Decision,
    Event,
    Header,
    Headers,
    Request,
    Respond,
    upstream_name,
)

from ..http import response_encoder
from ..http.h2_request_head import CONNECTION_FIELDS
from ..http.request_head import RequestHead
from ..logs.formatter import RequestRecord
from ..net.tunnel import Tunnel, UpgradedConnection

if TYPE_CHECKING:
    from ..serve.worker_context import Application, WorkerContext
    from .h2_connection import H2Connection


class StreamBody:
    """The body of a request, pulled piece by piece; as `exchange.RequestBody`.

    The client may send on only what was taken (flow control, RFC 9113 §5.2).
    """

    def __init__(
        self, connection: H2Connection, number: int, head: RequestHead
    ) -> None:
        self.length = head.length
        self.broken = False
        self.malformed = False
        self.trailers: Headers = ()
        self.answered = False
        self.ended = head.length == 0
        self._owes_continue = head.expects
        self._connection = connection
        self._number = number
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._timeout = connection.hub.limits.head_timeout
        self._waiter: asyncio.Future[None] | None = None

    @property
    def awaits_continue(self) -> bool:
        """Whether the client still waits to be told to send the body."""
        return self._owes_continue

    @property
    def done(self) -> bool:
        """Whether all of it has been taken."""
        return self.ended and not self._pieces

    def decode_buffered(self) -> None:
        """Frames have been checked already."""

    def feed(self, data: bytes, counted: int) -> None:
        """Take what has come; *counted* bytes of the window are given back later."""
        self._pieces.append((data, counted))
        self._wake()

    def end(self) -> None:
        """The client has sent all of it."""
        self.ended = True
        self._wake()

    def break_off(self) -> None:
        """There will be no more, and it is not complete."""
        self.broken = True
        self._wake()

    def drop(self) -> None:
        """Give back the window of what nobody will take."""
        while self._pieces:
            self._connection.acknowledge(self._number, self._pieces.popleft()[1])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.done:
            if self._pieces:
                data, counted = self._pieces.popleft()
                self._connection.acknowledge(self._number, counted)
                if data:
                    yield data
            else:
                await self._more()

    async def _more(self) -> None:
        if self.broken or (self._owes_continue and self.answered):
            self.broken = True
            raise ClientGone("the client left before its body had arrived")
        if self._owes_continue:
            self._owes_continue = False
            self._connection.send_head(self._number, 100, ())
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout or None):
                await self._waiter
        except TimeoutError:
            self.broken = True
            raise ClientGone("the body stalled") from None
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read_all(self, limit: int) -> bytes:
        """The whole body; raises `BodyTooLarge` above *limit* bytes."""
        if self.length is not None and self.length > limit:
            raise BodyTooLarge(f"the body has {self.length} bytes, allowed: {limit}")
        try:
            async with asyncio.timeout(self._timeout or None):
                return await self._collected(limit)
        except TimeoutError:
            self.broken = True
            raise ClientGone("the body took too long") from None

    def unread(self, data: bytes) -> None:
        """Put the whole body back; its window was given back when it was read."""
        self.length = len(data)
        if data:
            self._pieces.appendleft((data, 0))

    async def _collected(self, limit: int) -> bytes:
        pieces, size = [], 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


class StreamExchange:
    """A request and its answer on one stream; as `exchange.Exchange`."""

    def __init__(
        self,
        connection: H2Connection,
        number: int,
        head: RequestHead,
        request: Request,
        application: Application,
        began: float,
    ) -> None:
        self.hub: WorkerContext = connection.hub
        self.head = head
        self.request = request
        self.application = application
        self.body = StreamBody(connection, number, head)
        self.started = False
        self.finished = False
        self.gone = asyncio.Event()
        self.number = number
        self._connection = connection
        self._began = began
        self._status = 0
        self._size = 0
        self._left: int | None = 0
        self._open = True  # our side of the stream
        self.forwarded_at = 0.0
        self._upstream_seconds: float | None = None
        self.hub.metrics.request_started()

    # What the connection tells.

    def reset(self) -> None:
        """The client has cancelled the request, or the connection is gone."""
        self._open = False
        self.gone.set()
        self.body.break_off()

    # The answer, streamed.

    async def send_informational(self, status: int, headers: Headers) -> None:
        """Pass on an interim answer; 101 does not exist here (RFC 9113 §8.1)."""
        if not self.started and self._open and status != 101:
            self._connection.send_head(self.number, status, _fields(headers))

    async def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the final head; *length* is the body's size in bytes, None if unknown."""
        with_body = response_encoder.has_body(status) and self.head.method != b"HEAD"
        self._left = length if with_body else 0
        fields = _fields(headers)
        if length is not None and response_encoder.has_body(status):
            fields.append((b"content-length", b"%d" % length))
        self._check_open()
        if self.forwarded_at:
            self._upstream_seconds = monotonic() - self.forwarded_at
        self._send_head(status, fields, ends=self._left == 0)

    def _send_head(self, status: int, fields: list[Header], *, ends: bool) -> None:
        if not any(name == b"date" for name, _ in fields):
            fields.append((b"date", self.hub.clock.date[6:-2]))
        self._connection.send_head(self.number, status, fields, ends=ends)
        self.started = self.body.answered = True
        self._status = status
        if ends:
            self._open = False

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits for the client, raises `ClientGone`."""
        if not data:
            return
        self._check_open()
        ends = False
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                raise ClientGone("more bytes than announced")
            # Trailers may follow a body of known length too; who takes them asks so.
            ends = self._left == 0 and b"trailers" not in self.head.fields.get(
                b"te", b""
            )
        self._size += len(data)
        await self._send(data, ends=ends)

    async def _send(self, data: bytes, *, ends: bool) -> None:
        try:
            while data:
                room = await self._connection.wait_for_window(self)
                self._check_open()
                piece, data = data[:room], data[room:]
                last = ends and not data
                self._connection.send_data(self.number, piece, ends=last)
                if last:
                    self._open = False
        except TimeoutError:
            self.abort()
            raise ClientGone("the client does not read") from None

    def switch(self, headers: Headers) -> UpgradedConnection:
        """HTTP/2 knows no Upgrade (RFC 9113 §8.6), so nobody has asked for it."""
        raise ClientGone("a stream can't change its protocol")

    def attach_tunnel(self, tunnel: Tunnel) -> None:
        """Nothing was switched."""

    async def finish(self, trailers: Headers = ()) -> None:
        """The body is complete; *trailers* follow it if it has not told that it is."""
        if self._left:
            self.abort()
            return
        if self._open:
            self._connection.send_end(self.number, _fields(trailers))
            self._open = False
        self.finished = True

    def _check_open(self) -> None:
        if not self._open:
            raise ClientGone("the client has left")

    def abort(self) -> None:
        """End the stream: the client sees an incomplete answer."""
        self.gone.set()
        self.body.break_off()
        if self._open:
            self._open = False
            self._connection.reset(self.number, failed=True)

    # The answer as a whole.

    def respond(self, respond: Respond, *, last: bool = False) -> None:
        """Send a complete answer; *last* has no meaning for one of many streams."""
        status, body = respond.status, respond.body
        fields = _fields(respond.headers)
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
            self._send_whole(body)

    def _send_whole(self, body: bytes) -> None:
        """Send *body*, at once if the client's windows allow."""
        if len(body) <= self._connection.window(self.number):
            self._connection.send_data(self.number, body, ends=True)
            self._open = False
        else:
            self.hub.spawn(self._send_rest(body))

    async def _send_rest(self, body: bytes) -> None:
        try:
            await self._send(body, ends=True)
        except ClientGone:
            pass
        finally:
            self._connection.release(self)

    def end(self, decision: Decision, events: tuple[Event, ...]) -> None:
        """Write the log lines, and let the stream go."""
        self.hub.metrics.request_ended()
        self.hub.record_response(
            RequestRecord(
                self.head,
                self.request,
                self._connection.client,
                self._status,
                self._size,
                monotonic() - self._began,
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


def _fields(headers: Headers) -> list[Header]:
    """The fields of an answer, less those about a connection.

    The last guard against a split answer, as in `wire.fields`; raises ValueError.
    """
    for name, value in headers:
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise ValueError(f"a line end inside the header field {name.decode()}")
    return [
        (name, value.strip(b" \t"))
        for name, value in headers
        if name not in CONNECTION_FIELDS
    ]
