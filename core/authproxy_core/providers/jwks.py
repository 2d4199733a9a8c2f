"""Cache of a provider's JWKS: fetched on demand, with a minimum interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..effects import Fetch, Flow, with_lock
from ..errors import EffectError, ProviderError, TokenError
from ..messages import Response
from ..oidc.jwt import KeySet, parse_key_set, verify_jws
from ..oidc.protocol import JSON_HEADERS
from ..oidc.token_types import ID_TOKEN, TokenUse

REFETCH_INTERVAL = 10.0  # seconds between fetches that unknown keys cause
MAX_AGE = 3600.0  # seconds until the next verification fetches the keys again
LOCK_TTL, LOCK_WAIT = 30.0, 15.0  # seconds; longer than a fetch


class JwksCache:
    """The keys of one provider; *fixed* keys are never fetched."""

    def __init__(
        self,
        provider_id: str,
        clock: Callable[[], float],
        fixed: KeySet | None = None,
    ) -> None:
        self._lock = f"jwks:{provider_id}"
        self._clock = clock
        self._fixed = fixed is not None
        self._keys = fixed or KeySet()
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")
        self._fetching = False

    @property
    def has_keys(self) -> bool:
        """Return whether there is at least one usable key."""
        return bool(self._keys.keys)

    def fetch(self, url: str) -> Flow[None]:
        """Fetch the keys; on `ProviderError` or `FetchError` the old ones stay."""
        self._tried_at, self._fetching = self._clock(), True
        try:
            response = yield from Fetch("GET", url, JSON_HEADERS, purpose="jwks")
        finally:
            self._fetching = False
        self._keys = _parse_response(response)
        self._fetched_at = self._clock()

    def verify(
        self,
        token: str,
        url: str,
        allowed: tuple[str, ...],
        use: TokenUse = ID_TOKEN,
    ) -> Flow[dict[str, Any]]:
        """Return the claims of *token* after verifying its signature.

        *url* is the jwks_uri, *allowed* are algorithms.
        An unknown key causes a fetch, at most one per `REFETCH_INTERVAL` in total.
        Raises `TokenError`.
        """
        if self._fixed:
            return verify_jws(token, self._keys, allowed, use)
        if self._clock() - self._fetched_at > MAX_AGE:
            yield from self._refetch(url)
        try:
            return verify_jws(token, self._keys, allowed, use)
        except TokenError as error:
            # A flood of invalid tokens must not queue for the lock.
            if self._fetched_recently or error.reason not in (
                "unknown_key",
                "signature",
            ):
                raise
        yield from self._refetch(url)
        return verify_jws(token, self._keys, allowed, use)

    @property
    def _fetched_recently(self) -> bool:
        """Return whether a fetch ended within `REFETCH_INTERVAL`."""
        return not self._fetching and self._clock() - self._tried_at < REFETCH_INTERVAL

    def _refetch(self, url: str) -> Flow[None]:
        seen = self._fetched_at
        yield from with_lock(
            self._lock,
            self._refetch_locked(url, seen),
            ttl=LOCK_TTL,
            wait=LOCK_WAIT,
            local=True,  # each process has its own key set
        )

    def _refetch_locked(self, url: str, seen: float) -> Flow[None]:
        if self._fetched_at != seen:
            return  # fetched while waiting for the lock
        if self._clock() - self._tried_at < REFETCH_INTERVAL:
            return
        try:
            yield from self.fetch(url)
        except (ProviderError, EffectError):
            return  # the old keys stay; they verify the token or reject it


def _parse_response(response: Response) -> KeySet:
    if response.status != 200:
        raise ProviderError(
            f"jwks_uri: got status {response.status}, expected 200",
            reason="jwks_failed",
        )
    keys = parse_key_set(response.body)
    if not keys.keys:
        raise ProviderError(
            f"jwks_uri: no usable key ({keys.unusable} keys skipped)",
            reason="jwks_empty",
        )
    return keys
