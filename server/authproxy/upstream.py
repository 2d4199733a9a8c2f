"""Streams a `Forward` to an HTTP/1.1 upstream and its answer back.

The core gives the whole head; the framing is made here. Both bodies pass in pieces: one
side is only read while the other takes what came. What fails before the answer's head
has gone out is `UpstreamFailed`, after that the client's connection is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from authproxy_core.errors import ClientGone, RequestError
from authproxy_core.headers import HOP_BY_HOP, connection_options
from authproxy_core.messages import Forward, Header, Headers, Upstream, header_values

from .dial import Stream, client_context, close_all, dial, dial_unix
from .exchange import Exchange
from .server_settings import ClientSettings
from .serving import UpstreamFailed

CONNECT_TIMEOUT = 10.0  # seconds
IDLE_TIMEOUT = 60.0  # seconds that an unused connection is kept
POOL_SIZE = 64  # unused connections kept per upstream
HEAD_LIMIT = 256 << 10  # bytes of an answer's head
READ_SIZE = 64 << 10  # bytes
INFORMATIONAL_LIMIT = 16
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
OWN_FIELDS = frozenset({b"content-length", b"expect"})

T = TypeVar("T")


class _Stale(Exception):
    """A pooled connection had ended before it carried anything."""


class _Answer:
    """An upstream's answer as httptools reads it; only the final head counts."""

    def __init__(self, *, head_only: bool) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.head_done = False
        self.done = False
        self.pieces: deque[bytes] = deque()
        self.interim: list[tuple[int, Headers]] = []
        self.length: int | None = None
        self.chunked = False
        self._head_only = head_only
        self._head_bytes = 0
        self._fresh = True
        self._parser = HttpResponseParser(self)

    @property
    def reads_to_end(self) -> bool:
        """Whether only the end of the connection ends the body."""
        return self.length is None and not self.chunked

    def feed(self, data: bytes) -> None:
        """Take what the upstream sent; raises `UpstreamFailed` for nonsense."""
        if not self.head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            raise UpstreamFailed("malformed_answer") from None
        if not self.head_done and self._head_bytes > HEAD_LIMIT:
            raise UpstreamFailed("head_too_large")

    # What llhttp calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101 or len(self.interim) >= INFORMATIONAL_LIMIT:
                raise UpstreamFailed("malformed_answer")
            self.interim.append((status, _end_to_end(self.headers)))
            self.headers = []
            return
        self.status = status
        self._judge_framing()
        self.head_done = True
        if self._head_only or status in (204, 304):
            self.done = True

    def on_body(self, data: bytes) -> None:
        if not self.done:
            self.pieces.append(data)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.done = True

    def _judge_framing(self) -> None:
        """RFC 9112 §6.3: what could be read in two ways is refused."""
        lengths = header_values(self.headers, b"content-length")
        codings = header_values(self.headers, b"transfer-encoding")
        if codings:
            if lengths or [coding.lower() for coding in codings] != [b"chunked"]:
                raise UpstreamFailed("malformed_answer")
            self.chunked = True
        elif lengths:
            if len(lengths) > 1 or not lengths[0].isdigit():
                raise UpstreamFailed("malformed_answer")
            self.length = int(lengths[0])


class Forwarder:
    """Forwards to upstreams; keeps a small pool of connections to each."""

    def __init__(self) -> None:
        self._streams: set[Stream] = set()
        self._idle: dict[Upstream, list[tuple[Stream, float]]] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}

    async def close(self) -> None:
        """Close every connection."""
        self._idle.clear()
        await close_all(self._streams)

    async def forward(self, exchange: Exchange, forward: Forward) -> None:
        """Carry one request; raises `UpstreamFailed` while nothing has been sent."""
        repeatable = forward.method in IDEMPOTENT and exchange.body.length == 0
        if repeatable and (stream := self._pooled(forward.upstream)):
            try:
                await self._carry(exchange, forward, stream)
            except _Stale:
                pass  # it had been closed in the moment of its reuse
            else:
                return
        stream = await self._connect(forward.upstream)
        try:
            await self._carry(exchange, forward, stream)
        except _Stale:
            raise UpstreamFailed("closed_early") from None

    def _pooled(self, upstream: Upstream) -> Stream | None:
        idle = self._idle.get(upstream, [])
        now = asyncio.get_running_loop().time()
        while idle:
            stream, since = idle.pop()
            if stream.fresh and now - since < IDLE_TIMEOUT:
                return stream
            stream.abort()
        return None

    async def _connect(self, upstream: Upstream) -> Stream:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if upstream.unix:
                    return await dial_unix(self._streams, upstream.unix)
                context = None
                if upstream.scheme == "https":
                    context = self._context(verify=upstream.verify)
                return await dial(self._streams, upstream.host, upstream.port, context)
        except TimeoutError:
            raise UpstreamFailed("timeout") from None
        except OSError:
            raise UpstreamFailed("connection_failed") from None

    def _context(self, *, verify: bool) -> ssl.SSLContext:
        if verify not in self._contexts:
            self._contexts[verify] = client_context(ClientSettings(), verify=verify)
        return self._contexts[verify]

    async def _carry(
        self, exchange: Exchange, forward: Forward, stream: Stream
    ) -> None:
        answer = _Answer(head_only=forward.method == b"HEAD")
        stream.write(request_head(forward, exchange.body.length))
        pump = asyncio.ensure_future(_send_body(exchange, stream))
        try:
            await self._answer(exchange, forward, stream, answer, pump)
        except BaseException:
            stream.abort()
            raise
        finally:
            sent = pump.done() and not pump.cancelled() and pump.exception() is None
            if not sent:
                pump.cancel()
                with contextlib.suppress(
                    asyncio.CancelledError, ClientGone, RequestError, OSError
                ):
                    await pump
        self._recycle(forward.upstream, stream, answer, sent=sent)

    def _recycle(
        self, upstream: Upstream, stream: Stream, answer: _Answer, *, sent: bool
    ) -> None:
        idle = self._idle.setdefault(upstream, [])
        closes = b"close" in connection_options(answer.headers)
        framed = not answer.reads_to_end or answer.status in (204, 304)
        if sent and framed and not closes and stream.fresh and len(idle) < POOL_SIZE:
            idle.append((stream, asyncio.get_running_loop().time()))
        else:
            stream.abort()

    async def _answer(
        self,
        exchange: Exchange,
        forward: Forward,
        stream: Stream,
        answer: _Answer,
        pump: asyncio.Future[None],
    ) -> None:
        await self._head(exchange, forward, stream, answer, pump)
        headers = _end_to_end(answer.headers)
        await exchange.start(
            answer.status, (*headers, *forward.response_headers), length=answer.length
        )
        try:
            await _pass_body(exchange, stream, answer, pump)
        except (UpstreamFailed, OSError):
            exchange.abort()
            raise ClientGone("the upstream ended in the middle of its answer") from None
        await exchange.finish()

    async def _head(
        self,
        exchange: Exchange,
        forward: Forward,
        stream: Stream,
        answer: _Answer,
        pump: asyncio.Future[None],
    ) -> None:
        """Read up to the final head; interim answers are passed on."""
        passed = 0
        first = True
        try:
            async with asyncio.timeout(forward.upstream.timeout or None):
                while not answer.head_done:
                    data = await _unless_gone(exchange, pump, stream.read(READ_SIZE))
                    if not data:
                        raise _Stale if first else UpstreamFailed("closed_early")
                    first = False
                    answer.feed(data)
                    for status, headers in answer.interim[passed:]:
                        passed += 1
                        if status != 100:  # ours is sent when the body is read
                            await exchange.inform(status, headers)
        except TimeoutError:
            raise UpstreamFailed("timeout") from None
        except OSError:
            raise (_Stale if first else UpstreamFailed("closed_early")) from None


def request_head(forward: Forward, length: int | None) -> bytes:
    """The head for the upstream, with our framing; *length* None means chunks."""
    lines = [b"%b %b HTTP/1.1\r\n" % (forward.method, forward.target)]
    had_length = False
    for name, value in forward.headers:
        if name in OWN_FIELDS:
            had_length = had_length or name == b"content-length"
        else:
            lines.append(b"%b: %b\r\n" % (name, value))
    if length is None:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif length or had_length:
        lines.append(b"content-length: %d\r\n" % length)
    return b"".join((*lines, b"\r\n"))


async def _send_body(exchange: Exchange, stream: Stream) -> None:
    chunked = exchange.body.length is None
    async for piece in exchange.body:
        stream.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await stream.drain()
    if chunked:
        stream.write(b"0\r\n\r\n")


async def _pass_body(
    exchange: Exchange, stream: Stream, answer: _Answer, pump: asyncio.Future[None]
) -> None:
    while True:
        while answer.pieces:
            await exchange.write(answer.pieces.popleft())
        if answer.done:
            return
        data = await _unless_gone(exchange, pump, stream.read(READ_SIZE))
        if data:
            answer.feed(data)
        elif answer.reads_to_end:
            return
        else:
            raise UpstreamFailed("closed_early")


async def _unless_gone(
    exchange: Exchange, pump: asyncio.Future[None], wish: Coroutine[Any, Any, T]
) -> T:
    """The result of *wish*, unless the client leaves or spoils its body before.

    The upstream would wait in vain for the rest of that body.
    """
    work = asyncio.ensure_future(wish)
    gone = asyncio.ensure_future(exchange.gone.wait())
    try:
        while not work.done():
            _raise_fault(pump)
            waits = [one for one in (work, gone, pump) if not one.done()]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not work.done():
                raise ClientGone("the client has left")
        return work.result()
    finally:
        gone.cancel()
        work.cancel()


def _raise_fault(pump: asyncio.Future[None]) -> None:
    """Raise the client's fault in sending its body; the upstream's shows elsewhere."""
    if pump.done() and isinstance(
        error := pump.exception(), ClientGone | RequestError
    ):
        raise error


def _end_to_end(headers: list[Header]) -> Headers:
    """The fields that are not for this connection alone (RFC 9110 §7.6.1)."""
    dropped = HOP_BY_HOP | connection_options(headers) | {b"content-length"}
    return tuple((name, value) for name, value in headers if name not in dropped)
