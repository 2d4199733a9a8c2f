"""The quick way for the usual request: a short one, with a short answer.

The request is small and whole, a connection to the upstream stands unused, and the
answer comes in one piece. Then everything happens where the bytes arrive, without a
task: what the upstream sent is read, written to the client, and both connections are
free again. Whatever is not so is left to `Relay`, which begins with the same bytes.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from authproxy_core.messages import Forward

from .dial import Stream
from .exchange import Exchange
from .hub import Answering, Carry
from .pool import Pool
from .relay import Relay, carry, request_head
from .serving import MODULE, UpstreamFailed, serve
from .upstream_answer import AnswerReader

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


def begin(pool: Pool, exchange: Exchange, forward: Forward) -> bool:
    """Send the request at once if that can be; False leaves it as it was."""
    body = exchange.body
    repeatable = body.length == 0 and forward.method in IDEMPOTENT
    if forward.upgrade or not body.is_here:
        return False
    stream = pool.take(repeatable=repeatable)
    if stream is None:
        return False
    Direct(pool, stream, exchange, forward, repeatable=repeatable).send()
    return True


class Direct:
    """One request on its way over a connection of *pool*."""

    __slots__ = ("_exchange", "_forward", "_pool", "_repeatable", "_stream", "_timer")

    def __init__(
        self,
        pool: Pool,
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
        self._timer: asyncio.TimerHandle | None = None

    def send(self) -> None:
        """Send the request, and wait for what comes back."""
        forward, exchange, stream = self._forward, self._exchange, self._stream
        head = request_head(forward, exchange.body.length)
        stream.listener = self
        exchange.gone.watcher = self.client_left
        exchange.passed_on_at = monotonic()
        stream.write(head + exchange.body.take_all())
        if forward.upstream.timeout:
            self._timer = asyncio.get_running_loop().call_later(
                forward.upstream.timeout, self.timed_out
            )

    def received(self, data: bytes) -> None:
        """The first bytes of the answer: nearly always all of it."""
        self._detach()
        reader = AnswerReader(self._forward.method)
        reader.feed(data)
        head = body = None
        try:
            head = reader.head()
            body = reader.whole() if head is not None and head.status >= 200 else None
        except UpstreamFailed:
            pass  # found again, and told, by the other way
        if head is None or body is None:
            self._leave_to(self._relayed(data))
            return
        try:
            self._exchange.relay(
                head.status,
                self._forward.answer_headers(head.headers),
                body,
                length=head.length,
                trailers=reader.trailers,
            )
        except Exception as error:
            self._exchange.hub.logs.exception(MODULE, "an answer failed", error)
            self._stream.abort()
            self._exchange.abort()
        else:
            if head.persists and not reader.surplus:
                self._pool.put(self._stream)
            else:
                self._stream.abort()
        self._exchange.end(self._forward, self._forward.events)

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
        if self._timer is not None:
            self._timer.cancel()

    def _leave_to(self, way: Carry | None) -> None:
        self._exchange.hub.spawn(serve(self._exchange, self._forward, way))

    def _relayed(self, data: bytes) -> Carry:
        """Go on in pieces, from *data* on."""

        async def relayed(exchange: Answering, forward: Forward) -> None:
            relay = Relay(exchange, forward, self._stream, begun=data)
            await carry(relay, self._pool)

        return relayed


def _failing(reason: str) -> Carry:
    async def failing(exchange: Answering, forward: Forward) -> None:
        raise UpstreamFailed(reason)

    return failing
