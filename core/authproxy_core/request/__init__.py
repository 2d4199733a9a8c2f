"""Parsing of requests: original request, hosts, forms, Authorization, trace context."""
