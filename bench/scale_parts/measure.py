"""CPU time of a request against the size of something, and curves of it as SVG."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

COLORS = ("#2f5bea", "#d9480f", "#2b8a3e")
WIDTH, HEIGHT, LEFT, TOP = 380, 210, 52, 34
ROUNDS = 5

# Prepares a number of requests, and returns a function that handles them all.
Batch = Callable[[int], Callable[[], None]]


class Curve(NamedTuple):
    """One line of a chart: a name, and a batch of requests for each size."""

    name: str
    build: Callable[[int], Batch]


class Chart(NamedTuple):
    """A measurement: *curves* over *sizes*; *unit* names what the sizes count."""

    title: str
    unit: str
    sizes: tuple[int, ...]
    curves: tuple[Curve, ...]


class Point(NamedTuple):
    """CPU microseconds of a request at a size of a curve."""

    chart: str
    unit: str
    curve: str
    size: int
    microseconds: float


def measure(chart: Chart, requests: int) -> Iterator[Point]:
    """Yield the points of *chart*: the median of `ROUNDS` rounds over all its sizes."""
    batches = {
        (curve.name, size): curve.build(size)
        for curve in chart.curves
        for size in chart.sizes
    }
    times: dict[tuple[str, int], list[float]] = {key: [] for key in batches}
    for _ in range(ROUNDS):
        for key, batch in batches.items():
            run = batch(requests)
            start = time.process_time()
            run()
            times[key].append((time.process_time() - start) / requests * 1e6)
    for (name, size), measured in times.items():
        median = sorted(measured)[ROUNDS // 2]
        yield Point(chart.title, chart.unit, name, size, round(median, 1))


def growth(points: Sequence[Point]) -> float:
    """Return how many times the cost of the first size the largest cost is."""
    first = min(points, key=lambda point: point.size)
    return max(point.microseconds for point in points) / first.microseconds


def table(points: Sequence[Point]) -> str:
    """Return a Markdown table: a row for each curve, the costs by size."""
    rows = ["| chart | curve | CPU µs by size |", "| --- | --- | --- |"]
    for chart, curve in dict.fromkeys((point.chart, point.curve) for point in points):
        costs = ", ".join(
            f"{point.size:,}: {point.microseconds:g}"
            for point in points
            if (point.chart, point.curve) == (chart, curve)
        )
        rows.append(f"| {chart} | {curve} | {costs} |")
    return "\n".join(rows)


def svg(points: Sequence[Point]) -> str:
    """Return the charts of all *points*, two in a row, with logarithmic axes."""
    charts = list(dict.fromkeys(point.chart for point in points))
    height = (len(charts) + 1) // 2 * HEIGHT + 8
    width = 2 * WIDTH + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, title in enumerate(charts):
        x, y = number % 2 * WIDTH, number // 2 * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _chart([point for point in points if point.chart == title])
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _chart(points: Sequence[Point]) -> Iterator[str]:
    title, unit = points[0].chart, points[0].unit
    sizes = sorted({point.size for point in points})
    low = 10 ** math.floor(math.log10(min(point.microseconds for point in points)))
    high = 10 ** math.ceil(math.log10(max(point.microseconds for point in points) + 1))
    right, bottom = WIDTH - 16, HEIGHT - 48

    def across(size: int) -> float:
        span = math.log(sizes[-1] / sizes[0])
        return LEFT + (right - LEFT) * math.log(size / sizes[0]) / span

    def up(cost: float) -> float:
        return bottom - (bottom - TOP) * math.log(cost / low) / math.log(high / low)

    yield (
        f'<text x="{LEFT}" y="18" font-size="13" font-weight="600">'
        f"{escape(title)}: CPU µs</text>"
    )
    cost = low
    while cost <= high:
        y = up(cost)
        yield f'<path d="M{LEFT} {y:.0f}H{right}" stroke="#e3e6ee"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{cost:,g}</text>'
        cost *= 10
    for size in sizes:
        yield (
            f'<text x="{across(size):.0f}" y="{bottom + 14}" text-anchor="middle">'
            f"{_short(size)}</text>"
        )
    yield f'<text x="{right}" y="18" text-anchor="end">{escape(unit)}</text>'
    for number, curve in enumerate(dict.fromkeys(point.curve for point in points)):
        color = COLORS[number % len(COLORS)]
        path = "L".join(
            f"{across(point.size):.1f} {up(point.microseconds):.1f}"
            for point in points
            if point.curve == curve
        )
        yield f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>'
        yield (
            f'<text x="{LEFT + number * 110}" y="{bottom + 30}" fill="{color}">'
            f"{escape(curve)}</text>"
        )


def _short(size: int) -> str:
    for unit, factor in (("M", 1_000_000), ("k", 1_000)):
        if size >= factor:
            return f"{size / factor:g}{unit}"
    return str(size)
