"""Forward requests to an upstream over HTTP/2 (gRPC and others)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from authproxy_core.errors import ClientGone
from authproxy_core.identity.headers import HOP_BY_HOP
from authproxy_core.messages import Forward, Header, Headers

from ..contract import ExchangeProtocol
from ..http.field_syntax import FIELD_VALUE, LOWERCASE_NAME
from ..http.h2_request_head import CONNECTION_FIELDS
from ..http.trailers import (
    FORBIDDEN_RESPONSE_PREFIXES,
    forwardable_trailers,
    without_protected,
)
from ..http.upstream_response import UpstreamError
from ..net.dial import Stream
from .h2_upstream_connection import UpstreamH2Connection, UpstreamStream
from .relay import report_aborted

MAX_CONNECTIONS = 16  # to one upstream
CLIENT_DISCONNECTED = "client_gone"  # fault of a stream, never reported as a reason
NOT_FORWARDED = HOP_BY_HOP | CONNECTION_FIELDS | {b"content-length", b"expect", b"host"}
STATUS = re.compile(rb"[1-5][0-9]{2}")
LENGTH = re.compile(rb"[0-9]{1,18}")


class H2Upstream:
    """The HTTP/2 connections to one upstream.

    *dial* returns a connection whose TLS handshake has selected HTTP/2, or raises
    `UpstreamError`.
    """

    def __init__(self, dial: Callable[[], Awaitable[Stream]], scheme: bytes) -> None:
        self._dial = dial
        self._scheme = scheme
        self._connections: list[UpstreamH2Connection] = []
        self._dialing = asyncio.Lock()

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            await connection.close()

    def retire(self) -> None:
        """Close each connection when its last stream ends."""
        for connection in self._connections:
            connection.retire()

    async def forward(self, exchange: ExchangeProtocol, forward: Forward) -> None:
        """Forward the request; retry if the upstream has not processed it.

        Raises `UpstreamError` if the upstream fails before the response is started.
        """
        retryable = exchange.body.length == 0
        relay = _Relay(exchange, forward, await self._connection(), self._scheme)
        try:
            await relay.run()
        except UpstreamError:
            if not (relay.unprocessed and retryable and not exchange.started):
                raise
            # RFC 9113 §8.7: the upstream has reported that it did not process it.
            connection = await self._connection()
            await _Relay(exchange, forward, connection, self._scheme).run()

    async def _connection(self) -> UpstreamH2Connection:
        for connection in self._connections:
            if connection.has_capacity:
                return connection
        async with self._dialing:
            for connection in self._connections:
                if connection.has_capacity:
                    return connection
            self._connections = [c for c in self._connections if not c.is_finished]
            if len(self._connections) >= MAX_CONNECTIONS:
                raise UpstreamError("too_many_requests")
            connection = UpstreamH2Connection(await self._dial())
            self._connections.append(connection)
            return connection


class _Relay:
    """Forwards one request on a stream of *connection*."""

    def __init__(
        self,
        exchange: ExchangeProtocol,
        forward: Forward,
        connection: UpstreamH2Connection,
        scheme: bytes,
    ) -> None:
        self.unprocessed = False
        self._exchange = exchange
        self._forward = forward
        self._connection = connection
        self._scheme = scheme
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Send the request and relay the response."""
        length = self._exchange.body.length
        stream = self._connection.open_stream(self._head(length), ends=length == 0)
        sending = asyncio.create_task(self._send(stream, with_body=length != 0))
        try:
            await self._relay_response(stream)
        except UpstreamError as error:
            self.unprocessed = stream.unprocessed
            if error.reason == CLIENT_DISCONNECTED:
                raise ClientGone("client disconnected") from None
            raise
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            if self._timer is not None:
                self._timer.cancel()
            self._connection.release(stream)

    def _head(self, length: int | None) -> list[Header]:
        forward = self._forward
        fields = [
            (b":method", forward.method),
            (b":scheme", self._scheme),
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

    async def _send(self, stream: UpstreamStream, *, with_body: bool) -> None:
        try:
            if with_body:
                await self._send_body(stream)
            if not self._exchange.started and self._forward.upstream.timeout:
                self._timer = asyncio.get_running_loop().call_later(
                    self._forward.upstream.timeout, self._on_timeout, stream
                )
            await self._exchange.disconnected.wait()
            stream.fail(CLIENT_DISCONNECTED)
        except OSError:
            return  # the upstream may have sent its response without reading the body
        except UpstreamError as error:
            stream.fail(error.reason)
        except Exception:  # noqa: BLE001 - a client error; the reading side raises it
            stream.fail(CLIENT_DISCONNECTED)

    async def _send_body(self, stream: UpstreamStream) -> None:
        body = self._exchange.body
        async for data in body:
            try:
                async with asyncio.timeout(self._forward.upstream.timeout or None):
                    await self._connection.send(stream, data)
            except TimeoutError:
                raise UpstreamError("timeout") from None
        trailers = without_protected(
            forwardable_trailers(body.trailers), self._forward.protected
        )
        self._connection.end(stream, trailers)

    def _on_timeout(self, stream: UpstreamStream) -> None:
        if not self._exchange.started:
            stream.fail("timeout")

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
    length = named.get(b"content-length")
    if length is not None and not LENGTH.fullmatch(length):
        raise UpstreamError("malformed_answer")
    return int(status), tuple(kept), None if length is None else int(length)
