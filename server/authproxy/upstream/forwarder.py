"""Forwards requests to upstreams, over connections that are kept.

The core gives the whole head; the framing is made here. Only a request without a body
whose method is idempotent may meet a connection that the upstream closes in the moment
of its reuse, for only that is sent again.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, TypeAlias

from authproxy_core.messages import Forward, Upstream

from ..downstream.h1_exchange import Exchange
from ..http.upstream_response import UpstreamError
from ..net.dial import Stream, close_all
from ..net.tls import upstream_context
from ..serve.field_cache import FieldCache
from ..serve.worker_context import MODULE, ExchangeProtocol
from ..server_settings import ForwardSettings
from .fast_path import IDEMPOTENT, try_fast_path
from .pool import ConnectionPool
from .relay import Relay, Stale, forwardable_fields, run_relay
from .tunnel_registry import TunnelRegistry

if TYPE_CHECKING:
    from ..logs.logger import Logs
    from .h2_relay import H2Upstream

MAX_RETIRED_POOLS = 16  # pools without connections that a reload replaced

TlsKey: TypeAlias = tuple[str, bool, str, bool, bool]


def _trust_of(upstream: Upstream) -> TlsKey:
    """What a TLS context is made from."""
    return (
        upstream.scheme,
        upstream.verify,
        upstream.ca_pem,
        upstream.trust_system,
        upstream.http2,
    )


class Forwarder:
    """Forwards to upstreams; keeps a pool of connections to each. One per worker."""

    def __init__(self, settings: ForwardSettings | None = None) -> None:
        self._settings = settings or ForwardSettings()
        self._tunnels = TunnelRegistry(self._settings)
        self._pools: dict[str, ConnectionPool] = {}
        self._identities = FieldCache(forwardable_fields)
        self._replaced: list[
            ConnectionPool
        ] = []  # by a reload; some may still be in use
        self._contexts: dict[TlsKey, ssl.SSLContext] = {}
        self._http2: dict[ConnectionPool, H2Upstream] = {}

    async def close(self) -> None:
        """Close every connection."""
        pools = [*self._pools.values(), *self._replaced]
        self._tunnels.close()
        for pool in pools:
            pool.close()
        for http2 in self._http2.values():
            await http2.close()
        for pool in pools:
            await close_all(pool.streams)
            await close_all(pool.tunnels)

    def begin(self, exchange: Exchange, forward: Forward) -> bool:
        """Carry a request without a task, if that can be."""
        pool = self._pools.get(forward.upstream.id)
        if pool is None or pool.upstream is not forward.upstream:
            return False
        return try_fast_path(pool, self._identities, exchange, forward)

    async def forward(self, exchange: ExchangeProtocol, forward: Forward) -> None:
        """Carry one request; raises `UpstreamFailed` while nothing has been sent."""
        await self._prepare(forward.upstream)
        pool = self._pool(forward.upstream)
        if forward.upstream.http2:
            await self._over_http2(exchange, pool).forward(exchange, forward)
            return
        repeatable = forward.method in IDEMPOTENT and exchange.body.length == 0
        may_reuse = None if forward.upgrade else repeatable
        stream = None if forward.upgrade else pool.take(repeatable=repeatable)
        while True:
            reused = stream is not None
            if stream is None:
                stream = await self._connect(exchange.hub.logs, pool, may_reuse)
                reused = stream.idle_since > 0.0
            relay = Relay(
                exchange, forward, stream, reused=reused, tunnels=self._tunnels
            )
            try:
                await run_relay(relay, pool)
            except Stale:
                if not repeatable:
                    raise UpstreamError("closed_early") from None
                stream = None
            else:
                return

    def _over_http2(
        self, exchange: ExchangeProtocol, pool: ConnectionPool
    ) -> H2Upstream:
        found = self._http2.get(pool)
        if found is None:
            # Loaded when the first request needs it.
            from .h2_relay import H2Upstream

            logs = exchange.hub.logs
            found = self._http2[pool] = H2Upstream(
                lambda: self._connect(logs, pool), pool.upstream.scheme.encode()
            )
        return found

    def _pool(self, upstream: Upstream) -> ConnectionPool:
        pool = self._pools.get(upstream.id)
        if pool is not None and pool.upstream == upstream:
            pool.upstream = upstream  # after a reload another object, but the same
            return pool
        # After a reload; or it is from before it, of a request that took its time, and
        # then the pool that it takes the place of keeps its connections.
        found = self._replaced_pool(upstream)
        if found is None:
            found = ConnectionPool(upstream, self._context(upstream), self._settings)
            if pool is not None:
                self._retire(pool)
        else:
            found.resume()
        if pool is not None:
            self._replaced.append(pool)
        self._pools[upstream.id] = found
        return found

    def _replaced_pool(self, upstream: Upstream) -> ConnectionPool | None:
        """The pool of *upstream* among the replaced ones, which it leaves."""
        found = next((one for one in self._replaced if one.upstream == upstream), None)
        unused = [
            one
            for one in self._replaced
            if not one.has_connections and one is not found
        ]
        gone = (found, *unused[:-MAX_RETIRED_POOLS])
        for pool in unused[:-MAX_RETIRED_POOLS]:
            self._retire(pool)
        self._replaced = [one for one in self._replaced if one not in gone]
        return found

    def _retire(self, pool: ConnectionPool) -> None:
        pool.retire()
        if (http2 := self._http2.pop(pool, None)) is not None:
            http2.retire()

    async def _prepare(self, upstream: Upstream) -> None:
        """Make the TLS context, which reads the system's certificates, in a thread."""
        key = _trust_of(upstream)
        if upstream.scheme == "https" and key not in self._contexts:
            self._contexts[key] = await asyncio.to_thread(upstream_context, upstream)

    def _context(self, upstream: Upstream) -> ssl.SSLContext | None:
        return self._contexts.get(_trust_of(upstream))

    async def _connect(
        self, logs: Logs, pool: ConnectionPool, repeatable: bool | None = None
    ) -> Stream:
        limit = self._settings.connect_timeout
        try:
            async with asyncio.timeout(limit) as deadline:
                return await pool.connect(repeatable=repeatable)
        except OSError as error:
            text, reason = pool.failure(error), "connection_failed"
            if deadline.expired():
                full = pool.is_full
                text = "no connection became free" if full else "connecting timed out"
                text, reason = (
                    f"{text} after {limit:g} s",
                    "busy" if full else "timeout",
                )
            logs.error(MODULE, f"upstream {pool.upstream.id}: {text}")
            raise UpstreamError(reason) from None
