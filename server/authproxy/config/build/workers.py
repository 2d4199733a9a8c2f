"""Choose the number of worker processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ...server_settings import StoreSettings
from ..read.resolved import ResolvedOptions

# CPU quota of cgroup v2, where a container sees its own cgroup at the root, and of v1.
QUOTA_V2 = Path("/sys/fs/cgroup/cpu.max")
QUOTA_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
PERIOD_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
# Memory limit of the same cgroup, in bytes.
MEMORY_V2 = Path("/sys/fs/cgroup/memory.max")
MEMORY_V1 = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
WORKER_MEMORY = 64 * 1024 * 1024  # bytes, of a busy worker


def worker_count(options: ResolvedOptions, store: StoreSettings) -> int:
    """Return the option ``workers``, by default as many as CPUs and memory allow.

    Without a shared store, but with session refreshes, the default is one worker.
    Workers could refresh the same session at once, and a provider that rotates refresh
    tokens ends the session when a used token is presented again.
    """
    workers = options.integer("workers")
    refreshes = options.seconds("cookie_refresh") or options.seconds(
        "session_refresh_before"
    )
    if not refreshes or store.kind != "none":
        return workers or min(usable_cpus(), memory_workers())
    if workers > 1:
        options.add_warning(
            "workers",
            "several workers may refresh a session at the same time, which ends it at a "
            "provider that rotates refresh tokens; use one worker, or set shared_state",
        )
    return workers or 1


def usable_cpus() -> int:
    """Return the number of CPUs of the affinity mask and cgroup quota, at least 1.

    A fractional quota is rounded up.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return min(cpus, _cpu_quota() or cpus)


def memory_workers() -> int:
    """Return how many workers fit into the memory limit of the cgroup, at least 1.

    A container of 300 MiB on a host of 64 CPUs would be killed with 64 workers.
    """
    try:
        file = MEMORY_V2 if MEMORY_V2.exists() else MEMORY_V1
        return max(1, int(file.read_text()) // WORKER_MEMORY)
    except (OSError, ValueError):  # no cgroups, or "max"
        return sys.maxsize


def _cpu_quota() -> int | None:
    """Return the cgroup quota in CPUs, rounded up; None for no quota."""
    try:
        if QUOTA_V2.exists():
            quota, period = QUOTA_V2.read_text().split()
        else:
            quota, period = QUOTA_V1.read_text(), PERIOD_V1.read_text()
        return max(1, -(-int(quota) // int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # no cgroups, or "max"
        return None
