"""Invalidation: which cache entries depend on which store keys.

If the store notifies of every change, values read from it may be cached until one of
their keys changes. A change during a read would leave a stale entry in the cache, so
pending reads are tracked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary


class CacheItem(Protocol):
    """A cache entry, identified by its sealed value."""

    sealed: bytes


class DependentEntries:
    """The cache entries that depend on one key.

    It references them weakly, and each of them references it: both are freed when the
    cache evicts the entry.
    """

    __slots__ = ("__weakref__", "members")

    def __init__(self) -> None:
        self.members: WeakSet[CacheItem] = WeakSet()


class PendingRead:
    """A read of some keys that has not finished; ``clean`` while none of them changed."""

    __slots__ = ("__weakref__", "clean", "keys")

    def __init__(self, keys: tuple[str, ...], *, clean: bool) -> None:
        self.keys = keys
        self.clean = clean


class InvalidationTracker:
    """Tracks the changes of a store.

    *drop* removes one sealed value from the cache, *clear* removes all of them. While
    ``store_notifies`` is False, nothing may be cached.
    """

    def __init__(
        self, drop: Callable[[bytes], None], clear: Callable[[], None]
    ) -> None:
        self._drop = drop
        self._clear = clear
        self._dependents: WeakValueDictionary[str, DependentEntries] = (
            WeakValueDictionary()
        )
        self._pending: WeakSet[PendingRead] = WeakSet()
        self._store_notifies = False

    @property
    def store_notifies(self) -> bool:
        """Whether the store notifies of every change."""
        return self._store_notifies

    @store_notifies.setter
    def store_notifies(self, notifies: bool) -> None:
        if not notifies:
            self.invalidate(None)
        self._store_notifies = notifies

    def start_read(self, *keys: str) -> PendingRead:
        """Start a read of *keys*; hold the result until `track` is called with it."""
        read = PendingRead(keys, clean=self._store_notifies)
        self._pending.add(read)
        return read

    def track(self, item: CacheItem, read: PendingRead) -> tuple[DependentEntries, ...]:
        """Register *item* under the keys of *read*; return () if it may not be cached.

        The item must hold the result while it is cached.
        """
        if not read.clean:
            return ()
        groups = []
        for key in read.keys:
            group = self._dependents.get(key)
            if group is None:
                group = self._dependents[key] = DependentEntries()
            group.members.add(item)
            groups.append(group)
        return tuple(groups)

    def invalidate(self, key: str | None) -> None:
        """Drop the entries that depend on *key*; None: all entries."""
        for read in self._pending:
            if key is None or key in read.keys:
                read.clean = False
        if key is None:
            self._clear()
            return
        group = self._dependents.pop(key, None)
        for item in list(group.members) if group is not None else ():
            self._drop(item.sealed)
