"""Hooks for withdrawn keys: tokens signed with them end in all processes of a driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from .access.credentials import Credentials
from .messages import Event
from .providers.base import Provider
from .providers.jwks import JwksCache


class KeyHooks:
    """The part of `AuthProxy` that watches the keys of the providers.

    The event ``keys_withdrawn`` reports that a provider no longer publishes a key. A
    driver with several processes calls `expire_keys` in the others.
    """

    _providers: Mapping[str, Provider]
    _credentials: Credentials | None
    _on_event: Callable[[Event], None]

    def expire_keys(self) -> None:
        """Fetch all keys again before the next token is verified."""
        for _, keys in self._key_sets():
            keys.expire()
        if self._credentials is not None:
            self._credentials.drop_cache()

    def _watch_keys(self) -> None:
        for name, keys in self._key_sets():
            keys.on_withdrawn = partial(self._on_withdrawn, name)

    def _key_sets(self) -> Iterator[tuple[str, JwksCache]]:
        for provider in self._providers.values():
            yield provider.id, provider.key_set
        if self._credentials is not None:
            yield from self._credentials.key_sets

    def _on_withdrawn(self, name: str, count: int) -> None:
        if self._credentials is not None:
            self._credentials.drop_cache()
        detail = (
            f"{name!r} no longer publishes {count} of its keys: tokens signed with them "
            "are rejected from now on"
        )
        self._on_event(Event("keys_withdrawn", reason=name, detail=detail))
