"""Configurable parameters of the authorization request: PKCE, scope, login_url_*."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from ..encoding import b64url
from ..go_regex import Pattern, compile_pattern
from ..settings.provider_types import PROVIDER_TYPES
from ..settings.root import ProviderSettings


def code_challenge(verifier: str, method: str) -> str:
    """Return the code challenge for *verifier* (RFC 7636 §4.2)."""
    if method == "plain":
        return verifier
    return b64url(hashlib.sha256(verifier.encode()).digest()).decode()


def build_scope(settings: ProviderSettings) -> str:
    """Return the configured or default scope, plus scopes that restrictions need."""
    kind = PROVIDER_TYPES[settings.type]
    scopes = [settings.scope or kind.scope]
    if kind.groups_scope and not settings.scope:
        # Roles need no scope.
        groups = any(not group.startswith("role:") for group in settings.allowed_groups)
        scopes += ["groups"] if groups else []
    if settings.type == "bitbucket":
        has_account = "account" in scopes[0].split()
        needs_account = settings.bitbucket.workspace and not has_account
        scopes += ["account"] if needs_account else []
        scopes += ["repository"] if settings.bitbucket.repository else []
    if settings.type == "gitlab" and settings.gitlab.projects:
        scopes.append("read_api")
    return " ".join(scopes)


class LoginParameters:
    """The configured login parameters, some of which a request may set."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._parameters = settings.login_parameters
        self._texts: dict[str, set[str]] = {}
        self._patterns: dict[str, list[Pattern]] = {}
        for parameter in self._parameters:
            rules = parameter.allow
            self._texts[parameter.name] = {
                rule.text for rule in rules if not rule.is_pattern
            }
            self._patterns[parameter.name] = [
                compile_pattern(rule.text) for rule in rules if rule.is_pattern
            ]

    def pairs(self, requested: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield names and values; an allowed value in *requested* takes precedence."""
        for parameter in self._parameters:
            value = requested.get(parameter.name)
            if value is not None and self._allows(parameter.name, value):
                yield parameter.name, value
            else:
                yield from ((parameter.name, fixed) for fixed in parameter.values)

    def fixed_pairs(self) -> Iterator[tuple[str, str]]:
        """Yield names and values of the parameters that a request cannot set."""
        for parameter in self._parameters:
            if not parameter.allow:
                yield from ((parameter.name, fixed) for fixed in parameter.values)

    def _allows(self, name: str, value: str) -> bool:
        if value in self._texts[name]:
            return True
        return any(pattern.search(value) for pattern in self._patterns[name])
