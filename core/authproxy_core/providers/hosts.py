"""Binding of providers to hosts.

On a host with bound providers only these are offered; unbound providers are offered
on all other hosts. A session is valid only where its provider is offered.
"""

from __future__ import annotations

from ..settings.credentials import HTPASSWD
from ..settings.root import Settings


class HostBinding:
    """Providers by host; ``is_active`` is true if any provider has hosts."""

    def __init__(self, settings: Settings) -> None:
        providers = settings.providers
        self._default = providers[0].id
        self._everywhere = tuple(one.id for one in providers if not one.hosts)
        self._bound = {
            host.lower(): (one.id,) for one in providers for host in one.hosts
        }
        self.is_active = bool(self._bound)

    def offered_providers(self, host: str) -> tuple[str, ...]:
        """Return the ids of the providers offered on *host* (with or without port)."""
        if not self.is_active:
            return self._everywhere
        host = host.lower()
        without_port = host if host.endswith("]") else host.rpartition(":")[0] or host
        return (
            self._bound.get(host)
            or self._bound.get(without_port.rstrip("."))
            or self._everywhere
        )

    def choose(self, host: str, requested: str) -> str | None:
        """Return *requested* if it is offered on *host*, else the first id or None."""
        offered = self.offered_providers(host)
        if requested in offered:
            return requested
        return offered[0] if offered else None

    def serves(self, host: str, provider: str) -> bool:
        """Return whether sessions of *provider* ("": the first) are valid on *host*."""
        if provider == HTPASSWD:
            return True  # the htpasswd file applies to all hosts
        return (provider or self._default) in self.offered_providers(host)
