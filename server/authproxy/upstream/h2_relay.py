"""Forward requests to an upstream over HTTP/2 (gRPC and others)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from authproxy_core.errors import ClientGone
from authproxy_core.identity.headers import HOP_BY_HOP
from authproxy_core.messages import Forward, Header, Headers, header_values

from ..contract import ExchangeProtocol
from ..http.field_syntax import (
    CONNECTION_FIELDS,
    CONTENT_LENGTH,
    FIELD_VALUE,
    LOWERCASE_NAME,
)
from ..http.trailers import (
    FORBIDDEN_RESPONSE_PREFIXES,
    forwardable_trailers,
    without_protected,
)
from ..http.upstream_response import UpstreamError
from .h2_upstream_connection import UpstreamH2Connection, UpstreamStream
from .relay import IDEMPOTENT, report_aborted

MAX_ATTEMPTS = 3  # for a request that upstreams did not process
CLIENT_DISCONNECTED = "client_gone"  # fault of a stream, never reported as a reason
NOT_FORWARDED = HOP_BY_HOP | CONNECTION_FIELDS | {b"content-length", b"expect", b"host"}
STATUS = re.compile(rb"[1-5][0-9]{2}")


async def forward_over_h2(
    exchange: ExchangeProtocol,
    forward: Forward,
    connect: Callable[[], Awaitable[UpstreamH2Connection]],
) -> None:
    """Forward the request; send it again if the upstream has not processed it.

    *connect* returns a connection on which a stream can be opened, or raises
    `UpstreamError`. That is raised, too, if the upstream fails before the response is
    started.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        relay = _Relay(exchange, forward, await connect())
        try:
            await relay.run()
        except UpstreamError:
            if exchange.started or attempt == MAX_ATTEMPTS or not relay.may_retry:
                raise
        else:
            return


class _Relay:
    """Forwards one request on a stream of *connection*."""

    def __init__(
        self,
        exchange: ExchangeProtocol,
        forward: Forward,
        connection: UpstreamH2Connection,
    ) -> None:
        self.may_retry = False
        self._exchange = exchange
        self._forward = forward
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Send the request and relay the response."""
        length = self._exchange.body.length
        stream = self._connection.open_stream(self._head(length), ends=length == 0)
        watching = asyncio.create_task(self._watch_client(stream))
        if length == 0:
            self._start_timer(stream)
            tasks = [watching]
        else:
            tasks = [watching, asyncio.create_task(self._send_body(stream))]
        try:
            await self._relay_response(stream)
        except UpstreamError as error:
            # RFC 9113 §8.7: the upstream has reported that it did not process it.
            self.may_retry = length == 0 and (
                stream.unprocessed
                or (stream.stale and self._forward.method in IDEMPOTENT)
            )
            if error.reason == CLIENT_DISCONNECTED:
                raise ClientGone("client disconnected") from None
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self._timer is not None:
                self._timer.cancel()
            self._connection.release(stream)

    def _head(self, length: int | None) -> list[Header]:
        forward = self._forward
        fields = [
            (b":method", forward.method),
            (b":scheme", forward.upstream.scheme.encode()),
            (b":path", forward.target),
        ]
        hosts = [value for name, value in forward.headers if name == b"host"]
        fields[2:2] = [(b":authority", host) for host in hosts[:1]]
        fields += [
            (name, value)
            for name, value in forward.headers
            if name not in NOT_FORWARDED
        ]
        if length:
            fields.append((b"content-length", b"%d" % length))
        # RFC 9113 §8.2.2: the only allowed value of TE; gRPC requires it.
        if b"trailers" in self._exchange.head.fields.get(b"te", b""):
            fields.append((b"te", b"trailers"))
        return fields

    # The request.

    async def _watch_client(self, stream: UpstreamStream) -> None:
        await self._exchange.disconnected.wait()
        stream.fail(CLIENT_DISCONNECTED)

    async def _send_body(self, stream: UpstreamStream) -> None:
        body = self._exchange.body
        try:
            async for data in body:
                async with asyncio.timeout(self._forward.upstream.timeout or None):
                    await self._connection.send(stream, data)
        except TimeoutError:
            self._fail_late(stream)
        except OSError:
            pass  # the upstream may have sent its response without reading the body
        except Exception:  # noqa: BLE001 - a client error; the reading side raises it
            stream.fail(CLIENT_DISCONNECTED)
        else:
            trailers = without_protected(
                forwardable_trailers(body.trailers), self._forward.protected
            )
            self._connection.end(stream, trailers)
            self._start_timer(stream)

    def _start_timer(self, stream: UpstreamStream) -> None:
        """Limit the time for the response, now that the request is sent."""
        timeout = self._forward.upstream.timeout
        if timeout and not self._exchange.started:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(timeout, self._on_timeout, stream)

    def _on_timeout(self, stream: UpstreamStream) -> None:
        if not self._exchange.started:
            self._fail_late(stream)

    def _fail_late(self, stream: UpstreamStream) -> None:
        stream.fail("timeout")
        self._connection.note_timeout(stream)

    # The response.

    async def _relay_response(self, stream: UpstreamStream) -> None:
        exchange = self._exchange
        status, headers, length = await self._final_head(stream)
        if exchange.disconnected.is_set():
            raise ClientGone("client disconnected")
        if length is None and stream.has_only_head:
            length = 0  # gRPC recognizes its Trailers-Only responses by END_STREAM
        await exchange.start(
            status, self._forward.merge_response_headers(headers), length=length
        )
        try:
            await self._relay_body(stream)
        except UpstreamError as error:
            if error.reason == CLIENT_DISCONNECTED:
                raise
            raise report_aborted(exchange, self._forward, error) from None
        await exchange.finish(
            forwardable_trailers(stream.trailers, FORBIDDEN_RESPONSE_PREFIXES)
        )

    async def _final_head(
        self, stream: UpstreamStream
    ) -> tuple[int, Headers, int | None]:
        """Relay informational responses; return the final head as `_parse_head` does."""
        while True:
            head = _parse_head(await stream.next_head())
            status, headers, _ = head
            if status >= 200:
                return head
            if status not in (100, 101):
                await self._exchange.send_informational(status, headers)

    async def _relay_body(self, stream: UpstreamStream) -> None:
        while True:
            data, counted = await stream.next_data()
            if not counted and not data:
                return
            await self._exchange.write(data)
            self._connection.acknowledge(stream, counted)


def _parse_head(fields: list[Header]) -> tuple[int, Headers, int | None]:
    """Return status, fields and length of a response; raises `UpstreamError`."""
    named = dict(fields)
    status = named.get(b":status", b"")
    if not STATUS.fullmatch(status):
        raise UpstreamError("malformed_answer")
    kept = []
    for name, value in fields:
        if name[:1] == b":" or name in HOP_BY_HOP or name in CONNECTION_FIELDS:
            continue
        if not LOWERCASE_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
            raise UpstreamError("malformed_answer")
        if name != b"content-length":
            kept.append((name, value))
    lengths = set(header_values(fields, b"content-length"))
    if len(lengths) > 1 or not all(map(CONTENT_LENGTH.fullmatch, lengths)):
        raise UpstreamError("malformed_answer")
    return int(status), tuple(kept), int(lengths.pop()) if lengths else None
