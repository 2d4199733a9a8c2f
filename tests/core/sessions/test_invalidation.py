"""Which remembered values rest on which keys, and reads that the news overtakes."""

from __future__ import annotations

import pytest

from authproxy_core.sessions.invalidation import InvalidationTracker


class Value:
    """What is kept under a sealed value."""

    def __init__(self, sealed: bytes) -> None:
        self.sealed = sealed


class Memory:
    """Remembers values by what `Watch` says, and what was dropped."""

    def __init__(self) -> None:
        self.dropped: list[bytes] = []
        self.cleared = 0
        self.watch = InvalidationTracker(self.dropped.append, self.clear)

    def clear(self) -> None:
        self.cleared += 1


@pytest.fixture
def memory() -> Memory:
    memory = Memory()
    memory.watch.store_notifies = True
    memory.cleared = 0
    return memory


def test_a_change_drops_what_rests_on_its_key(memory: Memory) -> None:
    watch = memory.watch
    one, two = Value(b"1"), Value(b"2")
    first = watch.track(one, watch.start_read("a", "b"))
    second = watch.track(two, watch.start_read("b"))
    assert first
    assert second
    watch.invalidate("c")
    assert not memory.dropped
    watch.invalidate("a")
    assert memory.dropped == [b"1"]
    watch.invalidate("b")
    assert sorted(memory.dropped) == [b"1", b"1", b"2"]


def test_what_nobody_holds_takes_no_memory(memory: Memory) -> None:
    watch = memory.watch
    watch.track(Value(b"1"), watch.start_read("a"))
    assert not len(watch._groups)
    watch.invalidate("a")
    assert not memory.dropped


def test_news_that_overtake_a_read_make_it_useless(memory: Memory) -> None:
    watch = memory.watch
    reading, other = watch.start_read("a"), watch.start_read("b")
    watch.invalidate("a")
    assert watch.track(Value(b"1"), reading) == ()
    assert watch.track(Value(b"2"), other)
    every = watch.start_read("a")
    watch.invalidate(None)
    assert watch.track(Value(b"1"), every) == ()
    assert memory.cleared == 1


def test_nothing_is_kept_without_trust(memory: Memory) -> None:
    watch = memory.watch
    before = watch.start_read("a")
    watch.store_notifies = False
    assert memory.cleared == 1
    while_off = watch.start_read("a")
    watch.store_notifies = True
    # What was read before news could be missed, or while they were, may be old.
    assert watch.track(Value(b"1"), before) == ()
    assert watch.track(Value(b"1"), while_off) == ()
    assert watch.track(Value(b"1"), watch.start_read("a"))
