#!/usr/bin/env python3
"""Measure what a worker adds: auth checks each second, CPU time, and memory.

    python bench/cores.py [--workers N,N] [--rounds N] [--seconds N] [--output FILE]

Requires wrk. The memory is the PSS of all processes, which counts pages shared by forked
processes once: idle, and after checks of 200 sessions. Each round runs all numbers of
workers; the result is the median.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import proxied  # noqa: E402
import run  # noqa: E402
import sessions  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402

CONNECTIONS = 32
COLUMNS = ("rate", "p50_ms", "p99_ms", "cpu_us")


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/cores.py")
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        rows = measure(stack, Path(name), options)
    print(table(rows))
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def measure(
    stack: contextlib.ExitStack, folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row for each number of workers."""
    issuer = stack.enter_context(serve(DevProvider(ProviderConfig()))).url
    cookies = folder / "cookies.txt"
    session = sessions.realistic_session(issuer)
    sessions.write_cookies(cookies, session, run.WARM, oauth2_proxy=False)
    running = {}
    for workers in map(int, options.workers.split(",")):
        place = folder / str(workers)
        place.mkdir()
        port, process = run.start_proxy(
            stack, place, "authproxy", issuer, workers=workers
        )
        running[workers] = (port, process, proportional_memory(process.pid))
    results: dict[int, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for workers, (port, process, _) in running.items():
            before = proxied.cpu_seconds(process.pid)
            result = run.wrk(port, cookies, CONNECTIONS, options.seconds)
            used = proxied.cpu_seconds(process.pid) - before
            result["cpu_us"] = used * 1e6 / result["requests"]
            results.setdefault(workers, []).append(result)
            print(f"{workers}: {result['rate']:,.0f}/s", file=sys.stderr)
    return [
        {
            "workers": workers,
            **{
                name: statistics.median(one[name] for one in rounds) for name in COLUMNS
            },
            "idle_mb": running[workers][2],
            "warm_mb": proportional_memory(running[workers][1].pid),
        }
        for workers, rounds in results.items()
    ]


def proportional_memory(supervisor: int) -> float:
    """Return the PSS of a process and its children in MB."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
    return (
        sum(
            int(line.split()[1])
            for pid in (str(supervisor), *children.split())
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        )
        / 1024
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| workers | checks/s | p50 ms | p99 ms | CPU µs | idle MB | warm MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['workers']} | {row['rate']:,.0f} | {row['p50_ms']:.2f} | "
        f"{row['p99_ms']:.2f} | {row['cpu_us']:.0f} | {row['idle_mb']:.0f} | "
        f"{row['warm_mb']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
