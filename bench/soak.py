#!/usr/bin/env python3
"""Run mixed traffic for hours; print the slopes of memory, descriptors and store.

    python bench/soak.py [--minutes N] [--store redis|cookie|sqlite] [--seed N] [--day N]
                         [--rate N] [--users N] [--sessions N] [--sockets N]
                         [--interval N] [--warm-up N] [--reload N] [--max-NAME N]
                         [--output FILE] [--plot FILE] [--logs FOLDER]

authproxy runs with two workers over TLS, with the development provider and an upstream.
The traffic consists of auth checks, logins, refreshes, sign-outs, proxied requests of up
to 2 MB, WebSockets, HTTP/2, requests without and with bad cookies, abandoned logins,
uploads that are cut off, and reloads of good and bad files. Each response is checked.
Lifetimes are shortened: ``--day`` minutes stand for a day, in which sessions are
refreshed each hour, end after two idle hours, and last 12 hours.

Every ``--interval`` seconds a sample is taken. The slope of each series is that of the
least-squares line through the samples after the warm-up. The exit code is 1 if a slope
is above its bound by more than two standard errors, or if a response was wrong. The
bounds are per hour; those that are not given apply only if the samples after the warm-up
cover ten minutes, because shorter runs say little about hours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("bench", "tests", "server", "core")]

import uvloop  # noqa: E402

from chaos_parts.verdict import TRACEBACK  # noqa: E402
from soak_parts import report, samples  # noqa: E402
from soak_parts.stage import KINDS, Lifetimes, Stage  # noqa: E402
from soak_parts.traffic import Traffic  # noqa: E402
from support.programs import find  # noqa: E402

BAD_FILE = "workers = [\n"
PROGRESS = 30.0  # seconds between two printed samples


def main() -> int:
    """Run; print the report."""
    options = parse()
    if options.store != "sqlite" and find("redis-server") is None:
        print("redis-server is not installed")
        return 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stage = Stage(
            stack,
            Path(folder),
            store=options.store,
            users=options.users,
            lifetimes=Lifetimes.of_day(options.day * 60),
        )
        found, document = uvloop.run(run(stage, options))
        if options.logs is not None:
            shutil.copy(stage.process.log_file, options.logs)
    print_report(found, document)
    if options.output is not None:
        whole = {**document, "samples": found}
        options.output.write_text(json.dumps(whole, indent=1) + "\n")
    if options.plot is not None:
        options.plot.write_text(report.svg(found, document))
    return 1 if document["too_steep"] or document["wrong"] else 0


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="bench/soak.py")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--store", choices=KINDS, default="redis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--day", type=float, default=60.0, help="minutes of a day")
    parser.add_argument("--rate", type=float, default=60.0, help="actions per second")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=400)
    parser.add_argument("--sockets", type=int, default=50, help="WebSockets at most")
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument(
        "--warm-up",
        type=float,
        help="minutes; by default as long as a session lasts, at most half the run",
    )
    parser.add_argument(
        "--reload", type=float, default=60.0, help="seconds, at least 3; 0: never"
    )
    for one in report.SERIES:
        if one.bound is not None:
            text = f"bound of the slope: {one.help} per hour; default {one.bound:g}"
            parser.add_argument(f"--max-{one.name}", type=float, help=text)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path, help="an SVG file")
    parser.add_argument("--logs", type=Path)
    options = parser.parse_args()
    if options.day < 2:
        parser.error("a day of less than two minutes has too short an idle timeout")
    if options.warm_up is None:
        options.warm_up = min(options.day / 2, options.minutes / 2)
    if (options.minutes - options.warm_up) * 60 < 4 * options.interval:
        parser.error("four samples after the warm-up are needed for a slope")
    return options


async def run(
    stage: Stage, options: argparse.Namespace
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Run traffic, samples and reloads; return the samples and the result."""
    traffic = Traffic(
        stage, options.users, options.sessions, options.sockets, options.seed
    )
    seconds = options.minutes * 60
    found: list[dict[str, float]] = []
    load = [os.getloadavg()[0]]
    others = [asyncio.create_task(sample(stage, found, load, options.interval))]
    if options.reload:
        others.append(asyncio.create_task(reload(stage, options.reload)))
    try:
        await traffic.run(options.rate, seconds)
    finally:
        for task in others:
            task.cancel()
        results = await asyncio.gather(*others, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    totals = await asyncio.to_thread(samples.totals, stage)
    found = report.with_rates(found)
    return found, judge(stage, traffic, found, totals, load, options)


async def sample(
    stage: Stage, found: list[dict[str, float]], load: list[float], interval: float
) -> None:
    """Take samples until cancelled; print one now and then."""
    start, printed = time.monotonic(), 0.0
    while True:
        now = time.monotonic() - start
        found.append(await asyncio.to_thread(samples.take, stage, now))
        load.append(os.getloadavg()[0])
        if now >= printed:
            printed = now + PROGRESS
            shown = ", ".join(f"{key} {value:.0f}" for key, value in found[-1].items())
            print(shown, flush=True)
        await asyncio.sleep(interval)


async def reload(stage: Stage, interval: float) -> None:
    """Change the configuration until cancelled; every third file is bad."""
    number = 0
    while True:
        await asyncio.sleep(interval)
        number += 1
        if number % 3:
            stage.configure(f"Version {number}")
        else:
            stage.write(BAD_FILE)


def judge(
    stage: Stage,
    traffic: Traffic,
    found: list[dict[str, float]],
    totals: dict[str, float],
    load: list[float],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return the result for JSON."""
    warm_up = options.warm_up * 60
    lines = report.slopes(found, warm_up)
    bounds = {
        one.name: getattr(options, f"max_{one.name}", None) for one in report.SERIES
    }
    wrong = dict(traffic.wrong)
    if tracebacks := len(TRACEBACK.findall(stage.process.log())):
        wrong["tracebacks in the log"] = tracebacks
    judged = found[-1]["seconds"] - warm_up
    return {
        "store": options.store,
        "seed": options.seed,
        "rate": options.rate,
        "lifetimes": stage.lifetimes._asdict(),
        "warm_up": warm_up,
        "seconds": found[-1]["seconds"],
        "load": [min(load), max(load)],
        "slopes": {name: line._asdict() for name, line in lines.items()},
        "too_steep": report.passed(lines, bounds, judged),
        "are_default_bounds_applied": judged >= report.JUDGED,
        "counts": dict(sorted(traffic.counts.items())),
        "totals": totals,
        "wrong": wrong,
        "examples": traffic.examples,
    }


def print_report(found: list[dict[str, float]], document: dict[str, Any]) -> None:
    """Print the result."""
    low, high = document["load"]
    print(
        f"\nstore {document['store']}, seed {document['seed']}, "
        f"{document['seconds']:.0f} s of which {document['warm_up']:.0f} s warm-up, "
        f"load {low:.1f} to {high:.1f}\n"
    )
    print(report.table(found, document))
    if not document["are_default_bounds_applied"]:
        print("(too short for the default bounds)")
    for title in ("counts", "totals"):
        shown = (f"{key} {value:.0f}" for key, value in document[title].items())
        print(f"\n{title}: {', '.join(shown)}")
    print(f"\nwrong: {sum(document['wrong'].values())}")
    for kind, count in document["wrong"].items():
        print(f"  {kind:50} {count}")
    for example in document["examples"]:
        print(f"  {example}")


if __name__ == "__main__":
    sys.exit(main())
