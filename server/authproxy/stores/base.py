"""What a store offers: bytes under keys with an end, sets, locks, and news of changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# What a store calls when a key was written or deleted by anybody, this process
# included; with None when changes may have been missed and all caches are void.
#
# The news of a change and the answer of a load under way come over different
# connections: the news may be told first, and the answer still be the value from before.
# Who caches what was loaded has to count the changes that were told in between.
OnChange = Callable[[str | None], None]

# What a store calls when `trustworthy` or `available` has changed.
OnState = Callable[[], None]

MAX_VALUE = 1 << 20  # bytes of a value; a longer one is a failure, not an answer
MAX_MEMBERS = 100_000  # of a set that are given out


class Store(Protocol):
    """A store shared by all processes that use it; every method is bounded in time.

    Keys are printable ASCII. Moments are the store's own: what is past its ttl (seconds;
    0: none) is absent. Everything raises `StoreError` when the store does not answer.
    """

    @property
    def notifies(self) -> bool:
        """Whether changes by others arrive (within 100 ms), so that caches hold."""

    @property
    def notify_error(self) -> str:
        """Why it is not trustworthy, for the log; no secrets."""

    @property
    def available(self) -> bool:
        """Whether the last exchange with the store succeeded."""

    @property
    def error(self) -> str:
        """Why it is not available, for the log; no secrets."""

    async def start(self, on_change: OnChange, on_state: OnState) -> None:
        """Connect in the background; does not fail when the store is away."""

    async def close(self) -> None:
        """End all connections and tasks."""

    async def load(self, key: str) -> bytes | None:
        """The value under *key*."""

    async def load_all(self, keys: tuple[str, ...]) -> tuple[bytes | None, ...]:
        """The values under *keys*, in their order, in one exchange."""

    async def save(self, key: str, value: bytes, ttl: float) -> None:
        """Put *value* under *key*."""

    async def delete(self, key: str) -> None:
        """Forget *key*."""

    async def add(self, key: str, member: bytes, ttl: float) -> None:
        """Put *member* into the set under *key*, or renew its time."""

    async def members(self, key: str) -> tuple[bytes, ...]:
        """The members of the set under *key* whose time is not over."""

    async def remove(self, key: str, member: bytes) -> None:
        """Take *member* out of the set under *key*."""

    async def take_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Hold the lock *key* as *token* for *ttl*; False when not free in *wait*."""

    async def release_lock(self, key: str, token: str) -> None:
        """Give the lock back if *token* still holds it."""
