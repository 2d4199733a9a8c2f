"""Fast path: forward a small request and relay its small response without a task.

It is for a request that is completely received, and an idle connection to the upstream.
A response that arrives at once is written to the client where its bytes are received,
and both connections are free again. Any other response is handed over, with the bytes
received so far, to a task that forwards as usual (`Forwarder.forward`).
"""

from __future__ import annotations

from time import monotonic

from authproxy_core.messages import Forward

from ..contract import MODULE, FastPathExchange, SentRequest
from ..http.simple_response import SimpleResponse, parse_simple_response
from ..http.upstream_response import ResponseHead, ResponseReader, UpstreamError
from ..net.dial import Stream
from ..serve.encoding_caches import FieldCache
from ..serve.request_task import serve_exchange
from .pool import UpstreamPool
from .relay import IDEMPOTENT, request_head


def try_fast_path(
    pool: UpstreamPool,
    identity_fields: FieldCache,
    exchange: FastPathExchange,
    forward: Forward,
) -> bool:
    """Send the request immediately; return False, with no effect, if that can't be."""
    body = exchange.body
    if forward.upgrade or not body.is_buffered:
        return False
    retryable = body.length == 0 and forward.method in IDEMPOTENT
    stream = pool.acquire(retryable=retryable)
    if stream is None:
        return False
    fast_path = FastPath(pool, stream, exchange, forward, retryable=retryable)
    fast_path.send(request_head(forward, body.length, encode=identity_fields.encoded))
    return True


class FastPath:
    """One forwarded request, which holds the connection *stream* of *pool*."""

    __slots__ = ("_exchange", "_forward", "_pool", "_retryable", "_stream")

    def __init__(
        self,
        pool: UpstreamPool,
        stream: Stream,
        exchange: FastPathExchange,
        forward: Forward,
        *,
        retryable: bool,
    ) -> None:
        self._pool = pool
        self._stream = stream
        self._exchange = exchange
        self._forward = forward
        self._retryable = retryable

    def send(self, head: bytes) -> None:
        """Send the request with its encoded *head* and wait for the response."""
        exchange, stream = self._exchange, self._stream
        stream.receiver = self
        exchange.disconnected.watcher = self.client_disconnected
        exchange.forwarded_at = now = monotonic()
        exchange.worker.writes.write(stream.transport, head + exchange.body.take_all())
        self._pool.response_timeouts.add(self, now)

    # Exactly one of the following is called.

    def on_data(self, data: bytes) -> None:
        """Relay the response if *data*, the first bytes of it, is all of it."""
        self._detach()
        forward, exchange = self._forward, self._exchange
        simple = self._parse_simple(data)
        parsed = None if simple else _parse_complete(data, forward.method)
        try:
            if simple is not None:
                exchange.relay_simple(simple, forward.response_headers)
                persists = True
            elif parsed is not None:
                persists = self._relay(*parsed)
            else:
                self._hand_over(SentRequest(self._stream, data))
                return
        except Exception as error:
            exchange.worker.logs.exception(
                MODULE, f"request {exchange.request.id} failed", error
            )
            persists = False
            exchange.abort()
        if persists:
            self._pool.release(self._stream)
        else:
            self._stream.abort()
        exchange.end(forward, forward.events)

    def on_end(self) -> None:
        """Retry, or fail: the upstream has closed the connection without a response."""
        self._detach()
        self._stream.abort()
        self._hand_over(
            None if self._retryable else SentRequest(failure="closed_early")
        )

    def on_timeout(self) -> None:
        """Fail: the upstream has not responded within its timeout."""
        self._detach()
        self._stream.abort()
        self._hand_over(SentRequest(failure="timeout"))

    def client_disconnected(self) -> None:
        """Abort: no client waits for the response."""
        self._detach()
        self._stream.abort()
        self._exchange.abort()
        self._exchange.end(self._forward, self._forward.events)

    def _detach(self) -> None:
        self._stream.receiver = None
        self._exchange.disconnected.watcher = None
        self._pool.response_timeouts.discard(self)

    def _hand_over(self, sent: SentRequest | None) -> None:
        """Continue in a task; with None it sends the request again."""
        exchange = self._exchange
        exchange.worker.spawn(serve_exchange(exchange, self._forward, sent))

    def _parse_simple(self, data: bytes) -> SimpleResponse | None:
        forward = self._forward
        added = forward.response_headers
        # Added cookies must follow the upstream's, but other fields precede them.
        if not forward.reusable or (added and added[-1][0] == b"set-cookie"):
            return None
        return parse_simple_response(data, bodiless=forward.method == b"HEAD")

    def _relay(self, reader: ResponseReader, head: ResponseHead, body: bytes) -> bool:
        """Relay a response; return whether the upstream connection is reusable."""
        self._exchange.relay(
            head.status,
            self._forward.merge_response_headers(head.headers),
            body,
            length=head.length,
            trailers=reader.trailers,
        )
        return head.keep_alive and not reader.trailing_data


def _parse_complete(
    data: bytes, method: bytes
) -> tuple[ResponseReader, ResponseHead, bytes] | None:
    """Return the final response in *data*; None if it is incomplete or malformed."""
    reader = ResponseReader(method)
    reader.feed(data)
    try:
        head = reader.read_head()
        body = (
            reader.read_buffered_body()
            if head is not None and head.status >= 200
            else None
        )
    except UpstreamError:
        return None  # the task parses it again, and reports the error
    return None if head is None or body is None else (reader, head, body)
