"""The interface of a session store: values with a TTL, sets, locks, notifications."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..contract import OnLoaded

# Called with each key that any process, this one included, has written or deleted. None
# means that changes may have been missed, so all caches are invalid.
#
# Notifications and replies arrive over different connections: a notification may arrive
# before the reply of a load that still has the old value. A cache of loaded values must
# account for the notifications that arrived during the load.
OnChange = Callable[[str | None], None]

# Called when `Store.notifies` or `Store.available` has changed.
OnState = Callable[[], None]

MAX_VALUE = 1 << 20  # bytes of a value; a longer one raises `StoreError`
MAX_MEMBERS = 100_000  # members of a set that `Store.members` returns


class Store(Protocol):
    """A store shared by all processes that use it; every method has a time limit.

    Keys are printable ASCII. A TTL is in seconds of the store's clock, 0 for no expiry;
    expired entries are absent. Every method raises `StoreError` if the store is
    unavailable.
    """

    @property
    def notifies(self) -> bool:
        """Whether changes by others arrive within 100 ms, so that caches are valid."""

    @property
    def notify_error(self) -> str:
        """Reason for missing notifications, for the log; contains no secrets."""

    @property
    def available(self) -> bool:
        """Whether the last exchange with the store succeeded."""

    @property
    def error(self) -> str:
        """Reason for unavailability, for the log; "" if available; no secrets."""

    @property
    def limitation(self) -> str:
        """Features that the store's user has no permission for, "" if none."""

    async def start(self, on_change: OnChange, on_state: OnState) -> None:
        """Connect in the background; does not fail if the store is unavailable."""

    async def close(self) -> None:
        """Close all connections and end all tasks."""

    async def load(self, key: str) -> bytes | None:
        """Return the value of *key*; None if it is absent."""

    async def load_all(self, keys: tuple[str, ...]) -> tuple[bytes | None, ...]:
        """Return the values of *keys*, in their order, with one exchange."""

    def start_load(self, keys: tuple[str, ...], on_loaded: OnLoaded) -> bool:
        """Start `load_all` without a task; return False if that is not possible now.

        *on_loaded* is called later, in another event-loop callback: with the values, with
        an error, or with None if `load_all` has to be called.
        """

    async def save(
        self, key: str, value: bytes, ttl: float, expected: bytes | None = None
    ) -> bool:
        """Set *key* to *value*.

        With *expected* (b"": no value), do so only if that is the present value, in one
        step; return False if it is not.
        """

    async def delete(self, key: str) -> None:
        """Delete the value or set of *key*."""

    async def add(self, key: str, member: bytes, ttl: float) -> None:
        """Add *member* to the set of *key*, or reset its TTL."""

    async def members(self, key: str) -> tuple[bytes, ...]:
        """Return the members of the set of *key* that have not expired."""

    async def remove(self, key: str, member: bytes) -> None:
        """Remove *member* from the set of *key*."""

    async def acquire_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Acquire the lock *key* for *token*; False if it is not free within *wait*.

        The lock expires after *ttl* seconds; *wait* is in seconds.
        """

    async def release_lock(self, key: str, token: str) -> None:
        """Release the lock *key* if *token* holds it."""
