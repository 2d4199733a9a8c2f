"""Samples of a soak: memory, descriptors, threads, store, metrics; and their slopes."""

from __future__ import annotations

import math
import os
import re
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from soak_parts.stage import Stage
from support.ports import LOOPBACK
from websockets import memory, tree

METRIC = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
TOTALS = {  # counters of the metrics endpoint that the report shows
    "authproxy_session_cache_misses_total": "session cache misses",
    "authproxy_refreshes_total": "refreshes",
    "authproxy_reloads_total": "reloads",
    "authproxy_worker_starts_total": "worker starts",
    "authproxy_log_lines_dropped_total": "log lines dropped",
}


class Slope(NamedTuple):
    """The straight line through samples, per hour, and the error of its slope."""

    start: float  # at time zero
    per_hour: float
    error: float


def take(stage: Stage, seconds: float) -> dict[str, float]:
    """Return a sample at *seconds* since the start."""
    pids = tree(stage.process.pid)
    found = metrics(stage)
    connections = sum(found["authproxy_connections"].values())
    misses = sum(found["authproxy_session_cache_misses_total"].values())
    return {
        "seconds": seconds,
        "memory": memory(stage.process.pid)["pss_kb"] / 1024,
        "descriptors": float(sum(entries(pid, "fd") for pid in pids)),
        "threads": float(sum(entries(pid, "task") for pid in pids)),
        "store": stage.store_size(),
        "connections": connections,
        "cache_misses": misses,
        "processes": float(len(pids)),
    }


def entries(pid: int, folder: str) -> int:
    """Return the number of entries of a folder in /proc."""
    return len(os.listdir(Path("/proc") / str(pid) / folder))


def metrics(stage: Stage) -> dict[str, dict[str, float]]:
    """Return the values of the metrics endpoint by name and labels."""
    url = f"http://{LOOPBACK}:{stage.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=20) as response:
        text = response.read().decode()
    found: dict[str, dict[str, float]] = {}
    for name, labels, value in METRIC.findall(text):
        found.setdefault(name, {})[labels] = float(value)
    return found


def totals(stage: Stage) -> dict[str, float]:
    """Return the counters of `TOTALS` that are not zero, with their labels."""
    found = metrics(stage)
    return {
        f"{title} {labels}".strip(): value
        for name, title in TOTALS.items()
        for labels, value in found.get(name, {}).items()
        if value
    }


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Return the least-squares line; the error is infinite for two points or fewer."""
    count = len(seconds)
    mean_x, mean_y = sum(seconds) / count, sum(values) / count
    spread = sum((x - mean_x) ** 2 for x in seconds)
    if count < 3 or not spread:
        return Slope(mean_y, 0.0, math.inf)
    pairs = list(zip(seconds, values, strict=True))
    gain = sum((x - mean_x) * (y - mean_y) for x, y in pairs) / spread
    start = mean_y - gain * mean_x
    rest = sum((y - start - gain * x) ** 2 for x, y in pairs)
    error = math.sqrt(rest / (count - 2) / spread)
    return Slope(start, gain * 3600, error * 3600)
