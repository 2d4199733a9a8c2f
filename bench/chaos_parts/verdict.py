"""The result of a chaos run: counts, recovery times, and the goals."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from chaos_parts.stage import Stage
from chaos_parts.traffic import Traffic

MAX_RECOVERY = 2.0  # seconds
EXCERPT = 2500  # bytes of a traceback in the report
LEEWAY = 300.0  # seconds that a cookie may be from the future
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|never retrieved")


class Verdict:
    """Collects the rounds of a run; `finish` reads logs and provider."""

    def __init__(
        self, stage: Stage, traffic: Traffic, skipped: dict[str, str], seed: int
    ) -> None:
        self.stage = stage
        self.traffic = traffic
        self.skipped = skipped
        self.seed = seed
        self.rounds: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.load = [os.getloadavg()[0]]
        self.started = time.monotonic()

    def round(self, names: str, started: float, repaired: float) -> None:
        """Record a round; print it."""
        failures = [start for start, _ in self.traffic.failures if start >= started]
        late = [start for start in failures if start >= repaired]
        slow = [start for start, _ in self.traffic.slow if start >= repaired]
        self.load.append(os.getloadavg()[0])
        found = {
            "fault": names,
            "seconds": repaired - started,
            "failed": len(failures),
            "recovery": max(late) - repaired if late else 0.0,
            "slow_until": max(slow) - repaired if slow else 0.0,
        }
        self.rounds.append(found)
        print(
            f"{names:58} {found['seconds']:5.1f} s  {found['failed']:5} failed  "
            f"back after {found['recovery']:4.1f} s  "
            f"slow until {found['slow_until']:4.1f} s",
            flush=True,
        )

    def finish(self) -> None:
        """Read the logs and the provider's counts."""
        self.tokens = self.stage.provider.ask(do="count")
        self.tracebacks = sum(
            len(TRACEBACK.findall(text)) for text in self.stage.logs()
        )
        self.seconds = time.monotonic() - self.started
        self.log_excerpt = [
            excerpt for text in self.stage.logs() for excerpt in excerpts(text)
        ][:10]

    @property
    def from_future(self) -> int:
        """Sessions whose cookie was made before the clock stepped back."""
        return sum(
            session.clock - clock > LEEWAY for _, session, clock in self.traffic.lost
        )

    @property
    def results(self) -> dict[str, float]:
        """The counts that have goals."""
        counts = self.traffic.counts
        undocumented = sum(
            count
            for kind, count in counts.items()
            if kind.startswith("undocumented") or kind == "unreadable response"
        )
        return {
            "wrong identities": counts["wrong identity"]
            + counts["response to another request"],
            "signed-out sessions accepted": counts["signed-out session accepted"],
            "sessions lost": counts["session lost"] - self.from_future,
            "refresh tokens used twice": len(self.tokens["used_twice"]),
            "tracebacks": self.tracebacks,
            "undocumented responses": undocumented,
            "failed faults": len(self.problems),
        }

    @property
    def recovery(self) -> float:
        """The longest recovery in seconds."""
        return max((one["recovery"] for one in self.rounds), default=0.0)

    def is_good(self, *, timed: bool) -> bool:
        """Return whether all goals are met; with *timed* that of the recovery, too."""
        is_fast = not timed or self.recovery <= MAX_RECOVERY
        return is_fast and not any(self.results.values())

    def document(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "store": self.stage.store_kind,
            "seed": self.seed,
            "seconds": self.seconds,
            "load": [min(self.load), max(self.load)],
            "results": self.results,
            "recovery": self.recovery,
            "sessions from the future": self.from_future,
            "refreshes": self.tokens["refreshes"],
            "repeated after a lost response": len(self.tokens["repeated"]),
            "counts": dict(sorted(self.traffic.counts.items())),
            "examples": self.traffic.examples,
            "problems": self.problems,
            "skipped": self.skipped,
            "rounds": self.rounds,
            "log": self.log_excerpt,
        }


def excerpts(text: str) -> list[str]:
    """Return the tracebacks of a log, shortened."""
    return [
        text[match.start() : match.start() + EXCERPT]
        for match in TRACEBACK.finditer(text)
    ]


def print_report(verdict: Verdict) -> None:
    """Print the result."""
    document = verdict.document()
    print(
        f"\nstore {document['store']}, seed {document['seed']}, "
        f"{document['seconds']:.0f} s, load {document['load'][0]:.1f} to "
        f"{document['load'][1]:.1f}, {len(verdict.rounds)} rounds"
    )
    for name, count in document["results"].items():
        print(f"  {name:32} {count}")
    print(f"  {'longest recovery':32} {document['recovery']:.1f} s")
    for key in ("sessions from the future", "refreshes",
                "repeated after a lost response"):  # fmt: skip
        print(f"  ({key}: {document[key]})")
    for kind, count in document["counts"].items():
        print(f"    {kind:40} {count}")
    for kind, texts in document["examples"].items():
        for text in texts[:5]:
            print(f"    {kind}: {text[:300].splitlines()[0]}")
    for text in (*document["problems"], *document["log"][:3]):
        print(f"    {text}")
    for name, why in document["skipped"].items():
        print(f"  skipped {name}: {why}")
