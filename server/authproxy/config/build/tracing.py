"""Build the settings of traces."""

from __future__ import annotations

from importlib.util import find_spec

from ...server_settings import TracingSettings
from ..read.files import read_secret
from ..read.resolved import ResolvedOptions
from .provider import is_http_url

EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def build_tracing(options: ResolvedOptions) -> TracingSettings:
    """Return the settings of traces; the packages must be there if they are on."""
    endpoint = options.string("otlp_endpoint")
    if endpoint and not is_http_url(endpoint):
        options.add_mismatch(
            "otlp_endpoint", endpoint, "a URL such as http://HOST:4318"
        )
    elif endpoint and not _has_exporter():
        options.add_problem(
            "otlp_endpoint",
            "the packages of OpenTelemetry are missing: install authproxy[otlp], or "
            "build the zipapp with --otlp",
        )
    return TracingSettings(
        endpoint=endpoint,
        headers=read_secret(options, "otlp_headers"),
        service_name=options.string("otlp_service_name"),
        sample_ratio=_sample_ratio(options),
    )


def _has_exporter() -> bool:
    try:
        return find_spec(EXPORTER) is not None
    except ModuleNotFoundError:  # a parent package
        return False


def _sample_ratio(options: ResolvedOptions) -> float:
    text = options.string("trace_sample_ratio")
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if 0.0 <= ratio <= 1.0:
        return ratio
    options.add_mismatch("trace_sample_ratio", text, "a number from 0 to 1")
    return 0.0
