"""Forwarding to upstreams: pools, relay, tunnels."""
