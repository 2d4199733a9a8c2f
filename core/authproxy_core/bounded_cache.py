"""A bounded dict for values that can be recomputed at any time."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """A cache of at most *limit* units of cost (entries, or bytes).

    Lookups use the methods of `dict` at full speed; insert with `put` only. A full cache
    is cleared as a whole, which needs no bookkeeping at a lookup. An attacker who fills
    it causes one recomputation per value.
    """

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._used = 0

    def put(self, key: K, value: V, cost: int = 1) -> V:
        """Store *value* under a new *key* unless it exceeds the limit alone; return it."""
        if cost > self._limit:
            return value
        if self._used + cost > self._limit:
            self.clear()
        self._used += cost
        self[key] = value
        return value

    def clear(self) -> None:
        """Remove all entries."""
        super().clear()
        self._used = 0
