"""Forward one request over one HTTP/1.1 connection and relay its response.

Both bodies are streamed: a side is read only while the other side takes the bytes. A
failure before the response head is sent to the client is an `UpstreamError`, a later one
aborts the client's connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from authproxy_core.errors import ClientGone
from authproxy_core.identity.headers import HOP_BY_HOP
from authproxy_core.messages import Forward, Header, Headers, first_header

from ..contract import MODULE, ExchangeProtocol
from ..http.response_encoder import encode_fields
from ..http.trailers import without_protected
from ..http.upstream_response import ResponseHead, ResponseReader, UpstreamError
from ..net.dial import Stream
from ..net.tunnel import Tunnel, UpgradedConnection
from .disconnect import timeout_unless_disconnected
from .pool import UpstreamPool
from .tunnel_registry import TunnelRegistry

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
# RFC 9110 §8.6: with these methods an empty body needs "Content-Length: 0".
METHODS_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
NOT_FORWARDED = HOP_BY_HOP | {b"content-length", b"expect"}
START_LINE = re.compile(rb"[A-Z-]+ [!-~]+ HTTP/1\.1\r\n")


class StaleConnection(Exception):
    """A pooled connection was closed before any byte of a response was received."""


class Relay:
    """Forwards one request over *stream*; *reused* if it has been idle in the pool.

    With *received* the request has been sent, and these are the first bytes of the
    response. A second task sends the body and then waits for the client to disconnect.
    It reports a failure by setting the fault and closing the stream; the reading side
    raises it.
    """

    def __init__(
        self,
        exchange: ExchangeProtocol,
        forward: Forward,
        stream: Stream,
        *,
        reused: bool = False,
        received: bytes | None = None,
        tunnels: TunnelRegistry | None = None,
    ) -> None:
        self.stream = stream
        self.reusable = False
        self.tunnel: Tunnel | None = None  # after an upgrade
        self._exchange = exchange
        self._forward = forward
        self._upgrade = upgrade_protocol(exchange, forward)
        self._response = ResponseReader(forward.method, self._upgrade)
        self._may_be_stale = reused  # until a byte of the response is received
        self._received = received
        self._tunnels = tunnels
        self._sent = False
        self._fault: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Send the request and relay the response; set ``reusable``."""
        if self._received is None:
            length = self._exchange.body.length
            self.stream.write(request_head(self._forward, length, self._upgrade))
        else:
            self.stream.hold(len(self._received))
            self._response.feed(self._received)
            self._received = b""
        sending = asyncio.create_task(self._send())
        try:
            head = await self._final_head()
            self._stop_timer()
            if head.status != 101:
                await self._relay_response(head)
        finally:
            self._stop_timer()
            sending.cancel()
            await asyncio.wait([sending])
            self._fault = None  # its traceback refers to this relay
        if head.status == 101:
            self._open_tunnel(head)
            return
        self.reusable = (
            self._sent
            and head.keep_alive
            and not self._upgrade
            and self._response.done
            and not self._response.trailing_data
        )

    def _open_tunnel(self, head: ResponseHead) -> None:
        """Send 101 to the client and join the two connections in a tunnel."""
        headers: Headers = (
            *self._forward.merge_response_headers(head.headers),
            (b"upgrade", head.upgrade),
        )
        client = self._exchange.switch_protocols(headers)
        early = self._response.trailing_data + self.stream.detach()
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
            self._tunnels.add(tunnel, exchange.worker, exchange.request, self._forward)

    # The request.

    async def _send(self) -> None:
        try:
            await self._send_body()
            await self._exchange.disconnected.wait()
            self._fail(ClientGone("client disconnected"))
        except Exception as error:  # noqa: BLE001 - the reading side raises it
            self._fail(error)

    async def _send_body(self) -> None:
        body = self._exchange.body
        chunked = body.length is None
        try:
            async for data in body:
                self.stream.write(
                    b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
                )
                await self._drain()
        except OSError:
            return  # the upstream may have sent its response without reading the body
        if chunked:
            trailers = without_protected(body.trailers, self._forward.protected)
            self.stream.write(b"0\r\n" + encode_fields(trailers) + b"\r\n")
        self._sent = True
        if not self._exchange.started and self._forward.upstream.timeout:
            # The upstream's timeout starts when it has the whole request.
            self._timer = asyncio.get_running_loop().call_later(
                self._forward.upstream.timeout, self._fail, UpstreamError("timeout")
            )

    async def _drain(self) -> None:
        if self.stream.is_writable:
            return
        disconnected, timeout = (
            self._exchange.disconnected,
            self._forward.upstream.timeout,
        )
        try:
            async with timeout_unless_disconnected(disconnected, timeout):
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

    # The response.

    async def _final_head(self) -> ResponseHead:
        """Relay informational responses; return the final head, or that of a 101."""
        while True:
            head = self._response.read_head()
            if head is None:
                data = await self._read()
                if not data:
                    raise UpstreamError("closed_early")
                self._response.feed(data)
            elif head.status >= 200 or head.status == 101:
                return head
            elif head.status != 100:  # authproxy sends 100 when it reads the body
                await self._exchange.send_informational(head.status, head.headers)

    async def _relay_response(self, head: ResponseHead) -> None:
        exchange, forward = self._exchange, self._forward
        await exchange.start(
            head.status,
            forward.merge_response_headers(head.headers),
            length=head.length,
        )
        try:
            while data := await self._next_body_data():
                await exchange.write(data)
        except UpstreamError as error:
            raise report_aborted(exchange, forward, error) from None
        await exchange.finish(self._response.trailers)

    async def _next_body_data(self) -> bytes:
        """Return the next bytes of the response body, b"" at its end."""
        while True:
            body = self._response.read_chunk()
            if body or self._response.done:
                return body
            data = await self._read()
            if not data:
                if self._response.is_close_delimited:
                    return b""
                raise UpstreamError("closed_early")
            body = self._response.pass_through(data)
            if body:
                return body
            self._response.feed(data)

    async def _read(self) -> bytes:
        """Return the next received bytes; b"" at the regular end of the connection."""
        try:
            data = await self.stream.read()
        except OSError:
            data, broken = b"", True
        else:
            broken = False
        if self._fault is not None:
            raise self._fault
        if not data and self._may_be_stale:
            raise StaleConnection
        if broken:
            raise UpstreamError("closed_early")
        self._may_be_stale = False
        return data


async def run_relay(relay: Relay, pool: UpstreamPool) -> None:
    """Run *relay*, then release its connection, close it, or keep it for a tunnel."""
    try:
        await relay.run()
    except BaseException:
        relay.stream.abort()
        raise
    if relay.tunnel is not None:
        pool.detach(relay.stream)
    elif relay.reusable:
        pool.release(relay.stream)
    else:
        relay.stream.abort()


def report_aborted(
    exchange: ExchangeProtocol, forward: Forward, error: UpstreamError
) -> ClientGone:
    """Log an upstream failure during the response body; return the error to raise."""
    exchange.worker.logs.error(
        MODULE,
        f"upstream {forward.upstream.id}: {error.reason} while receiving the response "
        f"to request {exchange.request.id}; client connection aborted",
    )
    return ClientGone("upstream response incomplete")


def upgrade_protocol(exchange: ExchangeProtocol, forward: Forward) -> bytes:
    """Return the protocol to ask for, b"" for none (HTTP/1.0 has no Upgrade)."""
    if not forward.upgrade or exchange.head.minor != 1:
        return b""
    return first_header(forward.headers, b"upgrade") or b""


def encode_forwardable_fields(headers: Sequence[Header]) -> bytes:
    """Encode *headers* without the fields that `request_head` sets."""
    return encode_fields([field for field in headers if field[0] not in NOT_FORWARDED])


def request_head(
    forward: Forward,
    length: int | None,
    upgrade: bytes = b"",
    *,
    encode: Callable[[Headers], bytes] = encode_forwardable_fields,
) -> bytes:
    """Return the encoded head for the upstream.

    *length* is the size of the body in bytes, None for the chunked coding. *encode*
    encodes the identity headers; it may cache the result.
    """
    line = b"%b %b HTTP/1.1\r\n" % (forward.method, forward.target)
    # The last check against request splitting, as in `encode_fields`.
    if not START_LINE.fullmatch(line):
        raise ValueError("invalid start line")
    framing = b""
    if length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length or forward.method in METHODS_WITH_BODY:
        framing = b"Content-Length: %d\r\n" % length
    headers, identity = forward.headers, forward.identity
    if identity and headers[-len(identity) :] == identity:
        headers = headers[: -len(identity)]
    else:
        identity = ()
    kept = [field for field in headers if field[0] not in NOT_FORWARDED]
    if upgrade:
        kept += ((b"upgrade", upgrade), (b"connection", b"Upgrade"))
    elif len(kept) < len(headers) and (b"te", b"trailers") in headers:
        kept += ((b"te", b"trailers"), (b"connection", b"TE"))  # RFC 9110 §10.1.4
    elif not forward.upstream.keep_alive:
        kept.append((b"connection", b"close"))
    encoded = encode(identity) if identity else b""
    return b"".join((line, encode_fields(kept), encoded, framing, b"\r\n"))
