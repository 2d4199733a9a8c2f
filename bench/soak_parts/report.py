"""The result of a soak: the bounds, a table, and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from soak_parts.samples import Slope, slope

WIDTH, HEIGHT, LEFT, TOP, PLOT = 760, 110, 190, 46, 80
JUDGED = 600.0  # seconds after the warm-up from which on the default bounds apply
LINE, TREND, SHADE = "#2f5bea", "#d2452d", "#eef0f5"


class Series(NamedTuple):
    """A sampled value; its slope per hour may be at most *bound*."""

    name: str
    title: str
    bound: float | None = None
    help: str = ""


SERIES = (
    Series("memory", "memory, MB (PSS)", 4.0, "MB of all processes"),
    Series("descriptors", "descriptors", 20.0, "open files of all processes"),
    Series("threads", "threads", 2.0, "threads of all processes"),
    Series("store", "store keys (SQLite: kB)", 200.0, "keys of Redis, or kB of SQLite"),
    Series("connections", "client connections", 20.0, "open client connections"),
    Series("misses", "cache misses per s"),
    Series("processes", "processes"),
)
Samples = Sequence[Mapping[str, float]]


def with_rates(samples: Samples) -> list[dict[str, float]]:
    """Return the samples with the rate of cache misses since the previous one."""
    found = [dict(sample) for sample in samples]
    for sample, previous in zip(found, [found[0], *found], strict=False):
        elapsed = sample["seconds"] - previous["seconds"]
        # The counters of a worker that was replaced start at zero.
        count = max(0.0, sample["cache_misses"] - previous["cache_misses"])
        sample["misses"] = count / elapsed if elapsed else 0.0
    if len(found) > 1:
        found[0]["misses"] = found[1]["misses"]
    return found


def slopes(samples: Samples, warm_up: float) -> dict[str, Slope]:
    """Return the slope of each series after the warm-up."""
    late = [one for one in samples if one["seconds"] >= warm_up] or samples[-1:]
    seconds = [one["seconds"] for one in late]
    return {
        one.name: slope(seconds, [sample[one.name] for sample in late])
        for one in SERIES
    }


def passed(
    found: Mapping[str, Slope], bounds: Mapping[str, float | None], judged: float
) -> list[str]:
    """Return the series whose slope passes its bound by more than two errors.

    A bound of None is the default one; it applies if *judged* seconds were long enough.
    """
    names = []
    for one in SERIES:
        bound = bounds.get(one.name)
        if bound is None and judged >= JUDGED:
            bound = one.bound
        line = found[one.name]
        if bound is not None and line.per_hour - 2 * line.error > bound:
            names.append(one.name)
    return names


def table(samples: Samples, document: Mapping[str, Any]) -> str:
    """Return the series as text: first and last after the warm-up, extremes, slope."""
    late = [one for one in samples if one["seconds"] >= document["warm_up"]]
    lines = [
        f"{'':24} {'first':>9} {'last':>9} {'least':>9} {'most':>9} "
        f"{'slope/h':>10} {'error':>9}"
    ]
    for one in SERIES:
        values = [sample[one.name] for sample in late or samples[-1:]]
        line = document["slopes"][one.name]
        mark = "  too steep" if one.name in document["too_steep"] else ""
        lines.append(
            f"{one.title:24} {values[0]:9.1f} {values[-1]:9.1f} {min(values):9.1f} "
            f"{max(values):9.1f} {line['per_hour']:+10.2f} {line['error']:9.2f}{mark}"
        )
    return "\n".join(lines)


def svg(samples: Samples, document: Mapping[str, Any]) -> str:
    """Return a plot of each series over minutes; the warm-up is shaded."""
    height = TOP + HEIGHT * len(SERIES) + 20
    end = max(samples[-1]["seconds"], 1.0)
    scale = (WIDTH - LEFT - 20) / end
    title = f"Soak of {end / 60:.3g} minutes, store {document['store']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for number, one in enumerate(SERIES):
        line = document["slopes"][one.name]
        parts += _plot(samples, one, line, document["warm_up"], number, scale)
    parts.append(
        f'<text x="{LEFT}" y="{height - 8}">0</text>'
        f'<text x="{WIDTH - 20}" y="{height - 8}" text-anchor="end">'
        f"{end / 60:.1f} minutes</text>"
    )
    return "\n".join([*parts, "</svg>\n"])


def _plot(
    samples: Samples,
    series: Series,
    line: Mapping[str, float],
    warm_up: float,
    number: int,
    scale: float,
) -> list[str]:
    values = [sample[series.name] for sample in samples]
    top = max(values) or 1.0
    base = TOP + number * HEIGHT + PLOT

    def point(seconds: float, value: float) -> str:
        inside = min(max(value, 0.0), top)
        return f"{LEFT + seconds * scale:.1f},{base - PLOT * inside / top:.1f}"

    path = " ".join(
        point(sample["seconds"], value)
        for sample, value in zip(samples, values, strict=True)
    )
    end = samples[-1]["seconds"]
    trend = " ".join(
        point(seconds, line["start"] + line["per_hour"] * seconds / 3600)
        for seconds in (min(warm_up, end), end)
    )
    middle = base - PLOT // 2
    return [
        f'<rect x="{LEFT}" y="{base - PLOT}" width="{min(warm_up, end) * scale:.1f}" '
        f'height="{PLOT}" fill="{SHADE}"/>',
        f'<path d="M{LEFT} {base}H{WIDTH - 20}" stroke="#c9ced9"/>',
        f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"/>',
        f'<polyline points="{trend}" fill="none" stroke="{TREND}" '
        'stroke-dasharray="5 3"/>',
        f'<text x="12" y="{middle}">{escape(series.title)}</text>',
        f'<text x="12" y="{middle + 18}" fill="#667">'
        f"{line['per_hour']:+.2f} per hour</text>",
        f'<text x="{LEFT - 6}" y="{base - PLOT + 10}" text-anchor="end" fill="#667">'
        f"{top:.6g}</text>",
    ]
