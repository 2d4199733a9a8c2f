"""Endpoints below the proxy prefix, and the middleware around all of them."""
