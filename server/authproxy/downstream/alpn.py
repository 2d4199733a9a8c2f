"""Protocol selection for TLS clients by ALPN (RFC 7301)."""

from __future__ import annotations

import asyncio
from typing import cast

from ..serve.worker_context import WorkerContext
from .h1_connection import Connection


class AlpnProtocol(asyncio.Protocol):
    """Protocol object until the TLS handshake ends, then replaced by the selected one.

    The HTTP/2 module is imported when the first client selects it.
    """

    def __init__(
        self, worker: WorkerContext, client: tuple[str, int] | None = None
    ) -> None:
        self._worker = worker
        self._proxied_client = client  # from the PROXY protocol header

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Replace this protocol, because the handshake has ended."""
        tls = cast(asyncio.Transport, transport)
        selected = self._create_protocol(tls)
        tls.set_protocol(selected)
        selected.connection_made(transport)

    def _create_protocol(self, transport: asyncio.Transport) -> asyncio.Protocol:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            from .h2_connection import H2Connection

            return H2Connection(self._worker, self._proxied_client)
        return Connection(self._worker, self._proxied_client)
