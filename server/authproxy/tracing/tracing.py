"""Traces of one worker: wrap what its connections use, so that requests have spans."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote

from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from authproxy_core import AuthProxy
from authproxy_core.effects import Flow, Outcome
from authproxy_core.login.context import callback_paths
from authproxy_core.messages import Event, Forward, Header, Request, Respond
from authproxy_core.request.original import TrustedProxies
from authproxy_core.request.trace import TRACEPARENT, without_bad_trace

from ..contract import EffectPerformer
from ..logs.formatter import RequestRecord
from ..logs.logger import Logs
from ..metrics.metrics import Metrics
from ..serve.worker_context import WorkerContext
from ..server_settings import ServerSettings
from .limits import EXPORT_TIMEOUT, FLUSH_TIMEOUT
from .request_trace import CURRENT, ROOT, RequestTrace, TracedPerformer, set_failed
from .server_attributes import ServerAttributes
from .span_queue import SpanQueue

MODULE = "traces"  # module name in the standard log
TRACESTATE = b"tracestate"
TRACE_FIELDS = (TRACEPARENT, TRACESTATE)
TRACES_PATH = "/v1/traces"
SERVICE_NAME = "authproxy"
LOGIN_RESULTS = {
    "logged_in": "success",
    "login_denied": "denied",
    "login_failed": "failure",
}


class _Served(NamedTuple):
    """A request in flight, as received and with the trace context of its span."""

    request: Request
    traced: Request
    trace: RequestTrace
    application: TracedApplication


class Tracing:
    """The tracer of a worker, and the traces of its requests in flight."""

    def __init__(self, settings: ServerSettings) -> None:
        tracing, version = settings.tracing, settings.core.version
        self._store_kind = settings.store.kind
        self._failing = False  # as logged
        self._queue = SpanQueue(
            OTLPSpanExporter(
                _traces_url(tracing.endpoint),
                headers=_parse_headers(tracing.headers.value.decode()) or None,
                timeout=EXPORT_TIMEOUT,
            )
        )
        name = tracing.service_name or os.environ.get(OTEL_SERVICE_NAME)
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(tracing.sample_ratio)),
            resource=Resource.create(
                {
                    "service.name": name or SERVICE_NAME,
                    "service.version": version,
                    "process.pid": os.getpid(),
                }
            ),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._queue)
        self._tracer = provider.get_tracer("authproxy", version)
        # By the identity of the request, which the entry keeps alive.
        self._served: dict[int, _Served] = {}

    def begin(self, application: TracedApplication, request: Request) -> Request:
        """Start the span of *request*; return it with the context for upstreams."""
        parent = application.parent_of(request)
        span = self._tracer.start_span("HTTP", parent, SpanKind.SERVER)
        trace = RequestTrace(self._tracer, span)
        fields = [field for field in request.headers if field[0] not in TRACE_FIELDS]
        fields.append((TRACEPARENT, trace.traceparent))
        if state := span.get_span_context().trace_state.to_header():
            fields.append((TRACESTATE, state.encode()))
        traced = replace(request, headers=fields)
        self._served[id(request)] = _Served(request, traced, trace, application)
        CURRENT.set(trace)
        if request.target.partition(b"?")[0] in application.callback_paths:
            trace.enter("login")
        return traced

    def resume(self, request: Request) -> None:
        """Continue the trace of *request*, whose tunnel is open, in this task."""
        served = self._served.get(id(request))
        CURRENT.set(served.trace if served else None)

    def note(self, event: Event) -> None:
        """Set the attributes that an event of the current request reports."""
        if (trace := CURRENT.get()) is not None:
            trace.note(event)

    def end(self, record: RequestRecord, events: tuple[Event, ...]) -> None:
        """End the spans of a request; its log lines get the ID of its trace."""
        served = self._served.pop(id(record.request), None)
        if served is None:
            return
        head, traced = record.head, served.traced
        record.head = replace(
            head, headers=list(traced.headers), fields=dict(traced.headers)
        )
        span, trace = served.trace.span, served.trace
        if span.is_recording():
            for event in events:
                if result := LOGIN_RESULTS.get(event.kind):
                    trace.set_login_result(result, event.reason)
            attributes = served.application.attributes
            span.update_name(attributes.name(record))
            span.set_attributes(attributes.of(record))
            if record.status >= 500 or not record.status:
                set_failed(span, str(record.status or "no_response"))
        trace.end()

    # For the worker (`worker.traces.Traces`).

    def application(self, proxy: AuthProxy) -> TracedApplication:
        """Return the application for the connections."""
        return TracedApplication(self, proxy)

    def create_context(
        self, proxy: AuthProxy, performer: EffectPerformer, *services: Any
    ) -> TracedContext:
        """Return the context of the connections; *services* are its other arguments."""
        traced = TracedPerformer(performer, self._store_kind)
        return TracedContext(self, self.application(proxy), traced, *services)

    def publish(self, metrics: Metrics, logs: Logs) -> None:
        """Count the spans, and log whether the collector accepts them."""
        queue = self._queue
        metrics.count_spans(queue.exported, queue.dropped)
        problem = queue.problem
        if bool(problem) == self._failing:
            return
        self._failing = bool(problem)
        if problem:
            logs.error(
                MODULE,
                f"traces cannot be exported: {problem}; spans are dropped and counted",
            )
        else:
            logs.info(MODULE, "traces are exported again")

    async def close(self) -> None:
        """Export the remaining spans, for at most `FLUSH_TIMEOUT`."""
        await asyncio.to_thread(self._queue.close, FLUSH_TIMEOUT)


class TracedApplication:
    """Starts the trace of each request; implements `contract.Application`."""

    def __init__(self, tracing: Tracing, proxy: AuthProxy) -> None:
        core = proxy.settings
        self._tracing = tracing
        self._proxy = proxy
        self._trust = TrustedProxies(core)
        self.attributes = ServerAttributes(core, proxy.endpoint_paths)
        prefix = core.proxy_prefix.encode() + b"/"
        ids = [provider.id for provider in core.providers]
        self.callback_paths = {path for path, _ in callback_paths(prefix, ids)}

    def handle(self, request: Request) -> Outcome:
        """Return the decision about *request*, or the flow that leads to it."""
        return self._proxy.handle(self._tracing.begin(self, request))

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Return whether the tunnel opened by *request* may stay open."""
        self._tracing.resume(request)
        return self._proxy.is_session_valid(request, forward)

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """Return the error page for a failed upstream; *reason* is a reason code."""
        return self._proxy.upstream_failed(request, forward, reason)

    def parent_of(self, request: Request) -> Context:
        """Return the trace context that a trusted peer sent, else an empty one."""
        if not self._trust.trusts(request.peer):
            return ROOT
        return extract(without_bad_trace(request.headers))


class TracedContext(WorkerContext):
    """A `WorkerContext` that ends the trace of each request."""

    def __init__(self, tracing: Tracing, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracing = tracing

    def record_response(self, record: RequestRecord, events: tuple[Event, ...]) -> None:
        """Log and count a response, after the end of its spans."""
        self._tracing.end(record, events)
        super().record_response(record, events)


def extract(headers: Iterable[Header]) -> Context:
    """Return the trace context in *headers*; repeated tracestates are joined."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in TRACE_FIELDS:
            text = value.decode(errors="replace")
            key = name.decode()
            carrier[key] = f"{carrier[key]},{text}" if key in carrier else text
    return TraceContextTextMapPropagator().extract(carrier, ROOT)


def _traces_url(endpoint: str) -> str:
    """Return the URL for traces of a base URL, as OTEL_EXPORTER_OTLP_ENDPOINT."""
    endpoint = endpoint.rstrip("/")
    return endpoint if endpoint.endswith(TRACES_PATH) else endpoint + TRACES_PATH


def _parse_headers(text: str) -> dict[str, str]:
    """Parse ``name=value,name=value``; values are percent-encoded."""
    pairs = (field.partition("=") for field in text.strip().split(",") if field)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}
