"""Streams a `Forward` to an HTTP/1.1 upstream and its answer back.

The core gives the whole head; the framing is made here. Both bodies pass in pieces: one
side is only read while the other takes what came. What fails before the answer's head
has gone out is `UpstreamFailed`, after that the client's connection is cut.

An unused connection is kept for a while. Only a request without a body whose method is
idempotent takes one, for only that may be sent again when the upstream had closed the
connection in the moment of its reuse.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING

from authproxy_core.errors import ClientGone
from authproxy_core.headers import HOP_BY_HOP
from authproxy_core.messages import Forward, Upstream

from .dial import Stream, client_context, close_all, dial, dial_unix, failure
from .hub import Answering
from .origin import Origin
from .server_settings import ClientSettings
from .serving import MODULE, UpstreamFailed
from .upstream_answer import AnswerHead, AnswerReader
from .wire import fields

if TYPE_CHECKING:
    from .h2_upstream import H2Upstream
    from .logs import Logs

CONNECT_TIMEOUT = 10.0  # seconds, TLS included
IDLE_TIMEOUT = 60.0  # seconds that an unused connection is kept
POOL_SIZE = 64  # unused connections kept per upstream
READ_SIZE = 64 << 10  # bytes
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
EXPECT_BODY = frozenset(
    {b"POST", b"PUT", b"PATCH"}
)  # RFC 9110 §8.6: say that it's empty
OWN_FIELDS = HOP_BY_HOP | {b"content-length", b"expect"}
START_LINE = re.compile(rb"[A-Z-]+ [!-~]+ HTTP/1\.1\r\n")


class _Stale(Exception):
    """A pooled connection ended before any byte of an answer."""


class _Idle:
    """The unused connections to one upstream, each kept for *timeout* seconds."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._kept: dict[Stream, asyncio.TimerHandle] = {}

    def take(self) -> Stream | None:
        """The one used last that is still alive."""
        while self._kept:
            stream, expiry = self._kept.popitem()
            expiry.cancel()
            if stream.fresh:
                return stream
            stream.abort()
        return None

    def put(self, stream: Stream) -> None:
        """Keep *stream*, or close it when there are enough."""
        if len(self._kept) >= POOL_SIZE:
            stream.abort()
            return
        loop = asyncio.get_running_loop()
        self._kept[stream] = loop.call_later(self._timeout, self._expire, stream)

    def clear(self) -> None:
        """Forget all of them; whoever owns the streams closes them."""
        for expiry in self._kept.values():
            expiry.cancel()
        self._kept.clear()

    def _expire(self, stream: Stream) -> None:
        del self._kept[stream]
        stream.abort()


class Forwarder:
    """Forwards to upstreams; keeps a small pool of connections to each.

    One per worker. Both timeouts are in seconds.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._streams: set[Stream] = set()
        self._idle: dict[Upstream, _Idle] = {}
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._http2: dict[Upstream, H2Upstream] = {}

    async def close(self) -> None:
        """Close every connection."""
        for idle in self._idle.values():
            idle.clear()
        for upstream in self._http2.values():
            await upstream.close()
        await close_all(self._streams)

    async def forward(self, exchange: Answering, forward: Forward) -> None:
        """Carry one request; raises `UpstreamFailed` while nothing has been sent."""
        if forward.upstream.http2:
            await self._over_http2(exchange, forward.upstream).forward(
                exchange, forward
            )
            return
        idle = self._idle.setdefault(forward.upstream, _Idle(self._idle_timeout))
        repeatable = forward.method in IDEMPOTENT and exchange.body.length == 0
        if repeatable and (stream := idle.take()) is not None:
            try:
                await self._carry(_Relay(exchange, forward, stream, reused=True), idle)
            except _Stale:
                pass
            else:
                return
        stream = await self._connect(exchange.hub.logs, forward.upstream)
        await self._carry(_Relay(exchange, forward, stream), idle)

    def _over_http2(self, exchange: Answering, upstream: Upstream) -> H2Upstream:
        found = self._http2.get(upstream)
        if found is None:
            # Loaded when the first request needs it.
            from .h2_upstream import H2Upstream

            logs = exchange.hub.logs
            found = self._http2[upstream] = H2Upstream(
                lambda: self._connect(logs, upstream), upstream.scheme.encode()
            )
        return found

    async def _carry(self, relay: _Relay, idle: _Idle) -> None:
        try:
            await relay.run()
        except BaseException:
            relay.stream.abort()
            raise
        if relay.reusable:
            idle.put(relay.stream)
        else:
            relay.stream.abort()

    async def _connect(self, logs: Logs, upstream: Upstream) -> Stream:
        origin = Origin(upstream.scheme, upstream.host, upstream.port)
        try:
            async with asyncio.timeout(self._connect_timeout) as deadline:
                return await self._dial(upstream)
        except OSError as error:
            text = failure(error, upstream.unix or origin.where)
            if deadline.expired():
                text = f"connecting timed out after {self._connect_timeout:g} s"
            logs.error(MODULE, f"upstream {upstream.id}: {text}")
            reason = "timeout" if deadline.expired() else "connection_failed"
            raise UpstreamFailed(reason) from None

    async def _dial(self, upstream: Upstream) -> Stream:
        if upstream.unix:
            return await dial_unix(self._streams, upstream.unix)
        context = None
        if upstream.scheme == "https":
            context = self._context(verify=upstream.verify, http2=upstream.http2)
        return await dial(self._streams, upstream.host, upstream.port, context)

    def _context(self, *, verify: bool, http2: bool) -> ssl.SSLContext:
        if (verify, http2) not in self._contexts:
            context = client_context(ClientSettings(), verify=verify)
            if http2:
                context.set_alpn_protocols(["h2"])
            self._contexts[verify, http2] = context
        return self._contexts[verify, http2]


class _Relay:
    """One request and its answer over one connection to an upstream.

    A second task sends the body and then watches whether the client stays. What it
    finds wrong is noted as the fault and ends the stream; the reading side raises it.
    """

    def __init__(
        self,
        exchange: Answering,
        forward: Forward,
        stream: Stream,
        *,
        reused: bool = False,
    ) -> None:
        self.stream = stream
        self.reusable = False
        self._exchange = exchange
        self._forward = forward
        self._answer = AnswerReader(forward.method)
        self._untouched = reused  # pooled, and no byte of an answer has come
        self._sent = False
        self._fault: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Send the request, pass the answer on; sets ``reusable``."""
        self.stream.write(request_head(self._forward, self._exchange.body.length))
        sending = asyncio.create_task(self._send())
        try:
            head = await self._final_head()
            self._stop_timer()
            await self._exchange.start(
                head.status,
                (*head.headers, *self._forward.response_headers),
                length=head.length,
            )
            await self._pass_body()
        finally:
            self._stop_timer()
            sending.cancel()
            await asyncio.wait([sending])
        self.reusable = (
            self._sent
            and head.persists
            and self._answer.done
            and not self._answer.surplus
        )

    # The request's side.

    async def _send(self) -> None:
        try:
            await self._send_body()
            await self._exchange.gone.wait()
            self._fail(ClientGone("the client has left"))
        except Exception as error:  # noqa: BLE001 - the reading side raises it
            self._fail(error)

    async def _send_body(self) -> None:
        chunked = self._exchange.body.length is None
        try:
            async for piece in self._exchange.body:
                self.stream.write(
                    b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
                )
                await self._drain()
        except OSError:
            return  # no longer read: an answer may have come already
        if chunked:
            self.stream.write(b"0\r\n\r\n")
        self._sent = True
        if not self._exchange.started and self._forward.upstream.timeout:
            # The upstream's time begins when it has the whole request.
            self._timer = asyncio.get_running_loop().call_later(
                self._forward.upstream.timeout, self._fail, UpstreamFailed("timeout")
            )

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._forward.upstream.timeout or None):
                await self.stream.drain()
        except TimeoutError:
            if not self._exchange.started:
                raise UpstreamFailed("timeout") from None
            raise

    def _fail(self, error: Exception) -> None:
        self._fault = self._fault or error
        self.stream.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # The answer's side.

    async def _final_head(self) -> AnswerHead:
        while True:
            head = self._answer.head()
            if head is None:
                if not await self._more():
                    raise UpstreamFailed("closed_early")
            elif head.status >= 200:
                return head
            elif head.status != 100:  # ours is sent when the body is read
                await self._exchange.inform(head.status, head.headers)

    async def _pass_body(self) -> None:
        try:
            while piece := await self._piece():
                await self._exchange.write(piece)
        except UpstreamFailed as error:
            self._exchange.hub.logs.error(
                MODULE,
                f"upstream {self._forward.upstream.id}: {error.reason} in the middle "
                f"of the answer to request {self._exchange.request.id}",
            )
            raise ClientGone("the answer can't be completed") from None
        await self._exchange.finish()

    async def _piece(self) -> bytes:
        """The next piece of the answer's body, b"" at its end."""
        while True:
            piece = self._answer.piece()
            if piece or self._answer.done:
                return piece
            if not await self._more():
                if self._answer.ends_with_connection:
                    return b""
                raise UpstreamFailed("closed_early")

    async def _more(self) -> bool:
        """Read on; False at the clean end of the connection."""
        try:
            data = await self.stream.read(READ_SIZE)
        except OSError:
            data, broken = b"", True
        else:
            broken = False
        if self._fault is not None:
            raise self._fault
        if not data and self._untouched:
            raise _Stale
        if broken:
            raise UpstreamFailed("closed_early")
        self._untouched = False
        self._answer.feed(data)
        return bool(data)


def request_head(forward: Forward, length: int | None) -> bytes:
    """The head for the upstream, with our framing; *length* None means chunks."""
    line = b"%b %b HTTP/1.1\r\n" % (forward.method, forward.target)
    if not START_LINE.fullmatch(line):  # as in `wire.fields`: the last guard
        raise ValueError("a start line that is none")
    framing = b""
    if length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length or forward.method in EXPECT_BODY:
        framing = b"Content-Length: %d\r\n" % length
    kept = tuple([field for field in forward.headers if field[0] not in OWN_FIELDS])
    return b"".join((line, fields(kept), framing, b"\r\n"))
