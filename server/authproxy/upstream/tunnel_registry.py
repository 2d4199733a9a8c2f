"""Lifetime and session checks of the open tunnels of one worker.

Thousands of tunnels may be idle for hours, so a tunnel has no task, and keeps only the
parts of its request that the session check needs.
"""

from __future__ import annotations

from time import monotonic

from msgspec.structs import replace

from authproxy_core.drive import drive
from authproxy_core.errors import RequestError
from authproxy_core.messages import Forward, Request

from ..contract import MODULE, WorkerServices
from ..loop.timeout_queue import TimeoutQueue
from ..net.tunnel import Tunnel
from ..server_settings import ForwardSettings


class ConsumedBody:
    """The body of a request whose connection has switched protocols."""

    async def read_all(self, limit: int) -> bytes:
        """Raise `RequestError`: the bytes after the head belong to the tunnel."""
        raise RequestError("the request body can't be read after an upgrade")

    def unread(self, data: bytes) -> None:
        """Do nothing: the body can't have been read."""


CONSUMED_BODY = ConsumedBody()


class TunnelRegistry:
    """Closes tunnels after their lifetime, or when their session ends."""

    def __init__(self, settings: ForwardSettings) -> None:
        self._lifetime = settings.upgrade_lifetime
        self._checks = TimeoutQueue(settings.upgrade_check_interval)

    def add(
        self, tunnel: Tunnel, worker: WorkerServices, request: Request, forward: Forward
    ) -> None:
        """Monitor *tunnel*, which *request* has opened by *forward*."""
        if self._lifetime:
            tunnel.abort_after(self._lifetime)
        monitored = _MonitoredTunnel(self._checks, tunnel, worker, request, forward)
        self._checks.add(monitored, monotonic())
        tunnel.add_done_callback(monitored.stop)

    def close(self) -> None:
        """Stop all session checks."""
        self._checks.clear()


class _MonitoredTunnel:
    """An open tunnel whose session is checked at intervals."""

    __slots__ = ("_checks", "_forward", "_request", "_tunnel", "_worker")

    def __init__(
        self,
        checks: TimeoutQueue,
        tunnel: Tunnel,
        worker: WorkerServices,
        request: Request,
        forward: Forward,
    ) -> None:
        self._checks = checks
        self._tunnel = tunnel
        self._worker = worker
        self._request = request
        self._forward = without_headers(forward)

    def on_timeout(self) -> None:
        """Check the session, because the interval has passed."""
        self._worker.spawn(self._check())

    def stop(self) -> None:
        """Stop the checks, because the tunnel has closed."""
        self._checks.discard(self)

    async def _check(self) -> None:
        if not await self._is_session_valid():
            self._tunnel.abort()
        elif not self._tunnel.closed:
            self._checks.add(self, monotonic())

    async def _is_session_valid(self) -> bool:
        """Return whether the session is valid; an error counts as invalid."""
        worker, request = self._worker, self._request
        perform = worker.performer.bound_to(CONSUMED_BODY)
        try:
            valid = await drive(
                worker.application.is_session_valid(request, self._forward), perform
            )
        except Exception as error:
            worker.logs.exception(MODULE, f"request {request.id} failed", error)
            return False
        if not valid:
            worker.logs.info(
                MODULE,
                f"request {request.id}: WebSocket closed: session expired or revoked",
            )
        return valid


def without_headers(forward: Forward) -> Forward:
    """Return *forward* without its fields, which have been sent."""
    return replace(forward, headers=(), response_headers=(), identity=())
