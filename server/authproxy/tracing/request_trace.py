"""The spans of one request, and the function that performs its effects with spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)

from authproxy_core.effects import (
    Add,
    Delete,
    Effect,
    Fetch,
    Load,
    LoadAll,
    Lock,
    Members,
    Remove,
    Save,
    Unlock,
)
from authproxy_core.errors import AuthProxyError
from authproxy_core.messages import Event, Response
from authproxy_core.request.trace import TRACEPARENT

from ..contract import BodySource, EffectPerformer, OnLoaded, Perform

ROOT = Context()
STORE_OPERATIONS: Mapping[type[Effect[Any]], str] = {
    Load: "load",
    LoadAll: "load_all",
    Save: "save",
    Delete: "delete",
    Add: "add",
    Members: "members",
    Remove: "remove",
    Lock: "lock",
    Unlock: "unlock",
}
REFRESH_EVENTS = {
    "refreshed": "refreshed",
    "refresh_failed": "failed",
    "session_ended": "ended",
}

# The trace of the request that the running task serves. A task inherits the value of
# the call that spawns it, and `AuthProxy.handle` is called there.
CURRENT: ContextVar[RequestTrace | None] = ContextVar("CURRENT", default=None)


class RequestTrace:
    """The open spans of one request; effects get the innermost one as their parent."""

    __slots__ = ("_locks", "_open", "_tracer", "span")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self.span = span
        self._tracer = tracer
        self._open = [span]
        self._locks: list[str] = []  # keys of the locks whose spans are open

    @property
    def traceparent(self) -> bytes:
        """The field that makes the innermost span the parent of another server's."""
        context = self._open[-1].get_span_context()
        flags = context.trace_flags & 1  # sampled; other flags are not defined
        return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, flags)

    def enter(self, name: str, attributes: Mapping[str, str] | None = None) -> None:
        """Open a span that is the parent of all spans until it is left."""
        self._open.append(self._start(name, SpanKind.INTERNAL, attributes or {}))

    def leave(self) -> None:
        """End the innermost span of `enter`."""
        self._open.pop().end()

    def note(self, event: Event) -> None:
        """Set the result of the refresh that *event* reports."""
        if self._locks and event.kind in REFRESH_EVENTS:
            self._open[-1].set_attribute(
                "authproxy.refresh.result", REFRESH_EVENTS[event.kind]
            )

    def set_login_result(self, result: str, reason: str) -> None:
        """Set the result of the login, which is the outermost child."""
        if len(self._open) > 1:
            self._open[1].set_attribute("authproxy.login.result", result)
            self._open[1].set_attribute("authproxy.login.reason", reason)

    def end(self) -> None:
        """End all spans, the innermost first."""
        while self._open:
            self.leave()

    async def perform(
        self, perform: Perform, store_kind: str, effect: Effect[Any]
    ) -> Any:
        """Return the result of an effect, performed by *perform*, with a span.

        A lock with a purpose opens a span that its release ends.
        """
        match effect:
            case Fetch():
                return await self._fetch(perform, effect)
            case Lock(purpose=purpose) if purpose:
                return await self._lock_with_purpose(perform, effect)
            case Unlock(key=key) if key in self._locks[-1:]:
                self._locks.pop()
                self.leave()
        operation = STORE_OPERATIONS.get(type(effect))
        is_local = isinstance(effect, Lock | Unlock) and effect.local
        if operation is None or is_local or store_kind == "none":
            return await perform(effect)
        attributes = {"db.system.name": store_kind, "db.operation.name": operation}
        with self._child(f"{operation} {store_kind}", attributes):
            return await perform(effect)

    async def _lock_with_purpose(self, perform: Perform, effect: Lock) -> bool:
        self.enter(effect.purpose)
        acquired: bool = await perform(effect)
        if acquired:
            self._locks.append(effect.key)
        else:
            self.leave()
        return acquired

    async def _fetch(self, perform: Perform, effect: Fetch) -> Response:
        """Send a provider request; its URL is no attribute, it may contain tokens."""
        url = urlsplit(effect.url)
        attributes: dict[str, str | int] = {
            "http.request.method": effect.method,
            "server.address": url.hostname or "",
            "server.port": url.port or (443 if url.scheme == "https" else 80),
            "url.scheme": url.scheme,
            "authproxy.purpose": effect.purpose,
        }
        with self._child(f"{effect.method} {effect.purpose}", attributes) as span:
            field = (TRACEPARENT, self.traceparent)
            traced = replace(effect, headers=(*effect.headers, field))
            response: Response = await perform(traced)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 400:
                set_failed(span, str(response.status))
        return response

    @contextmanager
    def _child(self, name: str, attributes: Mapping[str, str | int]) -> Iterator[Span]:
        span = self._start(name, SpanKind.CLIENT, attributes)
        self._open.append(span)
        try:
            yield span
        except AuthProxyError as error:
            # Errors of effects name hosts and causes, but no URL, field or key.
            set_failed(span, error.code, str(error))
            raise
        finally:
            self._open.remove(span)
            span.end()

    def _start(
        self, name: str, kind: SpanKind, attributes: Mapping[str, str | int]
    ) -> Span:
        parent = set_span_in_context(self._open[-1], ROOT)
        return self._tracer.start_span(name, parent, kind, attributes)


class TracedPerformer:
    """Performs effects with spans; implements `contract.EffectPerformer`."""

    def __init__(self, performer: EffectPerformer, store_kind: str) -> None:
        self._performer = performer
        self._store_kind = store_kind

    def bound_to(self, body: BodySource) -> Perform:
        """Return the function that performs the effects of one request's flow."""
        return partial(self._perform, self._performer.bound_to(body))

    def start_load(self, effect: Effect[Any], on_loaded: OnLoaded) -> bool:
        """Leave all reads to tasks: a callback has the trace of another request."""
        return False

    async def _perform(self, perform: Perform, effect: Effect[Any]) -> Any:
        trace = CURRENT.get()
        if trace is None:
            return await perform(effect)
        return await trace.perform(perform, self._store_kind, effect)


def set_failed(span: Span, error_type: str, description: str | None = None) -> None:
    """Mark *span* as failed; *error_type* is a status code or a reason code."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, description))
