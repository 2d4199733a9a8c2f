"""Traces of requests, sent by OTLP; imported only if ``otlp_endpoint`` is set.

The packages of OpenTelemetry are optional (``authproxy[otlp]``).
"""
