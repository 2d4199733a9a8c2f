"""Readiness of the providers: discovery with back-off, and waiting for it.

A server accepts requests at startup, while discovery may take some more seconds. A
login during that time waits for the provider instead of failing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..effects import Flow, Sleep
from ..errors import EffectError, FetchError, ProviderError
from ..messages import Event
from .base import Provider

RETRY_DELAYS = (1.0, 2.0)  # seconds between discovery attempts; the last one repeats
REPORT_INTERVAL = 30.0  # seconds between events about the same failure
READY_TIMEOUT = 5.0  # seconds that a login waits for the provider
POLL_INTERVAL = 0.25  # seconds
LOGIN_RETRY_DELAY = 2.0  # seconds between discovery attempts that logins cause
NOT_READY = "not_ready"
# Caused by a wrong configuration, so waiting does not help.
PERMANENT_REASONS = frozenset({"issuer", "discovery_invalid"})


class Readiness:
    """Prepares the providers, and reports which are ready."""

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
        self._reported: dict[str, tuple[str, float]] = {}  # reason and time

    @property
    def is_ready(self) -> bool:
        """Return whether the metadata and keys of all providers are loaded."""
        return all(provider.is_ready for provider in self._providers.values())

    def warm_up(self) -> Flow[None]:
        """Prepare all providers, with back-off; return when all are ready."""
        missing = [one for one in self._providers.values() if not one.is_ready]
        attempts = 0
        while missing:
            for provider in missing:
                try:
                    yield from self._prepare(provider)
                except (ProviderError, FetchError) as error:
                    self._report_failure(provider.id, error)
                else:
                    self._on_event(Event("provider_ready", reason=provider.id))
            missing = [provider for provider in missing if not provider.is_ready]
            if missing:
                yield from Sleep(RETRY_DELAYS[min(attempts, len(RETRY_DELAYS) - 1)])
                attempts += 1

    def _report_failure(
        self, provider_id: str, error: ProviderError | FetchError
    ) -> None:
        """Emit an event, unless the same failure had one within `REPORT_INTERVAL`."""
        event, now = _provider_failed_event(provider_id, error), self._clock()
        reason, reported_at = self._reported.get(provider_id, ("", 0.0))
        if event.reason != reason or now - reported_at >= REPORT_INTERVAL:
            self._reported[provider_id] = (event.reason, now)
            self._on_event(event)

    def _prepare(self, provider: Provider) -> Flow[None]:
        """Prepare *provider*; its last error stays known during the attempt."""
        self._tried_at[provider.id] = self._clock()
        try:
            yield from provider.prepare()
        except ProviderError as error:
            self._errors[provider.id] = error
            raise
        except EffectError:
            self._errors.pop(provider.id, None)
            raise
        self._errors.pop(provider.id, None)

    def root_cause(self, provider: Provider, error: ProviderError) -> ProviderError:
        """Return the permanent error that makes *provider* not ready, else *error*.

        An unexpected issuer or invalid metadata needs a change of the configuration.
        """
        cause = self._errors.get(provider.id)
        if (
            error.reason != NOT_READY
            or cause is None
            or cause.reason not in PERMANENT_REASONS
        ):
            return error
        text = f"provider {provider.id!r} is not ready: {cause}"
        return ProviderError(text, reason="wrong_issuer", hint=cause.hint)

    def wait_for(self, provider: Provider) -> Flow[None]:
        """Wait until *provider* has metadata, for at most `READY_TIMEOUT`.

        Polls while the last discovery attempt is recent, else starts another one.
        """
        deadline = self._clock() + READY_TIMEOUT
        while provider.metadata is None and self._clock() < deadline:
            tried_at = self._tried_at.get(provider.id, float("-inf"))
            if self._clock() - tried_at < LOGIN_RETRY_DELAY:
                yield from Sleep(POLL_INTERVAL)
                continue
            try:
                yield from self._prepare(provider)
            except (ProviderError, EffectError):
                continue  # the next iteration polls: this attempt is recent


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
