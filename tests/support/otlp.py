"""A collector that receives traces by OTLP over HTTP and decodes them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.in_thread import InThread
from support.ports import LOOPBACK
from support.processes import wait_for


@dataclass(frozen=True)
class Received:
    """A span as received; IDs are hexadecimal, ``kind`` is SERVER, CLIENT or INTERNAL."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, str | int]
    failed: bool
    resource: Mapping[str, str | int]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.collector.receive(self)  # type: ignore[attr-defined]

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


class Collector(InThread):
    """Receives spans at ``/v1/traces``; ``status`` is its response, ``open`` lets it."""

    def __init__(self) -> None:
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        self.fields: list[dict[str, str]] = []  # of all requests, in lower case
        self.raw = b""
        self._spans: list[Received] = []
        server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
        server.daemon_threads = True
        server.collector = self  # type: ignore[attr-defined]
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        super().__init__(server)

    @property
    def url(self) -> str:
        """The base URL, for ``otlp_endpoint``."""
        return f"http://{LOOPBACK}:{self.port}"

    def receive(self, handler: BaseHTTPRequestHandler) -> None:
        """Take the spans of one export request and respond."""
        body = handler.rfile.read(int(handler.headers["content-length"]))
        self.open.wait()
        if self.status == 200:
            assert handler.path == "/v1/traces"
            self.raw += body
            self.fields.append({k.lower(): v for k, v in handler.headers.items()})
            self._spans += _spans(body)
        handler.send_response(self.status)
        handler.send_header("content-type", "application/x-protobuf")
        handler.send_header("content-length", "0")
        handler.end_headers()

    @property
    def spans(self) -> list[Received]:
        """The spans received so far."""
        return list(self._spans)

    def wait_for(self, name: str, trace: str = "") -> Received:
        """Wait for a span with *name*, of a trace; return the last one."""
        wait_for(lambda: bool(self._find(name, trace)), f"a span {name}", 30)
        return self._find(name, trace)[-1]

    def _find(self, name: str, trace: str) -> list[Received]:
        return [
            span
            for span in self.spans
            if span.name == name and trace in ("", span.trace)
        ]

    def children(self, parent: Received) -> list[Received]:
        """Return the spans below *parent* in the order of their end."""
        return [span for span in self.spans if span.parent == parent.id]


def _spans(body: bytes) -> list[Received]:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    return [
        Received(
            name=span.name,
            kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            attributes=_values(span.attributes),
            failed=span.status.code == 2,  # STATUS_CODE_ERROR
            resource=_values(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _values(attributes: list[KeyValue]) -> dict[str, str | int]:
    return {
        pair.key: pair.value.string_value or pair.value.int_value for pair in attributes
    }
