#!/usr/bin/env python3
"""Measure the CPU time of a request against the number of sessions, rules, and others.

    python bench/scale.py [--requests N] [--output FOLDER] [--only TEXT] [--quick]

It runs the core in this process, so only the ratios along a curve mean something on a
busy machine. It prints a table, and writes table, JSON and charts. ``--quick`` takes
fewer requests, writes nothing, and fails if a curve over numbers of rules, upstreams,
sessions, groups or providers grows with them.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("bench", "core", "server")]

from scale_parts.charts import CHARTS  # noqa: E402
from scale_parts.measure import Point, growth, measure, svg, table  # noqa: E402

QUICK_REQUESTS = 300
MAX_GROWTH = 6.0  # of the cost from the smallest size to the largest
BYTES = "bytes"  # in the unit of a chart whose cost may grow with its sizes
CACHED = "Sessions"  # in the title of the chart that leaves a cache


def main() -> int:
    """Measure and print; return 1 if a curve of a quick run grows."""
    parser = argparse.ArgumentParser(prog="bench/scale.py")
    parser.add_argument("--requests", type=int, default=4_000)
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--only", default="", help="part of the title of a chart")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    requests = QUICK_REQUESTS if options.quick else options.requests
    points: list[Point] = []
    for chart in CHARTS:
        if options.only.lower() in chart.title.lower():
            points += measure(chart, requests)
            print(f"{chart.title}: done", file=sys.stderr)
    print(table(points))
    if options.quick:
        return check_growth(points)
    options.output.mkdir(parents=True, exist_ok=True)
    document = [point._asdict() for point in points]
    (options.output / "scale.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "scale.md").write_text(table(points) + "\n")
    (options.output / "scale.svg").write_text(svg(points))
    return 0


def check_growth(points: list[Point]) -> int:
    """Return 1, and print the curves, unless all costs stay about the same."""
    failed = 0
    for (chart, curve), group in groupby(points, lambda point: point[0:3:2]):
        measured = list(group)
        if BYTES in measured[0].unit or CACHED in chart:
            continue
        if growth(measured) > MAX_GROWTH:
            print(f"{chart}, {curve}: the cost grows {growth(measured):.1f} times")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
