"""An OpenID provider for development and tests; see `provider`.

The demonstration runs it, and the tests use it as an identity provider that follows
the standards and can be made to break them. It depends on the core alone.
"""
