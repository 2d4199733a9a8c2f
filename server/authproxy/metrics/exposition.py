"""The numbers as text, in Prometheus' exposition format 0.0.4.

Written here and not by a client library: the numbers are in shared memory, not in
objects of one process, and the format is a page long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .. import __version__
from .families import (
    CONNECTIONS,
    FAMILIES,
    IN_FLIGHT,
    PID,
    READY,
    REQUESTS,
    Family,
    Labels,
)
from .process import process_lines
from .shared_memory import LAYOUT, width

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

# What is shown for each worker beside the sums: family, name, help.
PER_WORKER = (
    (REQUESTS, "authproxy_worker_requests_total", "Requests that a worker answered."),
    (IN_FLIGHT, "authproxy_worker_requests_in_flight", "Requests in a worker's hands."),
    (CONNECTIONS, "authproxy_worker_connections", "Open connections of a worker."),
    (READY, "authproxy_worker_ready", "Whether a worker can log users in."),
)
Slots = Mapping[int, Sequence[float]]


def render_totals(slots: Slots) -> str:
    """All metrics, summed over the workers; and some numbers of each worker."""
    total = list(map(sum, zip(*slots.values(), strict=True)))
    lines = [line for family in _shown() for line in _family(family, {"": total})]
    for family, name, text in PER_WORKER:
        lines += _head(name, family.kind, text)
        at = LAYOUT.of(family).values()
        for number, cells in slots.items():
            value = sum(cells[place] for place in at)
            lines.append(f'{name}{{worker="{number}"}} {_number(value)}')
    lines += process_lines([int(cells[LAYOUT.only(PID)]) for cells in slots.values()])
    lines += _head("authproxy_build_info", "gauge", "The version that runs.")
    lines.append(f'authproxy_build_info{{version="{__version__}"}} 1')
    return "\n".join(lines) + "\n"


def render_per_worker(slots: Slots) -> str:
    """All metrics of each worker, told apart by the label ``worker``."""
    named = {f'worker="{number}"': cells for number, cells in slots.items()}
    lines = [line for family in _shown() for line in _family(family, named)]
    return "\n".join(lines) + "\n"


def _shown() -> Iterator[Family]:
    return (family for family in FAMILIES if family is not PID)


def _family(family: Family, sets: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """The lines of a family; *sets* are numbers by the labels that they all get."""
    yield from _head(family.name, family.kind, family.help)
    for common, cells in sets.items():
        for labels, at in LAYOUT.of(family).items():
            if not family.listed and not any(cells[at : at + width(family)]):
                continue
            pairs = _pairs(family.labels, labels, common)
            if family.kind == "histogram":
                yield from _histogram(family, pairs, cells, at)
            else:
                yield f"{family.name}{_braced(pairs)} {_number(cells[at])}"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _histogram(
    family: Family, pairs: list[str], cells: Sequence[float], at: int
) -> Iterator[str]:
    counts = cells[at : at + len(family.buckets) + 1]
    total = sum(counts)
    name, running = family.name, 0.0
    for bound, count in zip((*family.buckets, None), counts, strict=True):
        running += count
        le = "+Inf" if bound is None else f"{bound:g}"
        labels = _braced([*pairs, f'le="{le}"'])
        yield f"{name}_bucket{labels} {_number(running)}"
    yield f"{name}_sum{_braced(pairs)} {_number(cells[at + len(counts)])}"
    yield f"{name}_count{_braced(pairs)} {_number(total)}"


def _pairs(names: Labels, values: Labels, common: str) -> list[str]:
    # All values are our own words: nothing in them needs escaping.
    own = [f'{name}="{value}"' for name, value in zip(names, values, strict=True)]
    return [common, *own] if common else own


def _braced(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
