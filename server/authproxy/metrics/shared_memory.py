"""The memory that the numbers are in: one slot of doubles for each worker.

It is made before the workers are forked and shared by them. Each writes to its own slot
alone, so nobody needs a lock; whoever is asked reads all slots. A worker that takes the
place of a dead one takes its slot too, so that counters never fall.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable

from .families import FAMILIES, STARTS, Family, Labels

DOUBLE = 8  # bytes


def width(family: Family) -> int:
    """How many doubles a series has: for a histogram its buckets, +Inf, and the sum."""
    return len(family.buckets) + 2 if family.kind == "histogram" else 1


class Layout:
    """Where in a slot the numbers of each family are."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.places: dict[str, dict[Labels, int]] = {}
        self.gauges: list[int] = []
        at = 0
        for family in families:
            places = self.places[family.name] = {}
            for labels in family.series:
                places[labels] = at
                if family.kind == "gauge":
                    self.gauges.append(at)
                at += width(family)
        self.size = at

    def of(self, family: Family) -> dict[Labels, int]:
        """Labels of a series → the index of its (first) number."""
        return self.places[family.name]

    def only(self, family: Family) -> int:
        """The index of the number of a family without labels."""
        return self.places[family.name][()]


LAYOUT = Layout(FAMILIES)


class SharedMetrics:
    """The numbers of *slots* workers."""

    def __init__(self, slots: int = 1) -> None:
        memory = mmap.mmap(-1, slots * LAYOUT.size * DOUBLE)
        self._cells = memoryview(memory).cast("d")
        self.slots = slots

    def slot(self, number: int) -> memoryview[float]:
        """The part that belongs to worker *number*."""
        start = number * LAYOUT.size
        return self._cells[start : start + LAYOUT.size]

    def retire(self, number: int) -> None:
        """The worker of this slot has ended: what it held is no more."""
        cells = self.slot(number)
        for at in LAYOUT.gauges:
            cells[at] = 0.0

    def used(self) -> dict[int, list[float]]:
        """The numbers of all slots that a worker has ever had."""
        starts = LAYOUT.only(STARTS)
        slots = {number: self.slot(number) for number in range(self.slots)}
        return {
            number: list[float](one.tolist())
            for number, one in slots.items()
            if one[starts]
        }
