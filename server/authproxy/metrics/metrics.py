"""Metrics of one worker: each method counts one kind of event.

A call adds to one or two values in the worker's slot of the shared memory. It takes no
lock and allocates nothing; only the worker's event loop may call.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from typing import Literal

from authproxy_core.endpoints.health import ping_paths
from authproxy_core.messages import Event, EventKind, Verdict

from ..server_settings import ServerSettings
from .families import (
    ACCEPTED,
    ACCEPTING,
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
    SPANS,
    STARTS,
    STORE,
    STORE_SECONDS,
    UPSTREAM_FAILED,
    UPSTREAM_SECONDS,
    Family,
    Labels,
)
from .shared_memory import LAYOUT, SharedMetrics

SUM_OFFSET = len(BUCKETS) + 1  # of a histogram with BUCKETS: after them and +Inf
REFRESH_RESULTS = {
    "refreshed": "refreshed",
    "refresh_failed": "failed",
    "session_ended": "ended",
}


class Metrics:
    """The metrics of one worker, in slot *number* of *shared*.

    ``enabled`` is whether a metrics listener exists: if not, `record_response`, which
    has a cost for every request, need not be called. Health checks to the paths in
    *uncounted* are not counted.
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
        self._values = self.shared.slot(number)
        self._others = [one for one in range(self.shared.slots) if one != number]
        self._uncounted = uncounted
        self._cache_misses = 0
        self._spans: dict[str, int] = {}
        durations = LAYOUT.offsets(DURATION)
        self._durations = {
            name.upper().encode(): durations[(name,)] for name in METHODS[:-1]
        }
        self._other_duration = durations[(METHODS[-1],)]
        self._decisions = LAYOUT.offsets(DECISIONS)

    def worker_started(self) -> None:
        """Count the start; the counters of a predecessor stay, its gauges do not."""
        values = self._values
        for offset in LAYOUT.gauges:
            values[offset] = 0.0
        values[LAYOUT.offset(STARTS)] += 1
        values[LAYOUT.offset(PID)] = os.getpid()

    def record_response(
        self,
        target: bytes,
        method: bytes,
        status: int,
        seconds: float,
        verdict: Verdict = "",
        reason: str = "",
    ) -> None:
        """Count a request by the *status* of its response, 0 without a response.

        A health check, which has no verdict, is not counted.
        """
        values = self._values
        if verdict:
            offset = self._decisions.get((verdict, reason))
            if offset is None:
                offset = self._decisions[(verdict, OTHER)]
            values[offset] += 1
        elif target.partition(b"?")[0] in self._uncounted:
            return
        values[status] += 1  # REQUESTS is the first family
        offset = self._durations.get(method, self._other_duration)
        values[offset + bisect_left(BUCKETS, seconds)] += 1
        values[offset + SUM_OFFSET] += seconds

    def request_started(self) -> None:
        """Count a request in flight; `request_ended` must follow."""
        self._values[IN_FLIGHT_OFFSET] += 1

    def request_ended(self) -> None:
        """Count a request in flight no more."""
        self._values[IN_FLIGHT_OFFSET] -= 1

    def connection_opened(self) -> None:
        """Count an open client connection; `connection_closed` must follow."""
        self._values[CONNECTIONS_OFFSET] += 1
        self._values[ACCEPTED_OFFSET] += 1

    def connection_closed(self) -> None:
        """Count a client connection as closed."""
        self._values[CONNECTIONS_OFFSET] -= 1

    def fewest_connections(self) -> float:
        """Return the client connections of the least loaded other worker, else inf."""
        others = (self.shared.slot(number) for number in self._others)
        return min(
            (values[CONNECTIONS_OFFSET] for values in others if values[PID_OFFSET]),
            default=inf,
        )

    def ready_peers(self) -> list[bool]:
        """Return for each other worker that accepts connections whether it is ready."""
        others = (self.shared.slot(number) for number in self._others)
        return [
            bool(values[READY_OFFSET]) for values in others if values[ACCEPTING_OFFSET]
        ]

    def peer_events(self, kind: EventKind) -> float:
        """Return the number of events of *kind* that other workers have counted."""
        offset = LAYOUT.offsets(EVENT)[(kind,)]
        return sum(self.shared.slot(number)[offset] for number in self._others)

    def count_event(self, event: Event) -> None:
        """Count an event of the core."""
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

    def record_fetch(self, purpose: str, seconds: float, status: int | None) -> None:
        """Count a provider request; *status* is None without a response."""
        if (purpose,) not in LAYOUT.offsets(FETCH_SECONDS):
            purpose = OTHER
        self._add(FETCHES, (purpose, _fetch_outcome(status)))
        self._observe(FETCH_SECONDS, (purpose,), seconds)

    def record_store_operation(
        self, operation: str, seconds: float, outcome: Literal["ok", "error"]
    ) -> None:
        """Count a store *operation*, the effect's name in lower case."""
        if (operation,) not in LAYOUT.offsets(STORE_SECONDS):
            operation = OTHER
        self._add(STORE, (operation, outcome))
        self._observe(STORE_SECONDS, (operation,), seconds)

    def record_upstream_response(self, seconds: float) -> None:
        """Count the response head of an upstream, *seconds* after the forwarding."""
        self._observe(UPSTREAM_SECONDS, (), seconds)

    def count_reload(self, outcome: Literal["success", "failure"]) -> None:
        """Count a reload."""
        self._add(RELOAD, (outcome,))

    def count_cache_misses(self, total: int) -> None:
        """Count the increase of *total*, the cache misses of the core in use."""
        increase = total - self._cache_misses
        self._cache_misses = total
        # A decrease means that a reload replaced the core, which counts from 0.
        self._values[LAYOUT.offset(CACHE_MISSES)] += (
            increase if increase >= 0 else total
        )

    def count_dropped_lines(self, count: int) -> None:
        """Count log lines dropped since the last call."""
        self._values[LAYOUT.offset(DROPPED_LINES)] += count

    def count_spans(self, exported: int, dropped: int) -> None:
        """Count the increase of the totals of this process."""
        for outcome, total in (("exported", exported), ("dropped", dropped)):
            increase = total - self._spans.get(outcome, 0)
            self._spans[outcome] = total
            self._values[LAYOUT.offsets(SPANS)[(outcome,)]] += increase

    def set_ready(self, ready: bool) -> None:
        """Set whether this worker can sign users in."""
        self._values[READY_OFFSET] = float(ready)

    def set_accepting(self, accepting: bool) -> None:
        """Set whether this worker accepts connections."""
        self._values[ACCEPTING_OFFSET] = float(accepting)

    @contextlib.contextmanager
    def track_scrape(self) -> Iterator[None]:
        """Count a scrape, in flight within the context."""
        offset = LAYOUT.offset(SCRAPES_IN_FLIGHT)
        self._values[offset] += 1
        try:
            yield
        finally:
            self._values[offset] -= 1
            self._add(SCRAPES, ("200",))

    def _add(self, family: Family, labels: Labels, fallback: Labels = ()) -> None:
        offsets = LAYOUT.offsets(family)
        offset = offsets.get(labels)
        self._values[offsets[fallback] if offset is None else offset] += 1

    def _observe(self, family: Family, labels: Labels, seconds: float) -> None:
        offset = LAYOUT.offsets(family)[labels]
        self._values[offset + bisect_left(family.buckets, seconds)] += 1
        self._values[offset + len(family.buckets) + 1] += seconds


IN_FLIGHT_OFFSET = LAYOUT.offset(IN_FLIGHT)
CONNECTIONS_OFFSET = LAYOUT.offset(CONNECTIONS)
PID_OFFSET = LAYOUT.offset(PID)
READY_OFFSET = LAYOUT.offset(READY)
ACCEPTING_OFFSET = LAYOUT.offset(ACCEPTING)
ACCEPTED_OFFSET = LAYOUT.offset(ACCEPTED)


def metrics_of(settings: ServerSettings, shared: SharedMetrics, slot: int) -> Metrics:
    """Return the metrics of worker *slot*, enabled if a listener exposes them."""
    core = settings.core
    return Metrics(
        shared,
        slot,
        enabled=any(listener.metrics for listener in settings.listeners),
        uncounted=frozenset({*ping_paths(core), core.ready_path.encode()}),
    )


def _fetch_outcome(status: int | None) -> str:
    if status is None:
        return "failed"
    if status >= 500:
        return "error"
    return "refused" if status >= 400 else "ok"
