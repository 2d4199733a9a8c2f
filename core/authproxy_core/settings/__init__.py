"""Settings of an `AuthProxy`: frozen values that validate themselves.

There is one module for each group of options.
"""

from .auth_bypass import AuthBypassSettings
from .credentials import CredentialSettings, JwtIssuer
from .providers import (
    AllowRule,
    AzureSettings,
    BitbucketSettings,
    EntraIdSettings,
    GithubSettings,
    GitlabSettings,
    GoogleSettings,
    LoginGovSettings,
    LoginParameter,
    ProviderSettings,
)
from .root import (
    ClaimSource,
    CookieSettings,
    HeaderRule,
    LogoutSettings,
    PageSettings,
    SessionSettings,
    Settings,
    UpstreamSettings,
)
from .rules import AccessRule, Condition, RuleSettings
from .secret import Secret

__all__ = [
    "AccessRule",
    "AllowRule",
    "AuthBypassSettings",
    "AzureSettings",
    "BitbucketSettings",
    "ClaimSource",
    "Condition",
    "CookieSettings",
    "CredentialSettings",
    "EntraIdSettings",
    "GithubSettings",
    "GitlabSettings",
    "GoogleSettings",
    "HeaderRule",
    "JwtIssuer",
    "LoginGovSettings",
    "LoginParameter",
    "LogoutSettings",
    "PageSettings",
    "ProviderSettings",
    "RuleSettings",
    "Secret",
    "SessionSettings",
    "Settings",
    "UpstreamSettings",
]
