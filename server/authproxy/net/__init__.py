"""Sockets, TLS, timers, tunnels and the HTTP client for providers."""
