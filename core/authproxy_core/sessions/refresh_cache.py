"""What one process remembers of refreshes; all of it is bounded and short-lived.

Late requests still carry the cookie from before a refresh. What became of it is kept
here for them, under the session's generation, so that nobody refreshes it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from msgspec import Struct

from ..oidc.protocol import Tokens

OLD_COOKIE_GRACE = (
    60.0  # seconds that siblings may come with the cookie from before a refresh
)
RETRY_DELAY = 10.0  # seconds between tries to refresh while the provider is away
LOCK_POLL_INTERVAL = 1.0  # seconds between looks whether a sibling elsewhere is done
PENDING_TOKENS_TTL = (
    3600.0  # seconds for which tokens that wait for their session are kept
)
PENDING_TOKENS_MAX_AGE = (
    60.0  # seconds in which tokens that were kept can still be used
)
MAX_ENTRIES = 2_000

V = TypeVar("V")


class RefreshResult(Struct, frozen=True):
    """What became of a session: the value of its new cookie, None: it has ended."""

    value: bytes | None


class PendingTokens(Struct, frozen=True, array_like=True):
    """Tokens of a refresh that failed later on, when they came, and what was spent."""

    tokens: Tokens
    received_at: float
    used_refresh_token: str  # the refresh token

    def __repr__(self) -> str:
        return "KeptTokens(...)"


class _Memory(Generic[V]):
    """Text → value for some seconds, at most `MAX_REMEMBERED`."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds  # for which a value is remembered
        self._found: dict[str, tuple[V, float]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> V | None:
        found = self._found.get(key)
        if found is None or self._clock() >= found[1]:
            return None
        return found[0]

    def put(self, key: str, value: V, seconds: float | None = None) -> None:
        now = self._clock()
        self._found.pop(key, None)
        # They went in by time: those in front are over first.
        while self._found:
            first, (_, until) = next(iter(self._found.items()))
            if until > now and len(self._found) < MAX_ENTRIES:
                break
            del self._found[first]
        seconds = self._seconds if seconds is None else seconds
        self._found[key] = (value, now + seconds)

    def drop(self, key: str) -> None:
        self._found.pop(key, None)


class RefreshCache:
    """The memory of one process, shared by an `AuthProxy` and those that replace it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._renewed = _Memory[RefreshResult](clock, OLD_COOKIE_GRACE)
        self._ended = _Memory[bool](clock, OLD_COOKIE_GRACE)
        self._failed = _Memory[bool](clock, RETRY_DELAY)
        self._tokens = _Memory[PendingTokens](clock, PENDING_TOKENS_TTL)

    def result(self, generation: str) -> RefreshResult | None:
        """What a sibling made of this session a moment ago, or None."""
        return self._renewed.get(generation)

    def put_result(self, generation: str, renewed: RefreshResult) -> None:
        """Keep what became of a session, for siblings with the cookie before."""
        self._renewed.put(generation, renewed)
        self._failed.drop(generation)
        self._tokens.drop(generation)

    def mark_ended(self, identity: str) -> None:
        """Note that a session was ended; a refresh that still runs comes too late."""
        self._ended.put(identity, True)

    def has_ended(self, identity: str) -> bool:
        """Whether the session was ended a moment ago."""
        return self._ended.get(identity) is not None

    def delay_retry(self, generation: str) -> None:
        """Wait a while before the next try: the provider (or the store) is away."""
        self._failed.put(generation, True)

    def delay_poll(self, generation: str) -> None:
        """Wait a moment: somebody else refreshes the session."""
        self._failed.put(generation, True, LOCK_POLL_INTERVAL)

    def can_try(self, generation: str) -> bool:
        """Whether a refresh may be tried (again) now."""
        return self._failed.get(generation) is None

    def put_tokens(self, generation: str, tokens: Tokens, spent: str) -> PendingTokens:
        """Keep new tokens until their session is made: the old ones are spent already."""
        kept = PendingTokens(tokens, self._clock(), spent)
        self._tokens.put(generation, kept)
        return kept

    def pending_tokens(self, generation: str) -> PendingTokens | None:
        """Tokens of a refresh that failed later on."""
        return self._tokens.get(generation)
