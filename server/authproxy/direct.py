"""The quick way for the usual request: a short one, with a short answer.

The request is small and whole, a connection to the upstream stands unused, and the
answer comes in one piece. Then everything happens where the bytes arrive, without a
task: what the upstream sent is read, written to the client, and both connections are
free again. Whatever is not so is left to `Relay`, which begins with the same bytes.
"""

from __future__ import annotations

from time import monotonic

from authproxy_core.messages import Forward

from .dial import Stream
from .exchange import Exchange
from .field_cache import FieldCache
from .hub import Answering, Carry
from .plain_answer import PlainAnswer, plain_answer
from .pool import Pool
from .relay import Relay, carry, request_head
from .serving import MODULE, UpstreamFailed, serve
from .upstream_answer import AnswerHead, AnswerReader

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


def begin(
    pool: Pool, identities: FieldCache, exchange: Exchange, forward: Forward
) -> bool:
    """Send the request at once if that can be; False leaves it as it was."""
    body = exchange.body
    repeatable = body.length == 0 and forward.method in IDEMPOTENT
    if forward.upgrade or not body.is_here:
        return False
    stream = pool.take(repeatable=repeatable)
    if stream is None:
        return False
    direct = Direct(pool, stream, exchange, forward, repeatable=repeatable)
    direct.send(request_head(forward, body.length, encoded=identities.encoded))
    return True


class Direct:
    """One request on its way over a connection of *pool*."""

    __slots__ = ("_exchange", "_forward", "_pool", "_repeatable", "_stream")

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

    def send(self, head: bytes) -> None:
        """Send the request with this *head*, and wait for what comes back."""
        exchange, stream = self._exchange, self._stream
        stream.listener = self
        exchange.gone.watcher = self.client_left
        exchange.passed_on_at = now = monotonic()
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

    def _plain(self, data: bytes) -> PlainAnswer | None:
        forward = self._forward
        ours = forward.response_headers
        # Cookies of ours would have to come behind the upstream's.
        if not forward.kept or (ours and ours[-1][0] == b"set-cookie"):
            return None
        return plain_answer(data, bodiless=forward.method == b"HEAD")

    def _relay(self, reader: AnswerReader, head: AnswerHead, body: bytes) -> bool:
        """Pass an answer on; whether the connection may be used again."""
        self._exchange.relay(
            head.status,
            self._forward.answer_headers(head.headers),
            body,
            length=head.length,
            trailers=reader.trailers,
        )
        return head.persists and not reader.surplus

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


def _whole(data: bytes, method: bytes) -> tuple[AnswerReader, AnswerHead, bytes] | None:
    """The answer that *data* begins with, if it is whole and final."""
    reader = AnswerReader(method)
    reader.feed(data)
    try:
        head = reader.head()
        body = reader.whole() if head is not None and head.status >= 200 else None
    except UpstreamFailed:
        return None  # found again, and told, by the other way
    return None if head is None or body is None else (reader, head, body)
