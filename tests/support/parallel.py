"""Runs of the whole suite: distribution over pytest's processes, progress lines."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# Files and folders that take longest come first, so that both processes end together.
LONGEST = (
    "tests/e2e/",
    "tests/zipapp/test_image.py",
    "tests/bench/",
    "tests/peers/",
    "tests/server/reload/",
    "tests/server/stores/",
    "tests/zipapp/",
    "tests/attacks/",
    "tests/server/",
)
# These share one Keycloak, except the files that use the development provider.
KEYCLOAK = "tests/e2e/"
OTHER_PROVIDER = ("test_forward_auth.py", "test_sessions.py", "test_streams.py")
INTERVAL = 5.0  # seconds between progress lines


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return *items* in the order in which their files are distributed."""

    def rank(item: pytest.Item) -> int:
        places = (
            number
            for number, prefix in enumerate(LONGEST)
            if item.nodeid.startswith(prefix)
        )
        return next(places, len(LONGEST))

    return sorted(items, key=rank)


class FileScheduling(LoadScopeScheduling):
    """Keep the tests of one file in one process, and all tests of Keycloak."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith(KEYCLOAK) and not file.endswith(OTHER_PROVIDER):
            return KEYCLOAK
        return file


class Progress:
    """Print a line with percentage, time and file every few seconds, no dots."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()
        self._total = 0
        self._done = 0
        self._failed = 0
        self._skipped = 0

    @pytest.hookimpl
    def pytest_xdist_node_collection_finished(
        self, node: WorkerController, ids: list[str]
    ) -> None:
        """Note how many tests there are."""
        self._total = len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, str] | None:
        """Suppress the dot of a passed test."""
        passed = report.passed and not hasattr(report, "wasxfail")
        return ("passed" if report.when == "call" else "", "", "") if passed else None

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count finished tests; name a failed one at once."""
        if report.failed:
            self._failed += 1
            print(f"\nFAILED {report.nodeid} ({report.when})", flush=True)
        self._skipped += report.skipped
        if report.when != "teardown":
            return
        self._done += 1
        now = time.monotonic()
        if now - self._printed >= INTERVAL or self._done == self._total:
            self._printed = now
            self._print(report.nodeid.partition("::")[0], now - self._started)

    def _print(self, file: str, elapsed: float) -> None:
        percent = 100 * self._done // max(self._total, 1)
        failed = f", {self._failed} failed" if self._failed else ""
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        print(
            f"[{percent:3} %] {elapsed:4.0f} s: {self._done} of {self._total} tests"
            f"{failed}{skipped}; {file}",
            flush=True,
        )
