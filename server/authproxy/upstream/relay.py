"""One request and its answer over one connection to an upstream.

Both bodies pass in pieces: one side is only read while the other takes what came. What
fails before the answer's head has gone out is `UpstreamFailed`, after that the client's
connection is cut.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from authproxy_core.errors import ClientGone
from authproxy_core.identity.headers import HOP_BY_HOP
from authproxy_core.messages import Forward, Header, Headers, first_header

from ..http.response_encoder import fields
from ..http.trailers import without_protected
from ..http.upstream_response import ResponseHead, ResponseReader, UpstreamError
from ..net.dial import Stream
from ..net.tunnel import Tunnel, UpgradedConnection
from ..serve.worker_context import MODULE, ExchangeProtocol
from .pool import ConnectionPool
from .tunnel_registry import TunnelRegistry

READ_SIZE = 256 << 10  # bytes
EXPECT_BODY = frozenset(
    {b"POST", b"PUT", b"PATCH"}
)  # RFC 9110 §8.6: say that it's empty
OWN_FIELDS = HOP_BY_HOP | {b"content-length", b"expect"}
START_LINE = re.compile(rb"[A-Z-]+ [!-~]+ HTTP/1\.1\r\n")


class Stale(Exception):
    """A pooled connection ended before any byte of an answer."""


class Relay:
    """Carries *forward* over *stream*, which is *reused* when it comes from the pool.

    With *begun* the request has been sent already, and that is the answer so far.

    A second task sends the body and then watches whether the client stays. What it
    finds wrong is noted as the fault and ends the stream; the reading side raises it.
    """

    def __init__(
        self,
        exchange: ExchangeProtocol,
        forward: Forward,
        stream: Stream,
        *,
        reused: bool = False,
        begun: bytes | None = None,
        tunnels: TunnelRegistry | None = None,
    ) -> None:
        self.stream = stream
        self.reusable = False
        self.tunnel: Tunnel | None = None  # that the connection has become a part of
        self._exchange = exchange
        self._forward = forward
        self._upgrade = upgrade_protocol(exchange, forward)
        self._answer = ResponseReader(forward.method, self._upgrade)
        self._untouched = reused  # pooled, and no byte of an answer has come
        self._begun = begun
        self._tunnels = tunnels
        self._sent = False
        self._fault: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Send the request, pass the answer on; sets ``reusable``."""
        if self._begun is None:
            length = self._exchange.body.length
            self.stream.write(request_head(self._forward, length, self._upgrade))
        else:
            self._answer.feed(self._begun)
        sending = asyncio.create_task(self._send())
        try:
            head = await self._final_head()
            self._stop_timer()
            if head.status != 101:
                await self._pass_on(head)
        finally:
            self._stop_timer()
            sending.cancel()
            await asyncio.wait([sending])
        if head.status == 101:
            self._join(head)
            return
        self.reusable = (
            self._sent
            and head.persists
            and not self._upgrade
            and self._answer.done
            and not self._answer.trailing_data
        )

    async def _pass_on(self, head: ResponseHead) -> None:
        await self._exchange.start(
            head.status,
            self._forward.merge_response_headers(head.headers),
            length=head.length,
        )
        await self._pass_body()

    def _join(self, head: ResponseHead) -> None:
        """Join the two connections; from now on they are on their own."""
        headers: Headers = (
            *self._forward.merge_response_headers(head.headers),
            (b"upgrade", head.upgrade),
        )
        client = self._exchange.switch(headers)
        early = self._answer.trailing_data + self.stream.detach()
        upstream = UpgradedConnection(
            self.stream.transport,
            self.stream.connection_lost,
            early,
            self.stream.closed.is_set(),
        )
        exchange = self._exchange
        self.tunnel = tunnel = Tunnel(client, upstream)
        exchange.attach_tunnel(tunnel)
        if self._tunnels is not None:
            self._tunnels.keep(tunnel, exchange.hub, exchange.request, self._forward)

    # The request's side.

    async def _send(self) -> None:
        try:
            await self._send_body()
            await self._exchange.gone.wait()
            self._fail(ClientGone("the client has left"))
        except Exception as error:  # noqa: BLE001 - the reading side raises it
            self._fail(error)

    async def _send_body(self) -> None:
        body = self._exchange.body
        chunked = body.length is None
        try:
            async for piece in body:
                self.stream.write(
                    b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
                )
                await self._drain()
        except OSError:
            return  # no longer read: an answer may have come already
        if chunked:
            trailers = without_protected(body.trailers, self._forward.protected)
            self.stream.write(b"0\r\n" + fields(trailers) + b"\r\n")
        self._sent = True
        if not self._exchange.started and self._forward.upstream.timeout:
            # The upstream's time begins when it has the whole request.
            self._timer = asyncio.get_running_loop().call_later(
                self._forward.upstream.timeout, self._fail, UpstreamError("timeout")
            )

    async def _drain(self) -> None:
        if self.stream.writable:
            return
        try:
            async with asyncio.timeout(self._forward.upstream.timeout or None):
                await self.stream.drain()
        except TimeoutError:
            if not self._exchange.started:
                raise UpstreamError("timeout") from None
            raise

    def _fail(self, error: Exception) -> None:
        self._fault = self._fault or error
        self.stream.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # The answer's side.

    async def _final_head(self) -> ResponseHead:
        while True:
            head = self._answer.head()
            if head is None:
                if not await self._more():
                    raise UpstreamError("closed_early")
            elif head.status >= 200 or head.status == 101:
                return head
            elif head.status != 100:  # ours is sent when the body is read
                await self._exchange.send_informational(head.status, head.headers)

    async def _pass_body(self) -> None:
        try:
            while piece := await self._piece():
                await self._exchange.write(piece)
        except UpstreamError as error:
            self._exchange.hub.logs.error(
                MODULE,
                f"upstream {self._forward.upstream.id}: {error.reason} in the middle "
                f"of the answer to request {self._exchange.request.id}",
            )
            raise ClientGone("the answer can't be completed") from None
        await self._exchange.finish(self._answer.trailers)

    async def _piece(self) -> bytes:
        """The next piece of the answer's body, b"" at its end."""
        while True:
            piece = self._answer.piece()
            if piece or self._answer.done:
                return piece
            data = await self._read()
            if not data:
                if self._answer.ends_with_connection:
                    return b""
                raise UpstreamError("closed_early")
            piece = self._answer.passed(data)
            if piece:
                return piece
            self._answer.feed(data)

    async def _more(self) -> bool:
        """Read on; False at the clean end of the connection."""
        data = await self._read()
        self._answer.feed(data)
        return bool(data)

    async def _read(self) -> bytes:
        """What has come next; b"" at the clean end of the connection."""
        try:
            data = await self.stream.read(READ_SIZE)
        except OSError:
            data, broken = b"", True
        else:
            broken = False
        if self._fault is not None:
            raise self._fault
        if not data and self._untouched:
            raise Stale
        if broken:
            raise UpstreamError("closed_early")
        self._untouched = False
        return data


async def run_relay(relay: Relay, pool: ConnectionPool) -> None:
    """Run *relay*; then its connection is kept, or closed, or a tunnel's."""
    try:
        await relay.run()
    except BaseException:
        relay.stream.abort()
        raise
    if relay.tunnel is not None:
        pool.detach(relay.stream)
    elif relay.reusable:
        pool.put(relay.stream)
    else:
        relay.stream.abort()


def upgrade_protocol(exchange: ExchangeProtocol, forward: Forward) -> bytes:
    """The protocol to ask for, b"" for none; HTTP/1.0 knows no Upgrade."""
    if not forward.upgrade or exchange.head.minor != 1:
        return b""
    return first_header(forward.headers, b"upgrade") or b""


def forwardable_fields(headers: Sequence[Header]) -> bytes:
    """Fields for an upstream, less those that are ours to say."""
    return fields([field for field in headers if field[0] not in OWN_FIELDS])


def request_head(
    forward: Forward,
    length: int | None,
    upgrade: bytes = b"",
    *,
    encoded: Callable[[Headers], bytes] = forwardable_fields,
) -> bytes:
    """The head for the upstream, with our framing; *length* None means chunks.

    *encoded* does as `own_fields`, and may remember what it made of an identity.
    """
    line = b"%b %b HTTP/1.1\r\n" % (forward.method, forward.target)
    if not START_LINE.fullmatch(line):  # as in `wire.fields`: the last guard
        raise ValueError("a start line that is none")
    framing = b""
    if length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length or forward.method in EXPECT_BODY:
        framing = b"Content-Length: %d\r\n" % length
    headers, identity = forward.headers, forward.identity
    if identity and headers[-len(identity) :] == identity:
        headers = headers[: -len(identity)]
    else:
        identity = ()
    kept = [field for field in headers if field[0] not in OWN_FIELDS]
    if upgrade:
        kept += ((b"upgrade", upgrade), (b"connection", b"Upgrade"))
    elif len(kept) < len(headers) and (b"te", b"trailers") in headers:
        kept += ((b"te", b"trailers"), (b"connection", b"TE"))  # RFC 9110 §10.1.4
    elif not forward.upstream.keep_alive:
        kept.append((b"connection", b"close"))
    own = encoded(identity) if identity else b""
    return b"".join((line, fields(kept), own, framing, b"\r\n"))
