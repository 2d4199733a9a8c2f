"""Bounded caches: the limit holds, and a full cache starts again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from authproxy_core.bounded_cache import BoundedCache


def test_bounded_cache_full_is_cleared() -> None:
    cache = BoundedCache[str, int](2)
    assert [cache.put(key, value) for key, value in (("a", 1), ("b", 2))] == [1, 2]
    assert dict(cache) == {"a": 1, "b": 2}
    assert cache.put("c", 3) == 3
    assert dict(cache) == {"c": 3}


def test_bounded_cache_value_above_limit_not_stored() -> None:
    cache = BoundedCache[str, bytes](10)
    cache.put("small", b"1", cost=4)
    assert cache.put("large", b"2", cost=11) == b"2"
    assert dict(cache) == {"small": b"1"}


@given(st.lists(st.integers(0, 12)), st.integers(1, 30))
def test_bounded_cache_cost_stays_within_limit(costs: list[int], limit: int) -> None:
    cache = BoundedCache[int, int](limit)
    for key, cost in enumerate(costs):
        cache.put(key, cost, cost)
        assert sum(cache.values()) <= limit
