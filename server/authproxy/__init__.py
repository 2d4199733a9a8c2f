"""authproxy: sign-in and access rules in front of any application."""

__version__ = "0.1.0"
