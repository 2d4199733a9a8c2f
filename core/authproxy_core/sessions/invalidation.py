"""Which remembered values rest on which keys of the store.

A store that is trusted tells of every change of its keys. What was read from it may
then be kept until its key changes. A value that was asked for before a change and comes
after the news of it would be old for ever, so reads under way are marked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary


class CacheItem(Protocol):
    """What is kept under its sealed value."""

    sealed: bytes


class DependentEntries:
    """What rests on one key; the group lives as long as one of them does.

    It holds them weakly: what the cache lets go is gone.
    """

    __slots__ = ("__weakref__", "members")

    def __init__(self) -> None:
        self.members: WeakSet[CacheItem] = WeakSet()


class PendingRead:
    """A read of some keys that is under way; ``clean`` while none of them changed."""

    __slots__ = ("__weakref__", "clean", "keys")

    def __init__(self, keys: tuple[str, ...], *, clean: bool) -> None:
        self.keys = keys
        self.clean = clean


class InvalidationTracker:
    """Follows the changes of a store; *drop* forgets a value, *clear* all of them.

    Nothing may be kept while ``trusted`` is False.
    """

    def __init__(
        self, drop: Callable[[bytes], None], clear: Callable[[], None]
    ) -> None:
        self._drop = drop
        self._clear = clear
        self._groups: WeakValueDictionary[str, DependentEntries] = WeakValueDictionary()
        self._readings: WeakSet[PendingRead] = WeakSet()
        self._trusted = False

    @property
    def store_notifies(self) -> bool:
        """Whether the store tells of every change."""
        return self._trusted

    @store_notifies.setter
    def store_notifies(self, trusted: bool) -> None:
        if not trusted:
            self.invalidate(None)
        self._trusted = trusted

    def start_read(self, *keys: str) -> PendingRead:
        """Begin to read *keys*; keep the result while what is to rest on them is made."""
        reading = PendingRead(keys, clean=self._trusted)
        self._readings.add(reading)
        return reading

    def track(
        self, kept: CacheItem, reading: PendingRead
    ) -> tuple[DependentEntries, ...]:
        """The groups that *kept*, which was read, belongs to; () if it can't be kept.

        Whoever keeps it holds the groups with it.
        """
        if not reading.clean:
            return ()
        groups = []
        for key in reading.keys:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = DependentEntries()
            group.members.add(kept)
            groups.append(group)
        return tuple(groups)

    def invalidate(self, key: str | None) -> None:
        """Forget what rests on *key*; None: on any."""
        for reading in self._readings:
            if key is None or key in reading.keys:
                reading.clean = False
        if key is None:
            self._clear()
            return
        group = self._groups.pop(key, None)
        for kept in list(group.members) if group is not None else ():
            self._drop(kept.sealed)
