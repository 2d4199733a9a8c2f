"""The traces of a worker: `Tracing` if a collector is configured, else `NoTraces`.

Without a collector, connections use the same objects as if there were no traces, and
OpenTelemetry is not imported.
"""

from __future__ import annotations

from typing import Any, Protocol

from authproxy_core import AuthProxy
from authproxy_core.messages import Event

from ..contract import Application, EffectPerformer
from ..logs.logger import Logs
from ..metrics.metrics import Metrics
from ..serve.worker_context import WorkerContext
from ..server_settings import ServerSettings


class Traces(Protocol):
    """What a worker needs of `Tracing`."""

    def application(self, proxy: AuthProxy) -> Application:
        """Return the application for the connections."""

    def create_context(
        self, proxy: AuthProxy, performer: EffectPerformer, *services: Any
    ) -> WorkerContext:
        """Return the context of the connections; *services* are its other arguments."""

    def note(self, event: Event) -> None:
        """Take notice of an event of the core."""

    def publish(self, metrics: Metrics, logs: Logs) -> None:
        """Count the spans, and log whether the collector accepts them."""

    async def close(self) -> None:
        """Send the remaining spans, for a limited time."""


class NoTraces:
    """Leaves everything as it is."""

    def application(self, proxy: AuthProxy) -> Application:
        """Return *proxy*."""
        return proxy

    def create_context(
        self, proxy: AuthProxy, performer: EffectPerformer, *services: Any
    ) -> WorkerContext:
        """Return a plain context."""
        return WorkerContext(proxy, performer, *services)

    def note(self, event: Event) -> None:
        """Do nothing."""

    def publish(self, metrics: Metrics, logs: Logs) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


def create_traces(settings: ServerSettings) -> Traces:
    """Return the traces of a worker process, which must exist: a thread is started."""
    if not settings.tracing.endpoint:
        return NoTraces()
    from ..tracing.tracing import Tracing  # imports the optional packages

    return Tracing(settings)
