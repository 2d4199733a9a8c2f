"""The quick way for the usual request: a short one, with a short answer.

The request is small and whole, a connection to the upstream stands unused, and the
answer comes in one piece. Then everything happens where the bytes arrive, without a
task: what the upstream sent is read, written to the client, and both connections are
free again. Whatever is not so is left to `Relay`, which begins with the same bytes.
"""

from __future__ import annotations

from time import monotonic

from authproxy_core.messages import Forward

from ..downstream.h1_exchange import Exchange
from ..http.simple_response import SimpleResponse, parse_simple_response
from ..http.upstream_response import ResponseHead, ResponseReader, UpstreamError
from ..net.dial import Stream
from ..serve.field_cache import FieldCache
from ..serve.request_task import serve_exchange
from ..serve.worker_context import MODULE, ExchangeProtocol, ForwardHandler
from .pool import ConnectionPool
from .relay import Relay, request_head, run_relay

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


def try_fast_path(
    pool: ConnectionPool, identities: FieldCache, exchange: Exchange, forward: Forward
) -> bool:
    """Send the request at once if that can be; False leaves it as it was."""
    body = exchange.body
    repeatable = body.length == 0 and forward.method in IDEMPOTENT
    if forward.upgrade or not body.is_buffered:
        return False
    stream = pool.take(repeatable=repeatable)
    if stream is None:
        return False
    direct = FastPath(pool, stream, exchange, forward, repeatable=repeatable)
    direct.send(request_head(forward, body.length, encoded=identities.encoded))
    return True


class FastPath:
    """One request on its way over a connection of *pool*."""

    __slots__ = ("_exchange", "_forward", "_pool", "_repeatable", "_stream")

    def __init__(
        self,
        pool: ConnectionPool,
        stream: Stream,
        exchange: Exchange,
        forward: Forward,
        *,
        repeatable: bool,
    ) -> None:
        self._pool = pool
        self._stream = stream
        self._exchange = exchange
        self._forward = forward
        self._repeatable = repeatable

    def send(self, head: bytes) -> None:
        """Send the request with this *head*, and wait for what comes back."""
        exchange, stream = self._exchange, self._stream
        stream.listener = self
        exchange.gone.watcher = self.client_left
        exchange.forwarded_at = now = monotonic()
        exchange.hub.outbox.write(stream.transport, head + exchange.body.take_all())
        self._pool.deadlines.add(self, now)

    def received(self, data: bytes) -> None:
        """The first bytes of the answer: nearly always all of it."""
        self._detach()
        forward, exchange = self._forward, self._exchange
        answer = self._plain(data)
        reader = None if answer else _whole(data, forward.method)
        try:
            if answer is not None:
                exchange.relay_plain(answer, forward.response_headers)
                persists = True
            elif reader is not None:
                persists = self._relay(*reader)
            else:
                self._leave_to(self._relayed(data))
                return
        except Exception as error:
            exchange.hub.logs.exception(MODULE, "an answer failed", error)
            persists = False
            exchange.abort()
        if persists:
            self._pool.put(self._stream)
        else:
            self._stream.abort()
        exchange.end(forward, forward.events)

    def _plain(self, data: bytes) -> SimpleResponse | None:
        forward = self._forward
        ours = forward.response_headers
        # Cookies of ours would have to come behind the upstream's.
        if not forward.reusable or (ours and ours[-1][0] == b"set-cookie"):
            return None
        return parse_simple_response(data, bodiless=forward.method == b"HEAD")

    def _relay(self, reader: ResponseReader, head: ResponseHead, body: bytes) -> bool:
        """Pass an answer on; whether the connection may be used again."""
        self._exchange.relay(
            head.status,
            self._forward.merge_response_headers(head.headers),
            body,
            length=head.length,
            trailers=reader.trailers,
        )
        return head.persists and not reader.trailing_data

    def ended(self) -> None:
        """The connection has ended before anything came."""
        self._detach()
        self._stream.abort()
        self._leave_to(None if self._repeatable else _failing("closed_early"))

    def timed_out(self) -> None:
        """The upstream has taken too long."""
        self._detach()
        self._stream.abort()
        self._leave_to(_failing("timeout"))

    def client_left(self) -> None:
        """There is nobody to answer any more."""
        self._detach()
        self._stream.abort()
        self._exchange.abort()
        self._exchange.end(self._forward, self._forward.events)

    def _detach(self) -> None:
        self._stream.listener = None
        self._exchange.gone.watcher = None
        self._pool.deadlines.discard(self)

    def _leave_to(self, way: ForwardHandler | None) -> None:
        self._exchange.hub.spawn(serve_exchange(self._exchange, self._forward, way))

    def _relayed(self, data: bytes) -> ForwardHandler:
        """Go on in pieces, from *data* on."""

        async def relayed(exchange: ExchangeProtocol, forward: Forward) -> None:
            relay = Relay(exchange, forward, self._stream, begun=data)
            await run_relay(relay, self._pool)

        return relayed


def _failing(reason: str) -> ForwardHandler:
    async def failing(exchange: ExchangeProtocol, forward: Forward) -> None:
        raise UpstreamError(reason)

    return failing


def _whole(
    data: bytes, method: bytes
) -> tuple[ResponseReader, ResponseHead, bytes] | None:
    """The answer that *data* begins with, if it is whole and final."""
    reader = ResponseReader(method)
    reader.feed(data)
    try:
        head = reader.head()
        body = reader.whole() if head is not None and head.status >= 200 else None
    except UpstreamError:
        return None  # found again, and told, by the other way
    return None if head is None or body is None else (reader, head, body)
