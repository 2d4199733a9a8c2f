"""Getting the providers ready, and waiting a moment for one that is not.

A server answers as soon as it runs, while discovery may take some seconds more; who
comes to log in just then had better wait than see an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..effects import Flow, Sleep
from ..errors import EffectError, FetchError, ProviderError
from ..messages import Event
from .base import Provider

RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between tries of discovery
READY_TIMEOUT = 5.0  # seconds that a login waits for the provider
POLL_INTERVAL = 0.25  # seconds between two looks
RETRY_AFTER = 2.0  # seconds between tries that logins ask for
NOT_READY = "not_ready"
PERMANENT_REASONS = frozenset(
    {"issuer", "discovery_invalid"}
)  # reasons of a wrong configuration


class Readiness:
    """Which providers are ready, and the flows that make them so."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        clock: Callable[[], float],
        on_event: Callable[[Event], None],
    ) -> None:
        self._providers = providers
        self._clock = clock
        self._on_event = on_event
        self._tried_at: dict[str, float] = {}
        self._errors: dict[str, ProviderError] = {}

    @property
    def is_ready(self) -> bool:
        """Whether every provider's metadata and keys are there."""
        return all(provider.is_ready for provider in self._providers.values())

    def warm_up(self) -> Flow[None]:
        """Discovery and key sets of all providers, with back-off; ends when all stand."""
        missing = [one for one in self._providers.values() if not one.is_ready]
        tries = 0
        while missing:
            for provider in missing:
                try:
                    yield from self._prepare(provider)
                except (ProviderError, FetchError) as error:
                    self._on_event(_provider_failed_event(provider.id, error))
                else:
                    self._on_event(Event("provider_ready", reason=provider.id))
            missing = [provider for provider in missing if not provider.is_ready]
            if missing:
                yield from Sleep(RETRY_DELAYS[min(tries, len(RETRY_DELAYS) - 1)])
                tries += 1

    def _prepare(self, provider: Provider) -> Flow[None]:
        self._tried_at[provider.id] = self._clock()
        self._errors.pop(provider.id, None)
        try:
            yield from provider.prepare()
        except ProviderError as error:
            self._errors[provider.id] = error
            raise

    def root_cause(self, provider: Provider, error: ProviderError) -> ProviderError:
        """*error*, or what is behind it when waiting will not help.

        That is a provider which answers, but not as the issuer that is configured.
        """
        found = self._errors.get(provider.id)
        if (
            error.reason != NOT_READY
            or found is None
            or found.reason not in PERMANENT_REASONS
        ):
            return error
        text = f"provider {provider.id!r} is not ready: {found}"
        return ProviderError(text, reason="wrong_issuer", hint=found.hint)

    def wait_for(self, provider: Provider) -> Flow[None]:
        """Wait until logins at *provider* can begin, for `LONGEST_WAIT` at most.

        Whoever tries last is waited for; when that was a while ago, as with a provider
        that was away, this tries itself.
        """
        patience = self._clock() + READY_TIMEOUT
        while provider.metadata is None and self._clock() < patience:
            tried_at = self._tried_at.get(provider.id, float("-inf"))
            if self._clock() - tried_at < RETRY_AFTER:
                yield from Sleep(POLL_INTERVAL)
                continue
            try:
                yield from self._prepare(provider)
            except (ProviderError, EffectError):
                continue  # the time of this try makes the next round wait


def _provider_failed_event(
    provider_id: str, error: ProviderError | FetchError
) -> Event:
    hint = f"; {error.hint}" if isinstance(error, ProviderError) and error.hint else ""
    reason = error.reason if isinstance(error, ProviderError) else error.code
    return Event(
        "provider_failed",
        reason=reason,
        detail=f"provider {provider_id!r} is not ready: {error}{hint}",
    )
