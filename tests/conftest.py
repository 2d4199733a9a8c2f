"""Shared by all tests: no skips on request, distribution, logs of failed tests.

The fixtures of real programs are in ``tests/e2e``. The zipapp is here because several
folders use it and building it takes long.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from support import processes
from support.parallel import FileScheduling, Progress, longest_first
from support.zipapp import NO_PACKAGES, build

# The duration of an example depends on the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--no-skips`` (for CI with all programs installed) and ``--progress``."""
    parser.addoption(
        "--no-skips", action="store_true", help="report a skipped test as failed"
    )
    parser.addoption(
        "--progress", action="store_true", help="print a progress line every 5 s"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the progress lines in the process that prints."""
    if config.getoption("--progress") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first."""
    items[:] = longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Distribute whole files, in the order of collection."""
    config.option.loadscopereorder = False
    return FileScheduling(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, Any, None]:
    """Forbid skips on request; add the logs of running programs to a failure."""
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
    """Forbid modules that skip themselves."""
    report: pytest.CollectReport = (yield).get_result()
    if report.skipped:
        _forbid_skip(collector.config, report)


def _forbid_skip(
    config: pytest.Config, report: pytest.TestReport | pytest.CollectReport
) -> None:
    """With ``--no-skips``, turn a skip into a failure with its reason."""
    if config.getoption("--no-skips"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips forbids: {reason}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """``authproxy.pyz``, built once for all processes of pytest."""
    base = tmp_path_factory.getbasetemp()
    folder = base if worker_id == "master" else base.parent
    output = folder / "authproxy.pyz"
    with (folder / "zipapp.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            done = build("--output", output)
            if done.returncode == NO_PACKAGES:
                reason = done.stderr.splitlines()[-1]
                pytest.skip(f"pip cannot reach the package index: {reason}")
            assert done.returncode == 0, done.stderr
    return output
