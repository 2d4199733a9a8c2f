#!/usr/bin/env python3
"""Flood authproxy, oauth2-proxy and nginx; measure a well-behaved client beside it.

    python bench/floods.py [--only NAME[,NAME...]] [--attackers N[,N...]] [--seconds N]
                           [--against NAME[,NAME...]] [--output FILE] [--quick] [--list]

Each flood runs against a new server with two workers, by 1, 10 and 100 attackers in other
processes, at a limited rate. A row shows the latency of auth checks beside the flood,
absolute and relative to the idle server, the growth of the memory of all processes, the
checks that failed, and what is not as before ten seconds later. "discard" is a server
that discards the flood: its rows show the load of the attackers alone.

Goals: p99 at most 5 times the idle one, growth at most 32 MB, nothing lasting. The exit
code is 1 if authproxy misses one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("bench", "tests", "server", "core")]

from flood_kinds.attacker import FLOODS  # noqa: E402
from flood_kinds.measure import MAX_GROWTH, MAX_RATIO, measure  # noqa: E402
from flood_kinds.targets import Scene, Skipped  # noqa: E402
from support.processes import ProgramFailedError  # noqa: E402
from support.programs import find  # noqa: E402

PROGRAMS = ("authproxy", "oauth2-proxy", "nginx", "discard")
QUICK = ("pipelined_unread", "empty_lines", "one_byte_chunks", "tls_silent", "h2_pings")


def main() -> int:
    """Measure and print a row for each flood, program and number of attackers."""
    options = parse()
    if options.list:
        for flood in FLOODS.values():
            print(f"{flood.name:26} {flood.title}")
        return 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        scene = Scene(stack, Path(name))
        print(header())
        for flood in options.floods:
            for attackers in options.attackers:
                for program in options.against:
                    if program not in (*flood.against, "discard"):
                        continue
                    row = {"flood": flood.name, "attackers": attackers}
                    try:
                        row = measure(
                            scene,
                            flood,
                            program,
                            attackers,
                            options.seconds,
                            len(rows),
                        )
                    except (Skipped, ProgramFailedError) as error:
                        row |= {"program": program, "skipped": str(error)}
                    rows.append(row)
                    print(line(row), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    missed = [row for row in rows if row["program"] == "authproxy" and misses(row)]
    measured = [row for row in rows if row["program"] == "authproxy"]
    print(f"{len(missed)} of {len(measured)} rows of authproxy miss a goal")
    return 1 if missed else 0


def parse() -> argparse.Namespace:
    """Return the options, with floods and numbers in lists."""
    parser = argparse.ArgumentParser(prog="bench/floods.py")
    parser.add_argument("--only", default="")
    parser.add_argument("--attackers", default="1,10,100")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--against", default=",".join(PROGRAMS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(FLOODS)
    if options.quick:
        names = options.only.split(",") if options.only else list(QUICK)
        options.attackers, options.seconds = "10", 3.0
    for name in names:
        if name not in FLOODS:
            parser.error(f"no flood {name!r}; --list names them")
    options.floods = [FLOODS[name] for name in names]
    options.attackers = [int(number) for number in options.attackers.split(",")]
    options.against = [
        name
        for name in options.against.split(",")
        if name in ("authproxy", "discard") or find(name) is not None
    ]
    return options


def header() -> str:
    """Return the title of the columns."""
    return (
        f"{'flood':26} {'attackers':>9} {'program':13} {'p50':>7} {'p99':>7} "
        f"{'p99 ms':>8} {'idle ms':>8} {'RSS MB':>7} {'PSS MB':>7} {'back s':>6} "
        f"{'CPU':>5} {'their':>5}  problems"
    )


def line(row: dict[str, Any]) -> str:
    """Return a row as text; p50 and p99 are relative to the idle server."""
    start = f"{row['flood']:26} {row['attackers']:9} {row['program']:13} "
    if "skipped" in row:
        return f"{start} skipped: {row['skipped'][-400:]}"
    failed = [f"{count} {name}" for name, count in row["during"]["problems"].items()]
    return start + (
        f"{row['p50_ratio']:6.1f}x {row['p99_ratio']:6.1f}x "
        f"{row['during']['p99_ms']:8.1f} {row['idle']['p99_ms']:8.1f} "
        f"{row['rss_growth_mb']:7.1f} {row['pss_growth_mb']:7.1f} "
        f"{row['recovered_s']:6.1f} {row['server_cpu']:5.2f} {row['attackers_cpu']:5.2f}  "
        f"{'; '.join(failed + row['lasting'])}{' <' if misses(row) else ''}"
    )


def misses(row: dict[str, Any]) -> bool:
    """Return whether a row misses a goal."""
    if "skipped" in row:
        return False
    return bool(
        row["p99_ratio"] > MAX_RATIO
        or row["pss_growth_mb"] > MAX_GROWTH
        or row["lasting"]
        or row["during"]["problems"]
    )


if __name__ == "__main__":
    sys.exit(main())
