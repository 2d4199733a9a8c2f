"""Settings of an `AuthProxy`: frozen values that validate themselves.

There is one module for each group of options.
"""

from .root import (
    ClaimSource,
    CookieSettings,
    HeaderRule,
    LogoutSettings,
    PageSettings,
    ProviderSettings,
    Secret,
    SessionSettings,
    Settings,
    UpstreamSettings,
)

__all__ = [
    "ClaimSource",
    "CookieSettings",
    "HeaderRule",
    "LogoutSettings",
    "PageSettings",
    "ProviderSettings",
    "Secret",
    "SessionSettings",
    "Settings",
    "UpstreamSettings",
]
