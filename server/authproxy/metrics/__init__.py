"""Metrics in Prometheus' text format, in memory that all workers share."""
