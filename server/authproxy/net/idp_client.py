"""The HTTP client towards the identity provider: whole answers, hard bounds.

Built on h11, which judges every byte of the answer. One `fetch` is one exchange:
redirects are not followed, only ``identity`` is accepted (nothing is ever inflated),
and whatever goes wrong is a `FetchError` that names the host and what happened, never
the URL's path or query, a header or a body: they may carry codes, tokens and secrets.

**When a request is sent twice.** A pooled connection may have been closed by the
server in the very moment of its reuse. A safe method (GET, HEAD, OPTIONS) is then sent
once more on a new connection, but only when no byte of an answer had come. Anything
else (the POST to the token endpoint redeems a code that is good only once) is never
sent again after its first byte was handed to the system. So that this strictness costs
little, such requests take only connections used within the last `UNSAFE_REUSE`
seconds, and only when those show no sign of having ended.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from urllib.request import getproxies

import h11

from authproxy_core.effects import Fetch
from authproxy_core.errors import FetchError
from authproxy_core.messages import Header, Headers, Response

from ..server_settings import ClientSettings
from .dial import Stream, close_all, describe_error, dial, start_tls
from .origin import Origin, Proxy, select_proxy, split_url
from .tls import client_context

MAX_HEAD_BYTES = 64 << 10  # bytes of an answer's head, a chunk's head, or trailers
READ_BYTES = 16 << 10  # bytes given to h11 at once
MAX_INFORMATIONAL = 16  # 1xx answers before the real one
IDLE_TIMEOUT = 60.0  # seconds that an unused connection is kept
UNSAFE_MAX_IDLE = 2.0  # seconds; see above
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 §9.2.1
# What frames the request or chooses the answer's coding is the client's alone.
CLIENT_CONTROLLED_FIELDS = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)


class _StaleConnectionError(Exception):
    """A pooled connection ended before any byte of an answer."""


class _Connection:
    """A stream with its HTTP state.

    ``prefix`` and ``fields`` are what a plain HTTP proxy in between needs: the
    absolute form of the target and its credentials.
    """

    def __init__(self, stream: Stream, prefix: str = "", fields: Headers = ()) -> None:
        self.stream = stream
        self.prefix = prefix
        self.fields = fields
        self.reused = False
        self.idle_since = 0.0
        self.expiry: asyncio.TimerHandle | None = None
        self._state = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)
        self._answered = False

    async def exchange(self, request: h11.Request, body: bytes, limit: int) -> Response:
        """Send a request and read its whole answer (a body of at most *limit* bytes).

        Raises `_Stale`, OSError, `h11.ProtocolError` or `FetchError` (without a host).
        """
        parts = (request, h11.Data(data=body), h11.EndOfMessage())
        # No draining: the body is in memory already, and a server that answers early
        # (413) must be heard although it no longer reads. The timeout bounds it.
        for part in parts:
            self.stream.write(self._state.send(part) or b"")
        head = await self._head()
        _check_framing(head, request.method, limit)
        headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
        return Response(head.status_code, headers, await self._body(limit))

    async def connect(self, origin: Origin) -> int:
        """Ask a proxy for a tunnel to *origin*; returns the status of its answer."""
        host = (b"host", origin.host_port.encode())
        request = h11.Request(
            method=b"CONNECT", target=origin.host_port, headers=[host, *self.fields]
        )
        self.stream.write(self._state.send(request) or b"")
        self._state.send(h11.EndOfMessage())
        status = (await self._head()).status_code
        if self._state.trailing_data[0]:  # nobody in the tunnel may speak before us
            raise h11.RemoteProtocolError("bytes before the tunnel was used")
        return status

    def recycle(self) -> bool:
        """Make ready for the next request; False when the connection is used up."""
        done = self._state.our_state is h11.DONE and self._state.their_state is h11.DONE
        if not done or self._state.trailing_data[0] or not self.stream.is_reusable:
            return False
        self._state.start_next_cycle()
        self._answered = False
        self.reused = True
        return True

    async def _head(self) -> h11.Response:
        for _ in range(MAX_INFORMATIONAL + 1):
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
        raise FetchError(f"more than {MAX_INFORMATIONAL} informational answers")

    async def _body(self, limit: int) -> bytes:
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > limit:
                raise FetchError(f"answer above {limit} bytes")
        return bytes(body)

    async def _event(self) -> object:
        ended = False
        try:
            while (event := self._state.next_event()) is h11.NEED_DATA:
                data = await self._read()
                ended = not data
                self._state.receive_data(data)
        except h11.RemoteProtocolError:
            if ended:
                raise FetchError(
                    "connection closed before the answer was complete"
                ) from None
            raise
        return event

    async def _read(self) -> bytes:
        try:
            data = await self.stream.read(READ_BYTES)
        except OSError:
            if self.reused and not self._answered:
                raise _StaleConnectionError from None
            raise
        if not data and self.reused and not self._answered:
            raise _StaleConnectionError
        self._answered = True
        return data


def _check_framing(head: h11.Response, method: bytes, limit: int) -> None:
    """Refuse an ambiguous answer, and one that announces too much."""
    fields = dict(head.headers)
    length = fields.get(b"content-length")
    if length is None:
        return
    if b"transfer-encoding" in fields:  # RFC 9112 §6.3: ought to be handled as an error
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
    bodiless = method == b"HEAD" or head.status_code in (204, 304)
    if not bodiless and int(length) > limit:
        raise FetchError(f"answer above {limit} bytes")


class _Pool:
    """The connections to one origin: so many at once, the unused ones kept a while."""

    def __init__(self, size: int) -> None:
        self.slots = asyncio.Semaphore(size)
        self.idle: list[_Connection] = []
        self._closed = False

    def take(self, not_before: float) -> _Connection | None:
        """The connection used last, if it is alive and not older than *not_before*."""
        while self.idle:
            connection = self.idle.pop()
            assert connection.expiry is not None  # noqa: S101 - for the types
            connection.expiry.cancel()
            if connection.stream.is_reusable and connection.idle_since >= not_before:
                return connection
            connection.stream.abort()
        return None

    def give_back(self, connection: _Connection, now: float, timeout: float) -> None:
        """Keep a connection for *timeout* seconds, or close it when it is used up."""
        if self._closed or not connection.recycle():
            connection.stream.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = now
        connection.expiry = loop.call_later(timeout, self._expire, connection)
        self.idle.append(connection)

    def clear(self) -> None:
        """Forget the unused connections; whoever owns the streams closes them."""
        for connection in self.idle:
            assert connection.expiry is not None  # noqa: S101 - for the types
            connection.expiry.cancel()
        self.idle.clear()

    def abort(self) -> None:
        """Close the unused connections, and keep none from now on."""
        idle = list(self.idle)
        self.clear()
        for connection in idle:
            connection.stream.abort()
        self._closed = True

    def _expire(self, connection: _Connection) -> None:
        self.idle.remove(connection)
        connection.stream.abort()


class HttpClient:
    """Performs `Fetch`: one per worker, on the loop where it is first used.

    Proxies are read from the environment once (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in
    either case). ``version`` stands in User-Agent, ``clock`` counts seconds.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        version: str = "",
        idle_timeout: float = IDLE_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._context = client_context(settings)
        self._proxies = getproxies()
        self._agent = f"authproxy/{version}" if version else "authproxy"
        self._idle_timeout = idle_timeout
        self._clock = clock
        # Origins come from settings and discovery: there is but a handful of them.
        self._pools: dict[Origin, _Pool] = {}
        self._streams: set[Stream] = set()
        self._closed = False

    def reconfigure(self, settings: ClientSettings, context: ssl.SSLContext) -> None:
        """Connect by *settings* from now on; what is under way ends as it began."""
        self._settings, self._context = settings, context
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.abort()

    async def fetch(self, effect: Fetch) -> Response:
        """One exchange with the identity provider. Raises `FetchError`."""
        if self._closed:
            raise FetchError("the client is closed")
        origin, target = split_url(effect.url)
        try:
            async with asyncio.timeout(effect.timeout) as deadline:
                pool = self._pools.setdefault(origin, _Pool(self._settings.pool_size))
                async with pool.slots:
                    return await self._exchange(pool, origin, target, effect)
        except FetchError as error:
            text = str(error)
            named = text if origin.host_port in text else f"{text}: {origin.host_port}"
            raise FetchError(named) from None
        except h11.LocalProtocolError:
            raise FetchError(f"request to {origin.host_port} is malformed") from None
        except h11.RemoteProtocolError:
            raise FetchError(f"malformed answer from {origin.host_port}") from None
        except OSError as error:
            text = describe_error(error, origin.host_port)
            if deadline.expired():
                text = f"timed out after {effect.timeout:g} s: {origin.host_port}"
            raise FetchError(text) from None

    async def close(self) -> None:
        """Close every connection; exchanges under way fail."""
        self._closed = True
        for pool in self._pools.values():
            pool.clear()
        await close_all(self._streams)

    async def _exchange(
        self, pool: _Pool, origin: Origin, target: str, effect: Fetch
    ) -> Response:
        safe = effect.method in SAFE_METHODS
        max_age = self._idle_timeout if safe else UNSAFE_MAX_IDLE
        connection = pool.take(self._clock() - max_age)
        if connection is not None:
            try:
                return await self._use(pool, connection, origin, target, effect)
            except _StaleConnectionError:
                if not safe:
                    raise FetchError(
                        f"connection closed by {origin.host_port}"
                    ) from None
        connection = await self._connect(origin)
        return await self._use(pool, connection, origin, target, effect)

    async def _use(
        self,
        pool: _Pool,
        connection: _Connection,
        origin: Origin,
        target: str,
        effect: Fetch,
    ) -> Response:
        try:
            if self._closed:
                raise FetchError("the client is closed")
            request = h11.Request(
                method=effect.method,
                target=connection.prefix + target,
                headers=[*self._fields(origin, effect), *connection.fields],
            )
            response = await connection.exchange(request, effect.body, effect.max_body)
        except BaseException:
            connection.stream.abort()
            raise
        pool.give_back(connection, self._clock(), self._idle_timeout)
        return response

    def _fields(self, origin: Origin, effect: Fetch) -> list[Header]:
        fields = [
            (b"host", origin.authority.encode()),
            (b"accept-encoding", b"identity"),
        ]
        fields += [
            field
            for field in effect.headers
            if field[0] not in CLIENT_CONTROLLED_FIELDS
        ]
        if not any(name == b"user-agent" for name, _ in fields):
            fields.append((b"user-agent", self._agent.encode()))
        if effect.body or effect.method not in SAFE_METHODS:
            fields.append((b"content-length", b"%d" % len(effect.body)))
        return fields

    async def _connect(self, origin: Origin) -> _Connection:
        limit = self._settings.connect_timeout
        try:
            async with asyncio.timeout(limit or None) as timeout:
                return await self._dial(origin)
        except TimeoutError:
            if not timeout.expired():  # the system's own ETIMEDOUT, or the outer limit
                raise
            raise FetchError(
                f"connecting timed out after {limit:g} s: {origin.host_port}"
            ) from None

    async def _dial(self, origin: Origin) -> _Connection:
        context = self._context if origin.scheme == "https" else None
        proxy = select_proxy(origin, self._proxies)
        if proxy is None:
            return _Connection(
                await dial(self._streams, origin.host, origin.port, context)
            )
        try:
            stream = await dial(self._streams, proxy.origin.host, proxy.origin.port)
        except OSError as error:
            raise FetchError(
                describe_error(error, f"proxy {proxy.origin.host_port}")
            ) from None
        if context is None:
            return _Connection(stream, f"http://{origin.authority}", proxy.fields)
        try:
            await _tunnel(stream, origin, proxy)
            await start_tls(stream, context, origin.host)
        except BaseException:
            stream.abort()
            raise
        return _Connection(stream)


async def _tunnel(stream: Stream, origin: Origin, proxy: Proxy) -> None:
    where = f"proxy {proxy.origin.host_port}"
    try:
        status = await _Connection(stream, fields=proxy.fields).connect(origin)
    except OSError as error:
        raise FetchError(describe_error(error, where)) from None
    except h11.RemoteProtocolError:
        raise FetchError(f"malformed answer from {where}") from None
    if not 200 <= status <= 299:
        raise FetchError(f"{where} refused to connect: status {status}")
