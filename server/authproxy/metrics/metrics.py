"""What the parts of one worker call when something has happened.

Each call adds to one or two numbers in the worker's slot of the shared memory; nothing
is allocated, and no lock is taken. Only the worker's loop may call.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from typing import Literal

from authproxy_core.endpoints.health import ping_paths
from authproxy_core.messages import Event, Verdict

from ..server_settings import ServerSettings
from .families import (
    ACCEPTED,
    BUCKETS,
    CACHE_MISSES,
    CONNECTIONS,
    DECISIONS,
    DROPPED_LINES,
    DURATION,
    EVENT,
    FETCH_SECONDS,
    FETCHES,
    IN_FLIGHT,
    LOGINS,
    METHODS,
    OTHER,
    PID,
    READY,
    REFRESH,
    RELOAD,
    SCRAPES,
    SCRAPES_IN_FLIGHT,
    STARTS,
    STORE,
    STORE_BUCKETS,
    STORE_SECONDS,
    UPSTREAM_FAILED,
    UPSTREAM_SECONDS,
    Family,
    Labels,
)
from .shared_memory import LAYOUT, SharedMetrics

SUM = len(BUCKETS) + 1  # of a histogram: behind its buckets and +Inf
STORE_SUM = len(STORE_BUCKETS) + 1
REFRESH_RESULTS = {
    "refreshed": "refreshed",
    "refresh_failed": "failed",
    "session_ended": "ended",
}


class Metrics:
    """The numbers of one worker, in slot *number* of *shared*.

    ``enabled`` tells whether somebody can ask for them: `answered`, which costs
    something for every request, need not be called otherwise. Health checks under the
    paths in *uncounted* are not counted.
    """

    def __init__(
        self,
        shared: SharedMetrics | None = None,
        number: int = 0,
        *,
        enabled: bool = False,
        uncounted: frozenset[bytes] = frozenset(),
    ) -> None:
        self.shared = shared or SharedMetrics()
        self.enabled = enabled
        self._cells = self.shared.slot(number)
        self._others = [one for one in range(self.shared.slots) if one != number]
        self._uncounted = uncounted
        self._unsealed = 0
        durations = LAYOUT.of(DURATION)
        self._durations = {
            name.upper().encode(): durations[(name,)] for name in METHODS[:-1]
        }
        self._other_duration = durations[(METHODS[-1],)]
        self._decisions = LAYOUT.of(DECISIONS)

    def worker_started(self) -> None:
        """Begin with what a dead predecessor counted, but not with what it held."""
        cells = self._cells
        for at in LAYOUT.gauges:
            cells[at] = 0.0
        cells[LAYOUT.only(STARTS)] += 1
        cells[LAYOUT.only(PID)] = os.getpid()

    # For each request.

    def record_response(
        self,
        target: bytes,
        method: bytes,
        status: int,
        seconds: float,
        verdict: Verdict = "",
        reason: str = "",
    ) -> None:
        """A request has been answered; *status* 0 means that it could not be.

        Health checks have no verdict and are not counted.
        """
        cells = self._cells
        if verdict:
            at = self._decisions.get((verdict, reason))
            if at is None:
                at = self._decisions[(verdict, OTHER)]
            cells[at] += 1
        elif target.partition(b"?")[0] in self._uncounted:
            return
        cells[status] += 1  # `REQUESTS` comes first
        at = self._durations.get(method, self._other_duration)
        cells[at + bisect_left(BUCKETS, seconds)] += 1
        cells[at + SUM] += seconds

    # For what takes longer.

    def begun(self) -> None:
        """A request is being answered by a task; `ended` must follow."""
        self._cells[IN_FLIGHT_AT] += 1

    def ended(self) -> None:
        """The task has ended."""
        self._cells[IN_FLIGHT_AT] -= 1

    def connected(self) -> None:
        """A client's connection is open; `disconnected` must follow."""
        self._cells[CONNECTIONS_AT] += 1
        self._cells[ACCEPTED_AT] += 1

    def disconnected(self) -> None:
        """A client's connection is gone."""
        self._cells[CONNECTIONS_AT] -= 1

    def fewest_connections(self) -> float:
        """How many clients' connections the other worker with the fewest of them has."""
        others = (self.shared.slot(number) for number in self._others)
        return min(
            (cells[CONNECTIONS_AT] for cells in others if cells[PID_AT]), default=inf
        )

    def event(self, event: Event) -> None:
        """A fact that the core told, within a decision or outside of one."""
        kind = event.kind
        self._add(EVENT, (kind,), (OTHER,))
        if kind in REFRESH_RESULTS:
            self._add(REFRESH, (REFRESH_RESULTS[kind],))
        elif kind == "logged_in":
            self._add(LOGINS, ("success", ""))
        elif kind == "login_failed":
            self._add(LOGINS, ("failure", event.reason), ("failure", OTHER))
        elif kind == "login_denied":
            self._add(LOGINS, ("denied", event.reason), ("denied", OTHER))
        elif kind == "upstream_failed":
            self._add(UPSTREAM_FAILED, (event.reason,), (OTHER,))

    def fetch_done(self, purpose: str, seconds: float, status: int | None) -> None:
        """The identity provider has answered with *status*; None: it did not."""
        if (purpose,) not in LAYOUT.of(FETCH_SECONDS):
            purpose = OTHER
        self._add(FETCHES, (purpose, _outcome(status)))
        self._time(FETCH_SECONDS, (purpose,), seconds)

    def store_done(
        self, operation: str, seconds: float, outcome: Literal["ok", "error"]
    ) -> None:
        """The store has done *operation* (the effect's name in lower case)."""
        if (operation,) not in LAYOUT.of(STORE_SECONDS):
            operation = OTHER
        self._add(STORE, (operation, outcome))
        self._time(STORE_SECONDS, (operation,), seconds)

    def upstream_answered(self, seconds: float) -> None:
        """The head of an upstream's answer has come."""
        self._time(UPSTREAM_SECONDS, (), seconds)

    def reload(self, outcome: Literal["success", "failure"]) -> None:
        """The configuration, or a file it names, was read anew."""
        self._add(RELOAD, (outcome,))

    def unsealed(self, total: int) -> None:
        """So many sessions had to be unsealed by a core that counts from 0."""
        grown = total - self._unsealed
        self._unsealed = total
        # Less than before: another core has taken over.
        self._cells[LAYOUT.only(CACHE_MISSES)] += grown if grown >= 0 else total

    def lines_lost(self, count: int) -> None:
        """So many log lines were lost since the last call."""
        self._cells[LAYOUT.only(DROPPED_LINES)] += count

    def ready(self, ready: bool) -> None:
        """Whether this worker can log users in."""
        self._cells[LAYOUT.only(READY)] = float(ready)

    @contextlib.contextmanager
    def scraped(self) -> Iterator[None]:
        """Somebody reads the numbers; this request counts as one in flight."""
        at = LAYOUT.only(SCRAPES_IN_FLIGHT)
        self._cells[at] += 1
        try:
            yield
        finally:
            self._cells[at] -= 1
            self._add(SCRAPES, ("200",))

    def _add(self, family: Family, labels: Labels, fallback: Labels = ()) -> None:
        places = LAYOUT.of(family)
        at = places.get(labels)
        self._cells[places[fallback] if at is None else at] += 1

    def _time(self, family: Family, labels: Labels, seconds: float) -> None:
        at = LAYOUT.of(family)[labels]
        self._cells[at + bisect_left(family.buckets, seconds)] += 1
        self._cells[at + len(family.buckets) + 1] += seconds


IN_FLIGHT_AT = LAYOUT.only(IN_FLIGHT)
CONNECTIONS_AT = LAYOUT.only(CONNECTIONS)
PID_AT = LAYOUT.only(PID)
ACCEPTED_AT = LAYOUT.only(ACCEPTED)


def metrics_of(settings: ServerSettings, shared: SharedMetrics, slot: int) -> Metrics:
    """The numbers of the worker that has *slot*, by what the settings ask for."""
    core = settings.core
    return Metrics(
        shared,
        slot,
        enabled=any(listener.metrics for listener in settings.listeners),
        uncounted=frozenset({*ping_paths(core), core.ready_path.encode()}),
    )


def _outcome(status: int | None) -> str:
    if status is None:
        return "failed"
    if status >= 500:
        return "error"
    return "refused" if status >= 400 else "ok"
