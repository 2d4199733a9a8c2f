"""Sockets, TLS, tunnels and the HTTP client for providers."""
