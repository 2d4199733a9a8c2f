"""Forwards requests to upstreams, over connections that are kept.

The core gives the whole head; the framing is made here. Only a request without a body
whose method is idempotent may meet a connection that the upstream closes in the moment
of its reuse, for only that is sent again.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from authproxy_core.messages import Forward, Upstream

from .dial import Stream, close_all, upstream_context
from .direct import IDEMPOTENT, begin
from .exchange import Exchange
from .hub import Answering
from .pool import Pool
from .relay import Relay, Stale, carry
from .server_settings import ForwardSettings
from .serving import MODULE, UpstreamFailed

if TYPE_CHECKING:
    from .h2_upstream import H2Upstream
    from .logs import Logs


class Forwarder:
    """Forwards to upstreams; keeps a pool of connections to each. One per worker."""

    def __init__(self, settings: ForwardSettings | None = None) -> None:
        self._settings = settings or ForwardSettings()
        self._pools: dict[str, Pool] = {}
        self._replaced: list[Pool] = []  # by a reload; some may still be in use
        self._contexts: dict[tuple[bool, str, bool, bool], ssl.SSLContext] = {}
        self._http2: dict[Pool, H2Upstream] = {}

    async def close(self) -> None:
        """Close every connection."""
        pools = [*self._pools.values(), *self._replaced]
        for pool in pools:
            pool.clear()
        for http2 in self._http2.values():
            await http2.close()
        for pool in pools:
            await close_all(pool.streams)

    def begin(self, exchange: Exchange, forward: Forward) -> bool:
        """Carry a request without a task, if that can be."""
        pool = self._pools.get(forward.upstream.id)
        if pool is None or pool.upstream is not forward.upstream:
            return False
        return begin(pool, exchange, forward)

    async def forward(self, exchange: Answering, forward: Forward) -> None:
        """Carry one request; raises `UpstreamFailed` while nothing has been sent."""
        pool = self._pool(forward.upstream)
        if forward.upstream.http2:
            await self._over_http2(exchange, pool).forward(exchange, forward)
            return
        repeatable = forward.method in IDEMPOTENT and exchange.body.length == 0
        stream = None if forward.upgrade else pool.take(repeatable=repeatable)
        if stream is not None:
            try:
                await carry(Relay(exchange, forward, stream, reused=True), pool)
            except Stale:
                if not repeatable:
                    raise UpstreamFailed("closed_early") from None
            else:
                return
        stream = await self._connect(exchange.hub.logs, pool)
        await carry(Relay(exchange, forward, stream, settings=self._settings), pool)

    def _over_http2(self, exchange: Answering, pool: Pool) -> H2Upstream:
        found = self._http2.get(pool)
        if found is None:
            # Loaded when the first request needs it.
            from .h2_upstream import H2Upstream

            logs = exchange.hub.logs
            found = self._http2[pool] = H2Upstream(
                lambda: self._connect(logs, pool), pool.upstream.scheme.encode()
            )
        return found

    def _pool(self, upstream: Upstream) -> Pool:
        pool = self._pools.get(upstream.id)
        if pool is not None and pool.upstream == upstream:
            pool.upstream = upstream  # after a reload another object, but the same
        else:
            if pool is not None:
                self._replaced = [one for one in self._replaced if one.streams]
                self._replaced.append(pool)
                pool.retire()
            pool = Pool(upstream, self._context(upstream), self._settings)
            self._pools[upstream.id] = pool
        return pool

    def _context(self, upstream: Upstream) -> ssl.SSLContext | None:
        if upstream.scheme != "https":
            return None
        key = (
            upstream.verify,
            upstream.ca_pem,
            upstream.trust_system,
            upstream.http2,
        )
        if key not in self._contexts:
            self._contexts[key] = upstream_context(upstream)
        return self._contexts[key]

    async def _connect(self, logs: Logs, pool: Pool) -> Stream:
        limit = self._settings.connect_timeout
        try:
            async with asyncio.timeout(limit) as deadline:
                return await pool.connect()
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
            raise UpstreamFailed(reason) from None
