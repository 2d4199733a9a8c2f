"""Providers that differ from plain OpenID Connect, one module each."""
