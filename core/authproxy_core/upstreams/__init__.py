"""Requests to upstreams: routes, headers, rewriting, upgrades, signatures."""
