"""Invalidation of cache entries and of pending reads by store keys."""

from __future__ import annotations

import pytest

from authproxy_core.sessions.invalidation import InvalidationTracker


class Item:
    """A cache entry."""

    def __init__(self, sealed: bytes) -> None:
        self.sealed = sealed


class Cache:
    """Records the entries that the tracker drops."""

    def __init__(self) -> None:
        self.dropped: list[bytes] = []
        self.cleared = 0
        self.tracker = InvalidationTracker(self.dropped.append, self.clear)

    def clear(self) -> None:
        self.cleared += 1


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.tracker.store_notifies = True
    cache.cleared = 0
    return cache


def test_invalidate_drops_dependents_of_key(cache: Cache) -> None:
    tracker = cache.tracker
    one, two = Item(b"1"), Item(b"2")
    first = tracker.track(one, tracker.start_read("a", "b"))
    second = tracker.track(two, tracker.start_read("b"))
    assert first
    assert second
    tracker.invalidate("c")
    assert not cache.dropped
    tracker.invalidate("a")
    assert cache.dropped == [b"1"]
    tracker.invalidate("b")
    assert sorted(cache.dropped) == [b"1", b"1", b"2"]


def test_dependents_freed_with_last_entry(cache: Cache) -> None:
    tracker = cache.tracker
    tracker.track(Item(b"1"), tracker.start_read("a"))
    assert not len(tracker._dependents)
    tracker.invalidate("a")
    assert not cache.dropped


def test_change_during_read_prevents_caching(cache: Cache) -> None:
    tracker = cache.tracker
    overtaken, other = tracker.start_read("a"), tracker.start_read("b")
    tracker.invalidate("a")
    assert tracker.track(Item(b"1"), overtaken) == ()
    assert tracker.track(Item(b"2"), other)
    pending = tracker.start_read("a")
    tracker.invalidate(None)
    assert tracker.track(Item(b"1"), pending) == ()
    assert cache.cleared == 1


def test_nothing_cached_without_change_notifications(cache: Cache) -> None:
    tracker = cache.tracker
    before = tracker.start_read("a")
    tracker.store_notifies = False
    assert cache.cleared == 1
    while_off = tracker.start_read("a")
    tracker.store_notifies = True
    # Changes may have been missed during both reads.
    assert tracker.track(Item(b"1"), before) == ()
    assert tracker.track(Item(b"1"), while_off) == ()
    assert tracker.track(Item(b"1"), tracker.start_read("a"))
