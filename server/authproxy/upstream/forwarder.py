"""Forward requests to upstreams over pooled connections.

A pooled connection is stale if the upstream closes it while the next request is on its
way. Only a request without a body whose method is idempotent may get a connection that
has been idle for long, because only such a request is sent again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from authproxy_core.messages import Forward, Upstream

from ..contract import (
    MODULE,
    ExchangeProtocol,
    FastPathExchange,
    SentRequest,
)
from ..http.upstream_response import UpstreamError
from ..net.dial import close_all
from ..net.tls import upstream_context
from ..serve.encoding_caches import FieldCache
from ..server_settings import ForwardSettings
from .disconnect import timeout_unless_disconnected
from .fast_path import try_fast_path
from .pool import UpstreamPool
from .relay import (
    IDEMPOTENT,
    Relay,
    StaleConnection,
    encode_forwardable_fields,
    run_relay,
)
from .tunnel_registry import TunnelRegistry

if TYPE_CHECKING:
    from .h2_pool import H2Pool
    from .h2_upstream_connection import UpstreamH2Connection

T = TypeVar("T")

MAX_RETIRED_POOLS = 16  # pools without connections that a reload has replaced

TlsKey: TypeAlias = tuple[str, bool, str, bool, bool]


def _tls_key(upstream: Upstream) -> TlsKey:
    """Return the settings that the upstream's TLS context is made from."""
    return (
        upstream.scheme,
        upstream.verify,
        upstream.ca_pem,
        upstream.trust_system,
        upstream.http2,
    )


class Forwarder:
    """Forwards the requests of one worker, with a connection pool per upstream."""

    def __init__(self, settings: ForwardSettings | None = None) -> None:
        self._settings = settings or ForwardSettings()
        self._tunnels = TunnelRegistry(self._settings)
        self._pools: dict[str, UpstreamPool] = {}
        self._identity_fields = FieldCache(encode_forwardable_fields)
        # Pools replaced by a reload; requests may still use their connections.
        self._replaced: list[UpstreamPool] = []
        self._contexts: dict[TlsKey, ssl.SSLContext] = {}
        self._http2: dict[UpstreamPool, H2Pool] = {}

    async def close(self) -> None:
        """Close all connections."""
        pools = [*self._pools.values(), *self._replaced]
        self._tunnels.close()
        for pool in pools:
            pool.close()
        for http2 in self._http2.values():
            await http2.close()
        for pool in pools:
            await close_all(pool.streams)
            await close_all(pool.tunnels)

    def try_fast_path(self, exchange: FastPathExchange, forward: Forward) -> bool:
        """Forward without a task; return False, with no effect, if that can't be."""
        pool = self._pools.get(forward.upstream.id)
        if pool is None or pool.upstream is not forward.upstream:
            return False
        return try_fast_path(pool, self._identity_fields, exchange, forward)

    async def forward(
        self,
        exchange: ExchangeProtocol,
        forward: Forward,
        sent: SentRequest | None = None,
    ) -> None:
        """Forward the request, or complete the one that the fast path has *sent*.

        Raises `UpstreamError` if the upstream fails before the response is started.
        """
        if sent is None:
            exchange.forwarded_at = monotonic()
        elif sent.stream is None:
            raise UpstreamError(sent.failure)
        await self._prepare(forward.upstream)
        pool = self._pool(forward.upstream)
        if sent is not None and sent.stream is not None:
            relay = Relay(exchange, forward, sent.stream, received=sent.take_received())
            await run_relay(relay, pool)
        elif forward.upstream.http2:
            await self._send_http2(exchange, forward, pool)
        else:
            await self._send(exchange, forward, pool)

    async def _send(
        self, exchange: ExchangeProtocol, forward: Forward, pool: UpstreamPool
    ) -> None:
        """Send a request over HTTP/1.1; retry on another connection if one is stale."""
        retryable = exchange.body.length == 0 and forward.method in IDEMPOTENT
        may_reuse = None if forward.upgrade else retryable
        stream = None if forward.upgrade else pool.acquire(retryable=retryable)
        while True:
            reused = stream is not None
            if stream is None:
                stream = await self._connect(
                    exchange, pool, pool.connect(retryable=may_reuse)
                )
                reused = stream.idle_since > 0.0
            relay = Relay(
                exchange, forward, stream, reused=reused, tunnels=self._tunnels
            )
            try:
                await run_relay(relay, pool)
            except StaleConnection:
                if not retryable:
                    raise UpstreamError("closed_early") from None
                stream = None
            else:
                return

    async def _send_http2(
        self, exchange: ExchangeProtocol, forward: Forward, pool: UpstreamPool
    ) -> None:
        # Imported when the first request needs them.
        from .h2_pool import H2Pool
        from .h2_relay import forward_over_h2

        http2 = self._http2.get(pool) or H2Pool(
            pool.connect, self._settings, keep_alive=pool.upstream.keep_alive
        )
        self._http2[pool] = http2

        async def connect() -> UpstreamH2Connection:
            return await self._connect(exchange, pool, http2.acquire())

        await forward_over_h2(exchange, forward, connect)

    # Pools.

    def _pool(self, upstream: Upstream) -> UpstreamPool:
        """Return the pool for *upstream*, which may be from before or after a reload."""
        current = self._pools.get(upstream.id)
        if current is not None and current.upstream == upstream:
            current.upstream = upstream  # equal, but another object after a reload
            return current
        pool = self._take_replaced(upstream)
        if pool is None:
            pool = UpstreamPool(upstream, self._context(upstream), self._settings)
            if current is not None:
                self._retire(current)
        else:
            # A request from before the reload may get here: both pools stay in use.
            pool.resume()
        if current is not None:
            self._replaced.append(current)
        self._pools[upstream.id] = pool
        return pool

    def _take_replaced(self, upstream: Upstream) -> UpstreamPool | None:
        """Remove and return the replaced pool for *upstream*; retire unused pools."""
        taken = next((one for one in self._replaced if one.upstream == upstream), None)
        unused = [
            one
            for one in self._replaced
            if not one.has_connections and one is not taken
        ]
        removed = (taken, *unused[:-MAX_RETIRED_POOLS])
        for pool in unused[:-MAX_RETIRED_POOLS]:
            self._retire(pool)
        self._replaced = [one for one in self._replaced if one not in removed]
        return taken

    def _retire(self, pool: UpstreamPool) -> None:
        pool.retire()
        if (http2 := self._http2.pop(pool, None)) is not None:
            http2.retire()

    async def _prepare(self, upstream: Upstream) -> None:
        """Create the TLS context in a thread, because it reads the system's CAs."""
        key = _tls_key(upstream)
        if upstream.scheme == "https" and key not in self._contexts:
            self._contexts[key] = await asyncio.to_thread(upstream_context, upstream)

    def _context(self, upstream: Upstream) -> ssl.SSLContext | None:
        return self._contexts.get(_tls_key(upstream))

    async def _connect(
        self,
        exchange: ExchangeProtocol,
        pool: UpstreamPool,
        connecting: Coroutine[Any, Any, T],
    ) -> T:
        """Return the result of *connecting* unless the client disconnects.

        Logs a failure and raises `UpstreamError`.
        """
        limit = self._settings.connect_timeout
        try:
            async with timeout_unless_disconnected(exchange.disconnected, limit):
                return await connecting
        except TimeoutError:
            http2 = self._http2.get(pool)
            if pool.is_full or (http2 is not None and http2.is_full):
                cause, reason = "connection pool full: no free connection", "busy"
            else:
                cause, reason = "connect timeout", "timeout"
            cause = f"{cause} after {limit:g} s"
        except OSError as error:
            cause, reason = pool.describe_failure(error), "connection_failed"
        exchange.worker.logs.error(MODULE, f"upstream {pool.upstream.id}: {cause}")
        raise UpstreamError(reason)
