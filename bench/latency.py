#!/usr/bin/env python3
"""Measure latencies at fixed rates, also during reloads, refreshes and scrapes.

    python bench/latency.py [--rates N,N] [--seconds N] [--rounds N] [--case NAME]
                            [--output FILE]

The load is open: `open_loop.py` sends each request at its time, and counts from it.
oauth2-proxy runs beside authproxy in every case that it can do: it has no reload by
signal. A refresh storm is 100 sessions that are due for a refresh at once, every second;
scrapes are ten each second. Each round runs all programs; the result is the median.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import run  # noqa: E402
import sessions  # noqa: E402
from authproxy_core import Session  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from support.http import Client  # noqa: E402
from support.ports import LOOPBACK, free_port  # noqa: E402
from support.processes import Process  # noqa: E402
from support.programs import find  # noqa: E402

STORM = 100  # sessions that are refreshed at once
REFRESH, AGE = "1h", 3700  # the option, and seconds
COLUMNS = ("p50_ms", "p99_ms", "p999_ms", "max_ms", "late_ms", "requests", "errors")


class Target(NamedTuple):
    """A program under test."""

    name: str
    port: int
    metrics_port: int
    process: Process
    cookies: Path


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/latency.py")
    parser.add_argument("--rates", default="100,1000,10000")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        provider = DevProvider(sessions.provider_config(""))
        issuer = stack.enter_context(serve(provider)).url
        storm = refreshable_sessions(provider, issuer)
        targets = [
            start(stack, Path(name), program, issuer)
            for program in ("authproxy", "oauth2-proxy")
            if program == "authproxy" or find(program)
        ]
        for rate in map(int, options.rates.split(",")):
            for case, disturb in DISTURBANCES.items():
                if options.case in case:
                    rows += measure(targets, case, disturb, rate, storm, options)
    print(table(rows))
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def start(
    stack: contextlib.ExitStack, folder: Path, program: str, issuer: str
) -> Target:
    """Start *program* with metrics and refreshes, and write cookies for it."""
    metrics_port, cookies = free_port(), folder / f"{program}.txt"
    extra = (
        f'metrics_address = "{LOOPBACK}:{metrics_port}"\ncookie_refresh = "{REFRESH}"\n'
    )
    port, process = run.start_proxy(stack, folder, program, issuer, extra=extra)
    session = sessions.realistic_session(issuer)
    sessions.write_cookies(
        cookies, session, run.WARM, oauth2_proxy=program == "oauth2-proxy"
    )
    return Target(program, port, metrics_port, process, cookies)


def measure(
    targets: list[Target],
    case: str,
    disturb: Callable[[Target, list[Session]], None],
    rate: int,
    storm: list[Session],
    options: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    """Yield one row for each program: the medians of its rounds."""
    results: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for target in targets:
            if case == "reloads" and target.name != "authproxy":
                continue
            result = generate(target, rate, options.seconds, disturb, storm)
            results.setdefault(target.name, []).append(result)
            print(f"{rate}/s, {case}: {target.name} {result}", file=sys.stderr)
    for name, rounds in results.items():
        medians = {
            key: statistics.median(one.get(key, 0.0) for one in rounds)
            for key in COLUMNS
        }
        yield {"rate": rate, "case": case, "program": name, **medians}


def generate(
    target: Target,
    rate: int,
    seconds: float,
    disturb: Callable[[Target, list[Session]], None],
    storm: list[Session],
) -> dict[str, float]:
    """Run the generator once, and *disturb* the program meanwhile."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            disturb(target, storm)

    thread = threading.Thread(target=repeat)
    command = [sys.executable, str(ROOT / "bench" / "open_loop.py"), str(target.port)]
    command += [str(target.cookies), str(rate)]
    subprocess.run([*command, "1"], check=True, capture_output=True)  # warms the caches
    thread.start()
    try:
        done = subprocess.run(
            [*command, str(seconds)], check=True, capture_output=True, text=True
        )
    finally:
        stop.set()
        thread.join()
    result: dict[str, float] = json.loads(done.stdout)
    return result


# -- what happens meanwhile


def nothing(target: Target, storm: list[Session]) -> None:
    """Let the program alone."""
    time.sleep(0.2)


def reload(target: Target, storm: list[Session]) -> None:
    """Reload the configuration once a second."""
    target.process.signal(signal.SIGHUP)
    time.sleep(1.0)


def scrape(target: Target, storm: list[Session]) -> None:
    """Scrape the metrics ten times a second."""
    response = Client().get(f"http://{LOOPBACK}:{target.metrics_port}/metrics")
    assert response.status == 200, response
    time.sleep(0.1)


def refresh(target: Target, storm: list[Session]) -> None:
    """Send a request with each session of the storm, all of them due, at once."""
    started = time.monotonic()
    due = [
        msgspec.structs.replace(one, created_at=time.time() - AGE, nonce=os.urandom(32))
        for one in storm
    ]
    with tempfile.NamedTemporaryFile() as file:
        cookies = Path(file.name)
        sessions.write_sessions(
            cookies, due, oauth2_proxy=target.name == "oauth2-proxy"
        )
        command = [sys.executable, str(ROOT / "bench" / "open_loop.py")]
        command += [str(target.port), file.name, str(STORM * 10), "0.1", str(STORM)]
        subprocess.run(command, check=True, capture_output=True)
    time.sleep(max(0.0, started + 1.0 - time.monotonic()))


DISTURBANCES: dict[str, Callable[[Target, list[Session]], None]] = {
    "quiet": nothing,
    "reloads": reload,
    "scrapes": scrape,
    "refresh storms": refresh,
}


def refreshable_sessions(provider: DevProvider, issuer: str) -> list[Session]:
    """Log in; return sessions whose refresh tokens the running *provider* knows."""
    return [sessions.log_in(provider, issuer) for _ in range(STORM)]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| requests/s | meanwhile | program | p50 ms | p99 ms | p99.9 ms | max ms | "
        "generator late, p99 ms | errors |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['rate']:,} | {row['case']} | {row['program']} | {row['p50_ms']:.2f} | "
        f"{row['p99_ms']:.2f} | {row['p999_ms']:.2f} | {row['max_ms']:.1f} | "
        f"{row['late_ms']:.2f} | {row['errors']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
