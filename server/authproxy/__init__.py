"""authproxy: login and access rules in front of any program."""

__version__ = "0.1.0"
