"""What all tests share: the switch that forbids skips, and logs beside failures.

Fixtures of real programs live with the tests that use them (``tests/e2e``); the archive
is here, for it is built once for all.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support import processes
from support.archive import NO_PACKAGES, build

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--no-skips``: for CI, where every program is installed."""
    parser.addoption(
        "--no-skips", action="store_true", help="report a skipped test as failed"
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, Any, None]:
    """Forbid skips when asked to; show the logs of running programs on failure."""
    report: pytest.TestReport = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        _forbid_skip(item.config, report)
    if report.failed:
        report.sections += [
            (f"log of {process.name}", process.log_tail())
            for process in processes.running()
        ]


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, Any, None]:
    """A module that skips itself is a skip as well."""
    report: pytest.CollectReport = (yield).get_result()
    if report.skipped:
        _forbid_skip(collector.config, report)


def _forbid_skip(
    config: pytest.Config, report: pytest.TestReport | pytest.CollectReport
) -> None:
    """With ``--no-skips``, turn the skip *report* into a failure that names it."""
    if config.getoption("--no-skips"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips forbids: {reason}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``authproxy.pyz``, made from this tree."""
    output = tmp_path_factory.mktemp("zipapp") / "authproxy.pyz"
    done = build("--output", output)
    if done.returncode == NO_PACKAGES:
        pytest.skip(f"pip can't reach its index: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return output
