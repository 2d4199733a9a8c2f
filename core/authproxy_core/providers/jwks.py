"""A provider's key set in memory: fetched when needed, never more often than allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..effects import Fetch, Flow, with_lock
from ..errors import EffectError, ProviderError, TokenError
from ..messages import Response
from ..oidc.jwt import NON_ID_TOKEN_TYPES, KeySet, parse_key_set, verify_jws
from ..oidc.protocol import JSON_HEADERS

REFETCH_INTERVAL = 10.0  # seconds between two fetches that a token asked for
MAX_AGE = 3600.0  # seconds after which a login fetches the keys again
LOCK_TTL, LOCK_WAIT = 30.0, 15.0  # seconds; longer than the fetch under it


class JwksCache:
    """The keys of one provider; its memory is a cache. *fixed* keys are never fetched."""

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
        """Whether there is at least one usable key."""
        return bool(self._keys.keys)

    def fetch(self, url: str) -> Flow[None]:
        """Fetch the keys now; raises `ProviderError` or `FetchError`, keeping the old."""
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
        refused: frozenset[str] = NON_ID_TOKEN_TYPES,
    ) -> Flow[dict[str, Any]]:
        """The claims of *token* when a key signed it; raises `TokenError`.

        A key that is unknown makes the set be fetched again, for all callers together
        at most once in `REFETCH_INTERVAL`.
        """
        if self._fixed:
            return verify_jws(token, self._keys, allowed, refused)
        if self._clock() - self._fetched_at > MAX_AGE:
            yield from self._refetch(url)
        try:
            return verify_jws(token, self._keys, allowed, refused)
        except TokenError as error:
            # Bad tokens in a flood must not even queue for the lock.
            if self._fetched_recently or error.reason not in (
                "unknown_key",
                "signature",
            ):
                raise
        yield from self._refetch(url)
        return verify_jws(token, self._keys, allowed, refused)

    @property
    def _fetched_recently(self) -> bool:
        """Whether a fetch was tried a moment ago, and is not under way any more."""
        return not self._fetching and self._clock() - self._tried_at < REFETCH_INTERVAL

    def _refetch(self, url: str) -> Flow[None]:
        seen = self._fetched_at
        yield from with_lock(
            self._lock,
            self._refetch_locked(url, seen),
            ttl=LOCK_TTL,
            wait=LOCK_WAIT,
            local=True,  # each process has a key set of its own
        )

    def _refetch_locked(self, url: str, seen: float) -> Flow[None]:
        if self._fetched_at != seen:
            return  # somebody else has just done it
        if self._clock() - self._tried_at < REFETCH_INTERVAL:
            return
        try:
            yield from self.fetch(url)
        except (ProviderError, EffectError):
            return  # the old keys stay; a token they don't fit is refused all the same


def _parse_response(response: Response) -> KeySet:
    if response.status != 200:
        raise ProviderError(
            f"the key set answered with status {response.status}, expected 200",
            reason="jwks_failed",
        )
    keys = parse_key_set(response.body)
    if not keys.keys:
        raise ProviderError(
            f"the key set has no usable key ({keys.unusable} were left out)",
            reason="jwks_empty",
        )
    return keys
