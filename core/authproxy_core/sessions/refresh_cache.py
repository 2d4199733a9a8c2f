"""Results of recent refreshes in this process; bounded and short-lived.

Late requests still carry the cookie from before a refresh. They find the result here,
under the session's generation, so the session is not refreshed a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from msgspec import Struct

from ..oidc.protocol import Tokens

OLD_COOKIE_GRACE = 60.0  # seconds; requests may carry the cookie from before a refresh
RETRY_DELAY = 10.0  # seconds between refresh attempts while the provider is unavailable
SLOW_FAILURE = 2.0  # seconds; a provider whose requests fail so late is unresponsive
LOCK_POLL_INTERVAL = 1.0  # seconds between checks whether another process has finished
LOCK_TTL = 180.0  # seconds; longer than the sum of all timeouts while it is held
PENDING_TOKENS_TTL = 3600.0  # seconds
PENDING_TOKENS_MAX_AGE = 60.0  # seconds; older ones are refreshed before use
MAX_ENTRIES = 2_000
SESSION_ENDED = b"-"  # record in place of a cookie value

V = TypeVar("V")


class RefreshResult(Struct, frozen=True):
    """The value of the new session cookie; None: the session has ended."""

    value: bytes | None


class PendingTokens(Struct, frozen=True, array_like=True):
    """Tokens of a refresh whose session could not be built yet.

    ``received_at`` is in seconds since the epoch.
    """

    tokens: Tokens
    received_at: float
    used_refresh_token: str  # the one that was redeemed for these tokens

    def __repr__(self) -> str:
        return "PendingTokens(...)"


class _ExpiringCache(Generic[V]):
    """String → value with a TTL (seconds), at most `MAX_ENTRIES`."""

    def __init__(self, clock: Callable[[], float], ttl: float) -> None:
        self._clock = clock
        self._ttl = ttl
        self._entries: dict[str, tuple[V, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> V | None:
        found = self._entries.get(key)
        if found is None or self._clock() >= found[1]:
            return None
        return found[0]

    def put(self, key: str, value: V, ttl: float | None = None) -> None:
        now = self._clock()
        self._entries.pop(key, None)
        # Entries are in the order of insertion, so the first ones expire first.
        while self._entries:
            first, (_, expires_at) = next(iter(self._entries.items()))
            if expires_at > now and len(self._entries) < MAX_ENTRIES:
                break
            del self._entries[first]
        self._entries[key] = (value, now + (self._ttl if ttl is None else ttl))

    def drop(self, key: str) -> None:
        self._entries.pop(key, None)


class RefreshCache:
    """Refresh results of one process; an `AuthProxy` passes it on in a reload.

    Keys are generations, which change with each refresh, or identities, which do not.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._results = _ExpiringCache[RefreshResult](clock, OLD_COOKIE_GRACE)
        self._ended = _ExpiringCache[bool](clock, OLD_COOKIE_GRACE)
        self._delayed = _ExpiringCache[bool](clock, RETRY_DELAY)
        self._overdue = _ExpiringCache[bool](clock, LOCK_TTL)
        self._tokens = _ExpiringCache[PendingTokens](clock, PENDING_TOKENS_TTL)
        self._paused_until: dict[
            str, float
        ] = {}  # by provider; seconds since the epoch

    def result(self, generation: str) -> RefreshResult | None:
        """Return the result of a recent refresh of this session, or None."""
        return self._results.get(generation)

    def put_result(self, generation: str, result: RefreshResult) -> None:
        """Store the result of a refresh for late requests with the old cookie."""
        self._results.put(generation, result)
        self._delayed.drop(generation)
        self._tokens.drop(generation)

    def mark_ended(self, identity: str) -> None:
        """Mark a session as ended, so that a running refresh discards its result."""
        self._ended.put(identity, True)

    def has_ended(self, identity: str) -> bool:
        """Return whether the session ended recently."""
        return self._ended.get(identity) is not None

    def delay_retry(self, generation: str) -> None:
        """Delay the next attempt, because the provider or the store is unavailable."""
        self._delayed.put(generation, True)

    def has_failed(self, generation: str) -> bool:
        """Return whether the next attempt is delayed because the last one failed."""
        return self._delayed.get(generation) is True

    def is_paused(self, provider: str) -> bool:
        """Return whether *provider* is unresponsive: no session waits for it now."""
        return self._clock() < self._paused_until.get(provider, 0.0)

    def begin_attempt(self, provider: str) -> float:
        """Return the time; only one attempt follows the pause of a provider."""
        now = self._clock()
        if provider in self._paused_until:
            self._paused_until[provider] = now + RETRY_DELAY
        return now

    def end_attempt(self, provider: str, began_at: float, *, failed: bool) -> None:
        """Pause *provider* if a request that began at *began_at* has *failed* late."""
        now = self._clock()
        if not failed:
            self._paused_until.pop(provider, None)
        elif now - began_at >= SLOW_FAILURE:
            self._paused_until[provider] = now + RETRY_DELAY

    def delay_poll(self, generation: str) -> None:
        """Delay the next attempt shortly, because another process holds the lock."""
        self._delayed.put(generation, False, LOCK_POLL_INTERVAL)

    def mark_overdue(self, generation: str) -> None:
        """Note that a wait for the lock was in vain; its holder may have been killed."""
        self._overdue.put(generation, True)

    def is_overdue(self, generation: str) -> bool:
        """Return whether another wait for the lock would probably be in vain."""
        return self._overdue.get(generation) is not None

    def can_try(self, generation: str) -> bool:
        """Return whether a refresh may be attempted now."""
        return self._delayed.get(generation) is None

    def put_tokens(
        self, generation: str, tokens: Tokens, used_refresh_token: str
    ) -> PendingTokens:
        """Store new tokens until their session is built; the old ones may be revoked."""
        pending = PendingTokens(tokens, self._clock(), used_refresh_token)
        self._tokens.put(generation, pending)
        return pending

    def pending_tokens(self, generation: str) -> PendingTokens | None:
        """Return the tokens of a refresh whose session could not be built, or None."""
        return self._tokens.get(generation)
