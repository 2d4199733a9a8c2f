"""Shared memory of the metrics: one slot of doubles for each worker.

It is created before the workers are forked. Each worker writes only to its slot, so no
lock is necessary; a scrape reads all slots. A restarted worker takes the slot of its
predecessor, so counters never decrease.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable

from .families import FAMILIES, STARTS, Family, Labels

DOUBLE_BYTES = 8


def series_width(family: Family) -> int:
    """Return the doubles per series; a histogram has its buckets, +Inf and the sum."""
    return len(family.buckets) + 2 if family.kind == "histogram" else 1


class Layout:
    """The offsets of all series in a slot; ``size`` is its length in doubles."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._offsets: dict[str, dict[Labels, int]] = {}
        self.gauges: list[int] = []
        offset = 0
        for family in families:
            offsets = self._offsets[family.name] = {}
            for labels in family.series:
                offsets[labels] = offset
                if family.kind == "gauge":
                    self.gauges.append(offset)
                offset += series_width(family)
        self.size = offset

    def offsets(self, family: Family) -> dict[Labels, int]:
        """Return the offset of the first value of each series, by its labels."""
        return self._offsets[family.name]

    def offset(self, family: Family) -> int:
        """Return the offset of the value of a family without labels."""
        return self._offsets[family.name][()]


LAYOUT = Layout(FAMILIES)


class SharedMetrics:
    """The values of all workers, in *slots* slots."""

    def __init__(self, slots: int = 1) -> None:
        memory = mmap.mmap(-1, slots * LAYOUT.size * DOUBLE_BYTES)
        self._values = memoryview(memory).cast("d")
        self.slots = slots

    def slot(self, number: int) -> memoryview[float]:
        """Return the values of slot *number*, writable."""
        start = number * LAYOUT.size
        return self._values[start : start + LAYOUT.size]

    def clear_gauges(self, number: int) -> None:
        """Set the gauges of slot *number* to 0, because its worker has exited."""
        values = self.slot(number)
        for offset in LAYOUT.gauges:
            values[offset] = 0.0

    def used_slots(self) -> dict[int, list[float]]:
        """Return a copy of each slot that a worker has used, by its number."""
        starts = LAYOUT.offset(STARTS)
        slots = {number: self.slot(number) for number in range(self.slots)}
        return {
            number: list[float](values.tolist())
            for number, values in slots.items()
            if values[starts]
        }
