"""Numbers about what the proxy does, for Prometheus."""
