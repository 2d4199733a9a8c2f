"""Cache of a provider's JWKS: fetched on demand, with a minimum interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..effects import Fetch, Flow, Sleep, with_lock
from ..errors import EffectError, KeysUnavailableError, ProviderError, TokenError
from ..messages import Response
from ..oidc.jwt import KeySet, parse_key_set, verify_jws
from ..oidc.protocol import JSON_HEADERS
from ..oidc.token_types import ID_TOKEN, TokenUse

REFETCH_INTERVAL = 2.0  # seconds between fetches that tokens of clients cause
MAX_AGE = 300.0  # seconds until the next verification fetches the keys again
RENEWAL_INTERVAL = 60.0  # seconds between such attempts while the fetch fails
LOCK_TTL, LOCK_WAIT = 30.0, 15.0  # seconds; longer than a fetch


class JwksCache:
    """The keys of one provider; *fixed* keys are never fetched.

    ``on_withdrawn`` is called with the number of keys that a fetch no longer found.
    """

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
        self._refetched_at = float("-inf")  # on behalf of a token
        self._fetched_at = float("-inf")
        self._fetches = 0  # ended ones, successful or not
        self._error: ProviderError | EffectError | None = None  # of the last fetch
        self._is_expired = False
        self.on_withdrawn: Callable[[int], None] = lambda count: None

    def expire(self) -> None:
        """Let the next verification fetch the keys: one of them may be withdrawn."""
        self._is_expired = True

    @property
    def has_keys(self) -> bool:
        """Return whether there is at least one usable key."""
        return bool(self._keys.keys)

    def fetch(self, url: str) -> Flow[None]:
        """Fetch the keys; on `ProviderError` or `FetchError` the old ones stay.

        Waits for a fetch in progress instead of starting another one.
        """
        yield from self._fetch_once(url)
        if self._error is not None:
            raise self._error.with_traceback(None)  # of the waiters before
        if not self.has_keys:
            raise self._unavailable()

    def require_keys(self, url: str) -> Flow[None]:
        """Fetch the keys if there are none; raises `KeysUnavailableError`."""
        if not self.has_keys:
            yield from self._fetch_once(url)
        if not self.has_keys:
            raise self._unavailable()

    def verify(
        self,
        token: str,
        url: str,
        allowed: tuple[str, ...],
        use: TokenUse = ID_TOKEN,
        *,
        from_provider: bool = False,
    ) -> Flow[dict[str, Any]]:
        """Return the claims of *token* after verifying its signature.

        *url* is the jwks_uri, *allowed* are algorithms. An unknown key causes a fetch
        (OIDC Core §10.1.1), at most one per `REFETCH_INTERVAL`. A token that came
        *from_provider* waits for the next one; others are rejected, because clients can
        send any token. Raises `TokenError`, or `KeysUnavailableError` if the key may
        exist but the last fetch failed.
        """
        if self._fixed:
            return verify_jws(token, self._keys, allowed, use)
        if self._is_outdated:
            yield from self._refetch(url)
        try:
            return verify_jws(token, self._keys, allowed, use)
        except TokenError as error:
            if error.reason not in ("unknown_key", "signature"):
                raise
            delay = self._refetched_at + REFETCH_INTERVAL - self._clock()
            if from_provider and delay > 0:
                yield from Sleep(min(delay, REFETCH_INTERVAL))
            # A flood of invalid tokens must not queue for the lock.
            if from_provider or delay <= 0:
                yield from self._refetch(url)
        try:
            return verify_jws(token, self._keys, allowed, use)
        except TokenError as error:
            if error.reason != "unknown_key" or (self.has_keys and not self._error):
                raise
            raise self._unavailable() from error

    @property
    def _is_outdated(self) -> bool:
        now = self._clock()
        interval = REFETCH_INTERVAL if self._is_expired else RENEWAL_INTERVAL
        return (
            self.has_keys
            and (self._is_expired or now - self._fetched_at > MAX_AGE)
            and now - self._refetched_at > interval
        )

    def _refetch(self, url: str) -> Flow[None]:
        yield from self._fetch_once(url)
        self._refetched_at = self._clock()

    def _fetch_once(self, url: str) -> Flow[None]:
        """Fetch the keys, or wait for a fetch in progress; `_error` is the outcome."""
        yield from with_lock(
            self._lock,
            self._fetch_locked(url, self._fetches),
            ttl=LOCK_TTL,
            wait=LOCK_WAIT,
            local=True,  # each process has its own key set
        )

    def _fetch_locked(self, url: str, seen: int) -> Flow[None]:
        if self._fetches != seen:
            return  # fetched while waiting for the lock
        try:
            response = yield from Fetch("GET", url, JSON_HEADERS, purpose="jwks")
            keys = _parse_response(response)
        except (ProviderError, EffectError) as error:
            self._error = error  # the old keys stay
        else:
            withdrawn = self._keys.thumbprints - keys.thumbprints
            self._keys, self._is_expired = keys, False
            self._fetched_at, self._error = self._clock(), None
            if withdrawn:
                self.on_withdrawn(len(withdrawn))
        self._fetches += 1

    def _unavailable(self) -> KeysUnavailableError:
        cause = self._error or "the fetch has not ended yet"
        return KeysUnavailableError(f"the provider's keys are not available: {cause}")


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
