"""Process metrics of the workers, read from /proc (Linux).

The names are those of Prometheus' client libraries; the values are sums over workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import isinf
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")


class ProcessUsage(Struct, frozen=True):
    """Resources of one process; times in seconds, sizes in bytes."""

    cpu: float
    resident: float
    virtual: float
    started_at: float  # Unix time
    descriptors: float
    max_descriptors: float


def process_lines(pids: Iterable[int]) -> list[str]:
    """Return the lines for the processes *pids*; empty without /proc."""
    try:
        boot = _boot_time()
    except (OSError, ValueError):
        return []
    usages = [one for pid in pids if pid and (one := _read(pid, boot)) is not None]
    if not usages:
        return []
    rows = (
        ("cpu_seconds_total", "counter", "CPU time", sum(one.cpu for one in usages)),
        ("resident_memory_bytes", "gauge", "Resident memory",
         sum(one.resident for one in usages)),
        ("virtual_memory_bytes", "gauge", "Virtual memory",
         sum(one.virtual for one in usages)),
        ("open_fds", "gauge", "Open file descriptors",
         sum(one.descriptors for one in usages)),
        ("max_fds", "gauge", "Limit of file descriptors of one worker",
         min(one.max_descriptors for one in usages)),
        ("start_time_seconds", "gauge", "Start of the oldest worker",
         min(one.started_at for one in usages)),
    )  # fmt: skip
    lines = []
    for name, kind, text, value in rows:
        lines += [
            f"# HELP process_{name} {text}, all workers.",
            f"# TYPE process_{name} {kind}",
            f"process_{name} {'+Inf' if isinf(value) else repr(value)}",
        ]
    return lines


def _read(pid: int, boot: float) -> ProcessUsage | None:
    """Return the usage of process *pid*; None if it does not exist."""
    directory = PROC / str(pid)
    try:
        # The command, in parentheses, may contain spaces (proc(5), /proc/[pid]/stat).
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
        descriptors = len(os.listdir(directory / "fd"))
        limit = _descriptor_limit((directory / "limits").read_text())
    except (OSError, ValueError):
        return None
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return ProcessUsage(
        cpu=(int(fields[11]) + int(fields[12])) / ticks,
        resident=float(int(fields[21]) * page),
        virtual=float(fields[20]),
        started_at=boot + int(fields[19]) / ticks,
        descriptors=float(descriptors),
        max_descriptors=limit,
    )


def _descriptor_limit(text: str) -> float:
    for line in text.splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return float("inf") if soft == "unlimited" else float(soft)
    raise ValueError("no 'Max open files' in /proc/[pid]/limits")


def _boot_time() -> float:
    for line in (PROC / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise ValueError("no btime in /proc/stat")
