"""Streams a `Forward` to an upstream that speaks HTTP/2 (gRPC and others)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from authproxy_core.errors import ClientGone
from authproxy_core.identity.headers import HOP_BY_HOP
from authproxy_core.messages import Forward, Header, Headers

from ..http.h2_request_head import CONNECTION_FIELDS
from ..http.trailers import (
    FORBIDDEN_IN_ANSWERS,
    NAME,
    VALUE,
    forwardable_trailers,
    without_protected,
)
from ..http.upstream_response import UpstreamError
from ..net.dial import Stream
from ..serve.worker_context import MODULE, ExchangeProtocol
from .h2_upstream_connection import ClientStream, UpstreamH2Connection

MAX_LINKS = 16  # connections to one upstream
GONE = "client_gone"
OWN_FIELDS = HOP_BY_HOP | CONNECTION_FIELDS | {b"content-length", b"expect", b"host"}
STATUS = re.compile(rb"[1-5][0-9]{2}")
LENGTH = re.compile(rb"[0-9]{1,18}")


class H2Upstream:
    """The connections to one upstream; *dial* makes one that has agreed on h2.

    *dial* raises `UpstreamFailed`.
    """

    def __init__(self, dial: Callable[[], Awaitable[Stream]], scheme: bytes) -> None:
        self._dial = dial
        self._scheme = scheme
        self._links: list[UpstreamH2Connection] = []
        self._dialing = asyncio.Lock()

    async def close(self) -> None:
        """Close every connection."""
        for link in self._links:
            await link.close()

    def retire(self) -> None:
        """Close every connection as soon as nothing is under way on it."""
        for link in self._links:
            link.retire()

    async def forward(self, exchange: ExchangeProtocol, forward: Forward) -> None:
        """Carry one request; raises `UpstreamFailed` while nothing has been sent."""
        repeatable = exchange.body.length == 0
        link = await self._link()
        relay = _Relay(exchange, forward, link, self._scheme)
        try:
            await relay.run()
        except UpstreamError:
            if not (relay.unseen and repeatable and not exchange.started):
                raise
            # RFC 9113 §8.7: the upstream has said that it did not look at it.
            await _Relay(exchange, forward, await self._link(), self._scheme).run()

    async def _link(self) -> UpstreamH2Connection:
        for link in self._links:
            if link.takes_calls:
                return link
        async with self._dialing:
            for link in self._links:
                if link.takes_calls:
                    return link
            self._links = [one for one in self._links if not one.over]
            if len(self._links) >= MAX_LINKS:
                raise UpstreamError("too_many_requests")
            made = UpstreamH2Connection(await self._dial())
            self._links.append(made)
            return made


class _Relay:
    """One request and its answer."""

    def __init__(
        self,
        exchange: ExchangeProtocol,
        forward: Forward,
        link: UpstreamH2Connection,
        scheme: bytes,
    ) -> None:
        self.unseen = False
        self._exchange = exchange
        self._forward = forward
        self._link = link
        self._scheme = scheme
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Send the request, pass the answer on."""
        length = self._exchange.body.length
        call = self._link.begin(self._head(length), ends=length == 0)
        sending = asyncio.create_task(self._send(call, ends=length == 0))
        try:
            await self._pass_on(call)
        except UpstreamError as error:
            self.unseen = call.unseen
            if error.reason == GONE:
                raise ClientGone("the client has left") from None
            raise
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            if self._timer is not None:
                self._timer.cancel()
            self._link.release(call)

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
            (name, value) for name, value in forward.headers if name not in OWN_FIELDS
        ]
        if length:
            fields.append((b"content-length", b"%d" % length))
        # RFC 9113 §8.2.2: the only thing that TE may say; gRPC asks for it.
        if b"trailers" in self._exchange.head.fields.get(b"te", b""):
            fields.append((b"te", b"trailers"))
        return fields

    # The request's side.

    async def _send(self, call: ClientStream, *, ends: bool) -> None:
        try:
            if not ends:
                await self._send_body(call)
            if not self._exchange.started and self._forward.upstream.timeout:
                self._timer = asyncio.get_running_loop().call_later(
                    self._forward.upstream.timeout, self._time_is_over, call
                )
            await self._exchange.gone.wait()
            call.fail(GONE)
        except OSError:
            return  # no longer read: an answer may have come already
        except UpstreamError as error:
            call.fail(error.reason)
        except Exception:  # noqa: BLE001 - the client's doing; the reading side raises it
            call.fail(GONE)

    async def _send_body(self, call: ClientStream) -> None:
        body = self._exchange.body
        async for piece in body:
            try:
                async with asyncio.timeout(self._forward.upstream.timeout or None):
                    await self._link.send(call, piece)
            except TimeoutError:
                raise UpstreamError("timeout") from None
        trailers = without_protected(
            forwardable_trailers(body.trailers), self._forward.protected
        )
        self._link.end(call, trailers)

    def _time_is_over(self, call: ClientStream) -> None:
        if not self._exchange.started:
            call.fail("timeout")

    # The answer's side.

    async def _pass_on(self, call: ClientStream) -> None:
        while True:
            status, headers, length = _read_head(await call.head())
            if status >= 200:
                break
            if status not in (100, 101):
                await self._exchange.send_informational(status, headers)
        if self._exchange.gone.is_set():
            raise ClientGone("the client has left")
        if length is None and call.is_head_alone:
            length = 0  # gRPC's answers without a message are told apart by that
        await self._exchange.start(
            status, self._forward.merge_response_headers(headers), length=length
        )
        try:
            while True:
                piece, counted = await call.piece()
                if not counted and not piece:
                    break
                await self._exchange.write(piece)
                self._link.acknowledge(call, counted)
        except UpstreamError as error:
            if error.reason != GONE:
                self._exchange.hub.logs.error(
                    MODULE,
                    f"upstream {self._forward.upstream.id}: {error.reason} in the "
                    f"middle of the answer to request {self._exchange.request.id}",
                )
            raise ClientGone("the answer can't be completed") from None
        await self._exchange.finish(
            forwardable_trailers(call.trailers, FORBIDDEN_IN_ANSWERS)
        )


def _read_head(fields: list[Header]) -> tuple[int, Headers, int | None]:
    """Status, fields and length of an answer; raises `UpstreamFailed`."""
    named = dict(fields)
    status = named.get(b":status", b"")
    if not STATUS.fullmatch(status):
        raise UpstreamError("malformed_answer")
    kept = []
    for name, value in fields:
        if name[:1] == b":" or name in HOP_BY_HOP or name in CONNECTION_FIELDS:
            continue
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            raise UpstreamError("malformed_answer")
        if name != b"content-length":
            kept.append((name, value))
    length = named.get(b"content-length")
    if length is not None and not LENGTH.fullmatch(length):
        raise UpstreamError("malformed_answer")
    return int(status), tuple(kept), None if length is None else int(length)
