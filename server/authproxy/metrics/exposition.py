"""Exposition: the metrics in Prometheus' text format 0.0.4.

Without a client library, because the values are in shared memory and not in objects of
one process.
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
from .shared_memory import LAYOUT, series_width

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

# Exposed for each worker in addition to the totals: family, name, help.
PER_WORKER = (
    (REQUESTS, "authproxy_worker_requests_total", "Requests of a worker."),
    (
        IN_FLIGHT,
        "authproxy_worker_requests_in_flight",
        "Requests in flight of a worker.",
    ),
    (CONNECTIONS, "authproxy_worker_connections", "Open connections of a worker."),
    (READY, "authproxy_worker_ready", "Whether a worker can sign users in."),
)
Values = Sequence[float]
Slots = Mapping[int, Values]


def render_totals(slots: Slots) -> str:
    """Return all metrics summed over the workers, and a few for each worker."""
    total = list(map(sum, zip(*slots.values(), strict=True)))
    lines = [
        line for family in _exposed() for line in _family_lines(family, {"": total})
    ]
    for family, name, text in PER_WORKER:
        lines += _header(name, family.kind, text)
        offsets = LAYOUT.offsets(family).values()
        for number, values in slots.items():
            value = sum(values[offset] for offset in offsets)
            lines.append(f'{name}{{worker="{number}"}} {_format(value)}')
    lines += process_lines(int(values[LAYOUT.offset(PID)]) for values in slots.values())
    lines += _header("authproxy_build_info", "gauge", "The running version.")
    lines.append(f'authproxy_build_info{{version="{__version__}"}} 1')
    return "\n".join(lines) + "\n"


def render_per_worker(slots: Slots) -> str:
    """Return all metrics of each worker, with the label ``worker``."""
    labeled = {f'worker="{number}"': values for number, values in slots.items()}
    lines = [line for family in _exposed() for line in _family_lines(family, labeled)]
    return "\n".join(lines) + "\n"


def _exposed() -> Iterator[Family]:
    return (family for family in FAMILIES if family is not PID)


def _family_lines(family: Family, sets: Mapping[str, Values]) -> Iterator[str]:
    """Yield the lines of *family*; *sets* maps a label for all series to values."""
    yield from _header(family.name, family.kind, family.help)
    width = series_width(family)
    for common, values in sets.items():
        for labels, offset in LAYOUT.offsets(family).items():
            series = values[offset : offset + width]
            if not (family.shows_zero or any(series)):
                continue
            pairs = _label_pairs(family.labels, labels, common)
            if family.kind == "histogram":
                yield from _histogram_lines(family, pairs, series)
            else:
                yield f"{family.name}{_braced(pairs)} {_format(series[0])}"


def _header(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _histogram_lines(family: Family, pairs: list[str], series: Values) -> Iterator[str]:
    *counts, total_seconds = series
    name, cumulative = family.name, 0.0
    for bound, count in zip((*family.buckets, None), counts, strict=True):
        cumulative += count
        le = "+Inf" if bound is None else f"{bound:g}"
        labels = _braced([*pairs, f'le="{le}"'])
        yield f"{name}_bucket{labels} {_format(cumulative)}"
    yield f"{name}_sum{_braced(pairs)} {_format(total_seconds)}"
    yield f"{name}_count{_braced(pairs)} {_format(cumulative)}"


def _label_pairs(names: Labels, values: Labels, common: str) -> list[str]:
    # No escaping: all values are constants of `families`.
    pairs = [f'{name}="{value}"' for name, value in zip(names, values, strict=True)]
    return [common, *pairs] if common else pairs


def _braced(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _format(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
