"""Connection pool of one upstream, and its tunnels."""

from __future__ import annotations

import ssl
from functools import partial

from authproxy_core.messages import Upstream

from ..loop.timeout_queue import TimeoutQueue
from ..net.connection_pool import ConnectionPool, PoolLimits
from ..net.dial import Stream, describe_error, dial, dial_unix
from ..net.origin import Origin
from ..server_settings import ForwardSettings


class UpstreamPool(ConnectionPool):
    """Connections to *upstream*, with TLS if there is a *context*.

    ``tunnels`` are the upgraded connections, ``response_timeouts`` the timeouts of the
    fast path.
    """

    def __init__(
        self,
        upstream: Upstream,
        context: ssl.SSLContext | None,
        settings: ForwardSettings,
    ) -> None:
        super().__init__(
            partial(_dial, upstream, context),
            PoolLimits(
                connections=settings.connections,
                idle_connections=settings.idle_connections,
                idle_timeout=settings.idle_timeout,
                recent=settings.recent,
            ),
            keep_alive=upstream.keep_alive,
        )
        self.upstream = upstream
        self.tunnels: set[Stream] = set()
        self.response_timeouts = TimeoutQueue(upstream.timeout)

    @property
    def has_connections(self) -> bool:
        """Whether there is any connection, including tunnels."""
        return bool(self.streams or self.tunnels)

    def detach(self, stream: Stream) -> None:
        """Move *stream* to the tunnels, which don't count for the connection limit.

        There may be as many tunnels as clients.
        """
        stream.move(self.tunnels)
        self._wake_waiter()

    def describe_failure(self, error: OSError) -> str:
        """Return the cause of a failed connect, for the log."""
        upstream = self.upstream
        origin = Origin(upstream.scheme, upstream.host, upstream.port)
        return describe_error(error, upstream.unix or origin.host_port)

    def close(self) -> None:
        """Stop all timers; the caller closes ``streams`` and ``tunnels``."""
        super().close()
        self.response_timeouts.clear()


async def _dial(
    upstream: Upstream, context: ssl.SSLContext | None, streams: set[Stream]
) -> Stream:
    if upstream.unix:
        return await dial_unix(streams, upstream.unix)
    return await dial(
        streams, upstream.host, upstream.port, context, name=upstream.server_name
    )
