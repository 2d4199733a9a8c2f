"""HTTP client for the identity provider: complete responses, strict limits.

h11 validates every byte of the response. One `fetch` is one exchange: redirects are not
followed, and only the coding ``identity`` is accepted. Errors are `FetchError`s that
name the host and the cause, but never the URL's path or query, a field or a body,
because those may contain codes, tokens and secrets.

**Retries.** The server may close a pooled connection while a request is on its way. A
safe method (GET, HEAD, OPTIONS) is then retried once on a new connection, if no byte of
the response has arrived. Other requests are never retried after their first byte was
written: the POST to the token endpoint redeems a code that is valid only once. To make
such failures rare, these requests use only connections that were in use within the last
`UNSAFE_MAX_IDLE` seconds.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from weakref import WeakSet

import h11
from msgspec import Struct

from authproxy_core.effects import Fetch
from authproxy_core.errors import FetchError
from authproxy_core.messages import Header, Headers, Response

from ..server_settings import ClientSettings
from .connection_pool import ConnectionPool, PoolLimits
from .dial import Stream, close_all, describe_error, dial, start_tls
from .origin import Origin, Proxy, select_proxy, split_url
from .tls import client_context

MAX_HEAD_BYTES = 64 << 10  # bytes of a response's head, a chunk's head, or trailers
READ_BYTES = 16 << 10  # bytes per read, which h11 gets at once
MAX_INFORMATIONAL = 16  # 1xx responses before the final one
IDLE_TIMEOUT = 60.0  # seconds until an idle connection is closed
UNSAFE_MAX_IDLE = 2.0  # seconds; see above
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 §9.2.1
# Only the client sets the fields for framing and for the response's coding.
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
    """An idle connection was closed before any byte of a response arrived."""


class _Exchange:
    """One request and its response on *stream*.

    *reused* means that the stream has been idle in the pool.
    """

    def __init__(self, stream: Stream, *, reused: bool = False) -> None:
        self._stream = stream
        self._may_be_stale = reused
        self._state = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)

    async def run(self, request: h11.Request, body: bytes, limit: int) -> Response:
        """Send a request and return its response, with a body of at most *limit* bytes.

        Raises `_StaleConnectionError`, OSError, `h11.ProtocolError`, or `FetchError`
        without a host.
        """
        # The writes are not drained: the body is in memory anyway, and an early response
        # such as 413 must be read even if the server stops reading.
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._stream.write(self._state.send(event) or b"")
        head = await self._read_head()
        _check_framing(head, request.method, limit)
        headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
        return Response(head.status_code, headers, await self._read_body(limit))

    async def connect(self, origin: Origin, fields: Headers) -> int:
        """Request a tunnel to *origin* from a proxy; return the response's status."""
        host = (b"host", origin.host_port.encode())
        request = h11.Request(
            method=b"CONNECT", target=origin.host_port, headers=[host, *fields]
        )
        self._stream.write(self._state.send(request) or b"")
        self._state.send(h11.EndOfMessage())
        status = (await self._read_head()).status_code
        if self._state.trailing_data[0]:  # TLS lets the client speak first
            raise h11.RemoteProtocolError("bytes before the tunnel was used")
        return status

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can be used for another request."""
        state = self._state
        return (
            state.our_state is h11.DONE
            and state.their_state is h11.DONE
            and not state.trailing_data[0]
            and self._stream.is_reusable
        )

    async def _read_head(self) -> h11.Response:
        for _ in range(MAX_INFORMATIONAL + 1):
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
        raise FetchError(f"more than {MAX_INFORMATIONAL} informational responses")

    async def _read_body(self, limit: int) -> bytes:
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > limit:
                raise FetchError(f"response exceeds {limit} bytes")
        return bytes(body)

    async def _next_event(self) -> object:
        at_eof = False
        try:
            while (event := self._state.next_event()) is h11.NEED_DATA:
                data = await self._read()
                at_eof = not data
                self._state.receive_data(data)
        except h11.RemoteProtocolError as error:
            error.with_traceback(None)  # a frame of h11 refers to its own error
            if at_eof:
                raise FetchError(
                    "connection closed before the response was complete"
                ) from None
            raise
        return event

    async def _read(self) -> bytes:
        try:
            data = await self._stream.read(READ_BYTES)
        except OSError:
            if self._may_be_stale:
                raise _StaleConnectionError from None
            raise
        if not data and self._may_be_stale:
            raise _StaleConnectionError
        self._may_be_stale = False
        return data


def _proxies() -> dict[str, str]:
    """Return the proxies of the environment, and on macOS of the system, by scheme."""
    is_set = any(name.lower().endswith("_proxy") for name in os.environ)
    if not is_set and sys.platform != "darwin":
        return {}  # importing urllib.request takes long
    from urllib.request import getproxies

    return getproxies()


def _check_framing(head: h11.Response, method: bytes, limit: int) -> None:
    """Reject an ambiguous response, and one whose Content-Length exceeds *limit*."""
    fields = dict(head.headers)
    length = fields.get(b"content-length")
    if length is None:
        return
    if b"transfer-encoding" in fields:  # an error according to RFC 9112 §6.3
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
    bodiless = method == b"HEAD" or head.status_code in (204, 304)
    if not bodiless and int(length) > limit:
        raise FetchError(f"response exceeds {limit} bytes")


class _Server(Struct):
    """A server that is reached through *pool*.

    ``target_prefix`` and ``fields`` are for a plain HTTP proxy in between: the start of
    the absolute-form and the credentials.
    """

    origin: Origin
    pool: ConnectionPool
    target_prefix: str = ""
    fields: Headers = ()


class HttpClient:
    """Performs `Fetch`: one per worker, on the event loop of its first use.

    Proxies are read once from the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in
    either case). *version* is sent in User-Agent. *clock* returns monotonic seconds.
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
        # Reading the system's CA certificates takes some 20 ms, so it waits for a need.
        self._context = client_context(settings) if settings.ca_files else None
        self._proxies = _proxies()
        self._agent = f"authproxy/{version}" if version else "authproxy"
        self._idle_timeout = idle_timeout
        self._clock = clock
        # Few entries: origins come from settings and discovery.
        self._servers: dict[Origin, _Server] = {}
        self._pools: WeakSet[ConnectionPool] = WeakSet()  # also those that are retired
        self._closed = False

    def reconfigure(self, settings: ClientSettings, context: ssl.SSLContext) -> None:
        """Use *settings* for new connections; exchanges in progress continue."""
        self._settings, self._context = settings, context
        self._servers.clear()
        for pool in self._pools:
            pool.retire()

    async def fetch(self, effect: Fetch) -> Response:
        """Return the response of the identity provider. Raises `FetchError`."""
        if self._closed:
            raise FetchError("the client is closed")
        origin, target = split_url(effect.url)
        try:
            async with asyncio.timeout(effect.timeout) as deadline:
                return await self._fetch(self._server(origin), target, effect)
        except FetchError as error:
            text = str(error)
            named = text if origin.host_port in text else f"{text}: {origin.host_port}"
            raise FetchError(named) from None
        except h11.LocalProtocolError:
            raise FetchError(f"malformed request to {origin.host_port}") from None
        except h11.RemoteProtocolError:
            raise FetchError(f"malformed response from {origin.host_port}") from None
        except OSError as error:
            text = describe_error(error, origin.host_port)
            if deadline.expired():
                text = f"timed out after {effect.timeout:g} s: {origin.host_port}"
            raise FetchError(text) from None

    async def close(self) -> None:
        """Close all connections; exchanges in progress fail."""
        self._closed = True
        pools = list(self._pools)
        for pool in pools:
            pool.retire()
        for pool in pools:
            await close_all(pool.streams)

    def _server(self, origin: Origin) -> _Server:
        """Return the server of *origin*, which is created at its first use."""
        server = self._servers.get(origin)
        if server is None:
            proxy = select_proxy(origin, self._proxies)
            limits = PoolLimits(
                connections=self._settings.pool_size,
                idle_connections=self._settings.pool_size,
                idle_timeout=self._idle_timeout,
                recent=UNSAFE_MAX_IDLE,
            )
            pool = ConnectionPool(
                partial(self._connect, origin, proxy), limits, clock=self._clock
            )
            self._pools.add(pool)
            server = _Server(origin, pool)
            if proxy is not None and origin.scheme == "http":
                server.target_prefix = f"http://{origin.authority}"
                server.fields = proxy.fields
            self._servers[origin] = server
        return server

    async def _fetch(self, server: _Server, target: str, effect: Fetch) -> Response:
        pool, is_safe = server.pool, effect.method in SAFE_METHODS
        stream = pool.acquire(retryable=is_safe)
        if stream is None:
            stream = await pool.connect(retryable=is_safe)
        try:
            return await self._exchange(server, stream, target, effect)
        except _StaleConnectionError:
            if not is_safe:
                raise FetchError(
                    f"connection closed by {server.origin.host_port}"
                ) from None
        return await self._exchange(server, await pool.connect(), target, effect)

    async def _exchange(
        self, server: _Server, stream: Stream, target: str, effect: Fetch
    ) -> Response:
        exchange = _Exchange(stream, reused=stream.idle_since > 0)
        try:
            if self._closed:  # while it was connecting
                raise FetchError("the client is closed")
            request = h11.Request(
                method=effect.method,
                target=server.target_prefix + target,
                headers=[*self._fields(server.origin, effect), *server.fields],
            )
            response = await exchange.run(request, effect.body, effect.max_body)
        except BaseException:
            stream.abort()
            raise
        if exchange.is_reusable:
            server.pool.release(stream)
        else:
            stream.abort()
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

    async def _connect(
        self, origin: Origin, proxy: Proxy | None, streams: set[Stream]
    ) -> Stream:
        """Connect to *origin* within the connect timeout. Raises `FetchError`, OSError."""
        limit = self._settings.connect_timeout
        try:
            async with asyncio.timeout(limit or None) as timeout:
                context = None
                if origin.scheme == "https":
                    context = self._context or await self._create_context()
                if proxy is None:
                    return await dial(streams, origin.host, origin.port, context)
                return await _dial_by_proxy(streams, origin, proxy, context)
        except TimeoutError:
            if not timeout.expired():  # ETIMEDOUT, or the timeout of the whole exchange
                raise
            raise FetchError(
                f"connecting timed out after {limit:g} s: {origin.host_port}"
            ) from None

    async def _create_context(self) -> ssl.SSLContext:
        created = await asyncio.to_thread(client_context, self._settings)
        self._context = self._context or created
        return self._context


async def _dial_by_proxy(
    streams: set[Stream], origin: Origin, proxy: Proxy, context: ssl.SSLContext | None
) -> Stream:
    """Connect to *proxy*; with a *context* also through it, by TLS."""
    name = f"proxy {proxy.origin.host_port}"
    try:
        stream = await dial(streams, proxy.origin.host, proxy.origin.port)
    except OSError as error:
        raise FetchError(describe_error(error, name)) from None
    if context is None:
        return stream
    try:
        await _open_tunnel(stream, origin, proxy, name)
        await start_tls(stream, context, origin.host)
    except BaseException:
        stream.abort()
        # The event loop may call it late or, after a canceled handshake, never. The pool
        # would count the connection until then.
        stream.connection_lost(None)
        raise
    return stream


async def _open_tunnel(stream: Stream, origin: Origin, proxy: Proxy, name: str) -> None:
    try:
        status = await _Exchange(stream).connect(origin, proxy.fields)
    except OSError as error:
        raise FetchError(describe_error(error, name)) from None
    except h11.RemoteProtocolError:
        raise FetchError(f"malformed response from {name}") from None
    if not 200 <= status <= 299:
        raise FetchError(f"{name} refused to connect: status {status}")
