"""The open tunnels of one worker: whether each may stay open is asked now and then.

Thousands of them may do nothing for hours, so none has a task, nor more of the request
that began it than the question needs.
"""

from __future__ import annotations

from time import monotonic

from msgspec.structs import replace

from authproxy_core.drive import drive
from authproxy_core.errors import RequestError
from authproxy_core.messages import Forward, Request

from ..net.timeout_queue import TimeoutQueue
from ..net.tunnel import Tunnel
from ..serve.worker_context import MODULE, WorkerContext
from ..server_settings import ForwardSettings


class ConsumedBody:
    """Of a request whose connection has changed its protocol."""

    async def read_all(self, limit: int) -> bytes:
        """Nobody reads it."""
        raise RequestError("the body is gone")

    def unread(self, data: bytes) -> None:
        """Nobody has read it."""


NO_BODY = ConsumedBody()


class TunnelRegistry:
    """Ends tunnels whose time is over, or whose session."""

    def __init__(self, settings: ForwardSettings) -> None:
        self._lifetime = settings.upgrade_lifetime
        self._checks = TimeoutQueue(settings.upgrade_check_interval)

    def keep(
        self, tunnel: Tunnel, hub: WorkerContext, request: Request, forward: Forward
    ) -> None:
        """Look after *tunnel*, which *request* began by *forward*."""
        if self._lifetime:
            tunnel.end_within(self._lifetime)
        watched = _MonitoredTunnel(self._checks, tunnel, hub, request, forward)
        self._checks.add(watched, monotonic())
        tunnel.add_done_callback(watched.forget)

    def close(self) -> None:
        """Ask no more."""
        self._checks.clear()


class _MonitoredTunnel:
    """A tunnel, and what must hold for it."""

    __slots__ = ("_checks", "_forward", "_hub", "_request", "_tunnel")

    def __init__(
        self,
        checks: TimeoutQueue,
        tunnel: Tunnel,
        hub: WorkerContext,
        request: Request,
        forward: Forward,
    ) -> None:
        self._checks = checks
        self._tunnel = tunnel
        self._hub = hub
        self._request = request
        self._forward = without_headers(forward)

    def timed_out(self) -> None:
        """It is time to ask."""
        self._hub.spawn(self._ask())

    def forget(self) -> None:
        """The tunnel has ended."""
        self._checks.discard(self)

    async def _ask(self) -> None:
        if not await self._lasts():
            self._tunnel.abort()
        elif not self._tunnel.over:
            self._checks.add(self, monotonic())

    async def _lasts(self) -> bool:
        """Whether the session that began the tunnel still holds."""
        hub, request = self._hub, self._request
        perform = hub.performer.bound_to(NO_BODY)
        try:
            lasts = await drive(
                hub.application.is_session_valid(request, self._forward), perform
            )
        except Exception as error:
            hub.logs.exception(MODULE, f"request {request.id} failed", error)
            return False
        if not lasts:
            hub.logs.info(MODULE, f"request {request.id}: the session is over")
        return lasts


def without_headers(forward: Forward) -> Forward:
    """*forward* without the fields that have been sent."""
    return replace(forward, headers=(), response_headers=(), identity=())
