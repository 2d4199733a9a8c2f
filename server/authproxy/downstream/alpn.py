"""Which protocol a TLS client and we have agreed on (ALPN, RFC 7301)."""

from __future__ import annotations

import asyncio
from typing import cast

from ..serve.worker_context import WorkerContext
from .h1_connection import Connection


class AlpnProtocol(asyncio.Protocol):
    """Stands in until the handshake is over, then gives its place to the protocol.

    The module for HTTP/2 is loaded when the first client wants it.
    """

    def __init__(
        self, hub: WorkerContext, client: tuple[str, int] | None = None
    ) -> None:
        self._hub = hub
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        tls = cast(asyncio.Transport, transport)
        chosen = self._chosen(tls)
        tls.set_protocol(chosen)
        chosen.connection_made(transport)

    def _chosen(self, transport: asyncio.Transport) -> asyncio.Protocol:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            from .h2_connection import H2Connection

            return H2Connection(self._hub, self._client)
        return Connection(self._hub, self._client)
