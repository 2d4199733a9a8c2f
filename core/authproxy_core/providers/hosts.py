"""Which providers are offered on which host.

A provider that is bound to hosts is offered there alone, and nowhere else; sessions
count only where their provider is offered.
"""

from __future__ import annotations

from ..settings.credentials import HTPASSWD
from ..settings.root import Settings


class HostBinding:
    """The providers' hosts; ``active`` says whether any provider is bound at all."""

    def __init__(self, settings: Settings) -> None:
        providers = settings.providers
        self._default = providers[0].id
        self._everywhere = tuple(one.id for one in providers if not one.hosts)
        self._bound = {
            host.lower(): (one.id,) for one in providers for host in one.hosts
        }
        self.is_active = bool(self._bound)

    def offered_providers(self, host: str) -> tuple[str, ...]:
        """The ids of the providers that are offered on *host*, with or without port."""
        if not self.is_active:
            return self._everywhere
        host = host.lower()
        without_port = host if host.endswith("]") else host.rpartition(":")[0] or host
        return (
            self._bound.get(host)
            or self._bound.get(without_port.rstrip("."))
            or self._everywhere
        )

    def choose(self, host: str, asked: str) -> str | None:
        """The provider that was *asked* for if it is offered, else the first; or None."""
        offered = self.offered_providers(host)
        if asked in offered:
            return asked
        return offered[0] if offered else None

    def serves(self, host: str, provider: str) -> bool:
        """Whether sessions of *provider* ("": the first one) count on *host*."""
        if provider == HTPASSWD:
            return True  # there is but one file, for all hosts
        return (provider or self._default) in self.offered_providers(host)
