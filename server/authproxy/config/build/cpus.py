"""How many CPUs this process may use: affinity, and the quota of its control group."""

from __future__ import annotations

import os
from pathlib import Path

# Version 2 of control groups, where a container sees its own group at the root, and 1.
QUOTA = Path("/sys/fs/cgroup/cpu.max")
OLD_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
OLD_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cpus() -> int:
    """At least 1. A quota of one and a half CPUs is two workers' work."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return min(cpus, _quota() or cpus)


def _quota() -> int | None:
    """The quota in CPUs, rounded up; None when there is none."""
    try:
        if QUOTA.exists():
            quota, period = QUOTA.read_text().split()
        else:
            quota, period = OLD_QUOTA.read_text(), OLD_PERIOD.read_text()
        return max(1, -(-int(quota) // int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # no control groups, or "max"
        return None
