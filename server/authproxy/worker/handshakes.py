"""Accepted connections that cannot send a request yet: PROXY protocol header, TLS.

A silent client would keep its place until the timeout, so unfinished handshakes have a
limit of their own, at which the oldest is closed: one without a single byte before one
that has begun. Each is a task; cancelling it closes the connection.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import cast

from authproxy_core.messages import Respond

from ..contract import MODULE
from ..downstream.alpn import AlpnProtocol
from ..downstream.h1_connection import Connection
from ..http.response_encoder import encode_response
from ..net.addresses import format_peer
from ..net.listeners import ListeningSocket
from ..net.peek import peek, wait_readable
from ..net.proxy_protocol import TrustedSources, read_header
from ..serve.worker_context import WorkerContext

HANDSHAKE_TIMEOUT = 10.0  # seconds, from the accept to the end of the TLS handshake
LINGER_TIMEOUT = 2.0  # seconds for the client to read why it is rejected
LINGER_READ_BYTES = 64 << 10
MAX_LINGER_READS = 16
HTTP_METHOD_START = range(ord("A"), ord("Z") + 1)  # no TLS record starts like this
PLAIN_HTTP = Respond(
    400,
    ((b"content-type", b"text/plain; charset=utf-8"),),
    b"This port speaks HTTPS, but the request was plain HTTP. Use https:// in the URL.\n",
)

Client = tuple[str, int] | None  # address and port of the PROXY protocol


class Handshakes:
    """The unfinished handshakes of one worker, in order of their age."""

    def __init__(self, context: WorkerContext) -> None:
        self.proxy_sources: TrustedSources | None = None
        self._context = context
        self._silent: dict[asyncio.Task[None], None] = {}
        self._started: dict[asyncio.Task[None], None] = {}

    def __len__(self) -> int:
        return len(self._silent) + len(self._started)

    def evict_oldest(self) -> bool:
        """Close the oldest; return False if there is none."""
        queue = self._silent or self._started
        if not queue:
            return False
        task = next(iter(queue))
        del queue[task]
        task.cancel()
        return True

    def close(self) -> None:
        """Close all."""
        while self.evict_oldest():
            pass

    async def attach(self, accepted: socket.socket, listener: ListeningSocket) -> None:
        """Do the handshake of *accepted*, then serve it.

        Raises `HeaderError`, OSError (also for a failed TLS handshake), TimeoutError.
        """
        sources = None if listener.metrics else self.proxy_sources
        expects_header = sources is not None and sources.contains(accepted)
        if listener.context is None and not expects_header:
            # The event loop sets its options: no delay, no blocking.
            await self._serve_plain(accepted, None)
            return
        accepted.setblocking(False)
        task = cast(asyncio.Task[None], asyncio.current_task())
        self._silent[task] = None
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                client: Client = None
                if expects_header:
                    client = (await read_header(accepted)).client
                if listener.context is None:
                    await self._serve_plain(accepted, client)
                else:
                    await self._serve_tls(accepted, listener, client, task)
        finally:
            self._silent.pop(task, None)
            self._started.pop(task, None)

    async def _serve_plain(self, accepted: socket.socket, client: Client) -> None:
        context = self._context
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Connection(context, client), accepted
        )

    async def _serve_tls(
        self,
        accepted: socket.socket,
        listener: ListeningSocket,
        client: Client,
        task: asyncio.Task[None],
    ) -> None:
        first = await peek(accepted, 1)
        if not first:
            raise ConnectionAbortedError
        if task in self._silent:  # it has not been evicted
            del self._silent[task]
            self._started[task] = None
        if first[0] in HTTP_METHOD_START:
            await self._reject_plain_http(accepted, client)
            return
        context = self._context
        # A handshake takes about a millisecond: one per event-loop iteration.
        await context.turns.wait_turn()
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: AlpnProtocol(context, client), accepted, ssl=listener.context
        )

    async def _reject_plain_http(self, accepted: socket.socket, client: Client) -> None:
        """Respond with 400, and close so that the client can read it."""
        _, peer = format_peer(client or accepted.getpeername())
        context = self._context
        context.logs.info(
            MODULE, f"rejected request from {peer} with 400: plain HTTP on a TLS port"
        )
        accepted.send(
            encode_response(
                PLAIN_HTTP, context.clock.date, head_only=False, persistence="close"
            )
        )
        accepted.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_TIMEOUT):
                for _ in range(MAX_LINGER_READS):
                    await wait_readable(accepted)
                    if not accepted.recv(LINGER_READ_BYTES):
                        break
        accepted.close()
