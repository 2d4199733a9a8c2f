"""Proxy endpoints without a login flow, and the middleware for all endpoints."""
