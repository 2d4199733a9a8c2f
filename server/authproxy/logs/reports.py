"""Log lines about things that all workers see: logged once, not once per worker."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from .formatter import LEVELS, Level

REPORT = "report"  # message of a worker: REPORT LEVEL MODULE TEXT
INTERVAL = 30.0  # seconds in which the same line of another worker is left out
MAX_REPORTS = 256  # remembered lines; the oldest are forgotten


class Report(NamedTuple):
    """One line of a worker."""

    level: Level
    module: str
    text: str

    def message(self) -> str:
        """Return the message to the supervisor."""
        return f"{REPORT} {self.level} {self.module} {self.text}"


def parse_report(message: str) -> Report | None:
    """Return the report in a worker's message; None if it has another form."""
    kind, _, rest = message.partition(" ")
    name, _, rest = rest.partition(" ")
    module, _, text = rest.partition(" ")
    level = LEVELS.get(name)
    return Report(level, module, text) if kind == REPORT and level else None


class WorkerReports:
    """Finds the reports that another worker has already made.

    Each worker's first, second, … report of a line is one event that all of them see.
    """

    def __init__(self) -> None:
        self._reports: dict[Report, tuple[float, set[int]]] = {}

    def is_new(self, pid: int, report: Report, now: float) -> bool:
        """Return whether to log *report* of worker *pid*; *now* is in seconds."""
        reported_at, pids = self._reports.get(report, (-inf, set()))
        if now - reported_at < INTERVAL and pid not in pids:
            pids.add(pid)
            return False
        self._reports.pop(report, None)
        self._reports[report] = (now, {pid})
        if len(self._reports) > MAX_REPORTS:
            del self._reports[next(iter(self._reports))]
        return True
