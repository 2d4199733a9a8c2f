"""Options of traces."""

from __future__ import annotations

from ...server_settings import TracingSettings
from .option import Option, in_group

TRACING_OPTIONS = in_group(
    "Traces",
    Option(
        "otlp_endpoint",
        "string",
        "",
        "URL of an OpenTelemetry collector that receives traces by OTLP over HTTP, such "
        "as http://127.0.0.1:4318; empty disables traces; requires the packages of "
        "authproxy[otlp]",
        TracingSettings.endpoint,
        is_extension=True,
    ),
    Option(
        "otlp_headers",
        "string",
        "",
        "header fields for the collector: NAME=VALUE,NAME=VALUE with percent-encoded "
        "values; empty: OTEL_EXPORTER_OTLP_HEADERS",
        TracingSettings.headers,
        secret=True,
        is_extension=True,
    ),
    Option(
        "otlp_headers_file",
        "string",
        "",
        "file with the value of otlp_headers",
        TracingSettings.headers,
        is_extension=True,
    ),
    Option(
        "otlp_service_name",
        "string",
        "",
        "service name in traces; empty: OTEL_SERVICE_NAME, else authproxy",
        TracingSettings.service_name,
        is_extension=True,
    ),
    Option(
        "trace_sample_ratio",
        "string",
        "1",
        "share of the traces that start here and are recorded, from 0 to 1; a "
        "traceparent of a trusted proxy decides itself",
        TracingSettings.sample_ratio,
        is_extension=True,
    ),
)
