"""Lines that all workers would write are logged once."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from authproxy.logs.reports import (
    INTERVAL,
    MAX_REPORTS,
    Report,
    WorkerReports,
    parse_report,
)
from authproxy.net.control_channel import MAX_MESSAGE_BYTES, ControlChannel
from authproxy.worker.serve import _log_once
from support.processes import wait_for
from support.program import Program

REPORT = Report("warning", "store", "a text with spaces")


def test_report_round_trips_as_message() -> None:
    assert parse_report(REPORT.message()) == REPORT


@pytest.mark.parametrize("message", ["", "report", "report fatal m t", "prepared 1"])
def test_parse_report_other_message_returns_none(message: str) -> None:
    assert parse_report(message) is None


def test_reports_same_event_of_each_worker_logged_once() -> None:
    reports = WorkerReports()
    other = REPORT._replace(text="other")
    assert [reports.is_new(pid, REPORT, 0.0) for pid in (1, 2, 3)] == [
        True,
        False,
        False,
    ]
    assert reports.is_new(2, other, 1.0)
    # A second report of one worker is another event.
    assert reports.is_new(2, REPORT, 2.0)
    assert not reports.is_new(1, REPORT, 3.0)
    assert reports.is_new(3, REPORT, 2.0 + INTERVAL)


def test_reports_bounded() -> None:
    reports = WorkerReports()
    for number in range(2 * MAX_REPORTS):
        assert reports.is_new(1, REPORT._replace(text=str(number)), 0.0)
    assert len(reports._reports) == MAX_REPORTS
    assert reports.is_new(2, REPORT._replace(text="0"), 0.0)  # forgotten
    assert not reports.is_new(2, REPORT._replace(text=str(2 * MAX_REPORTS - 1)), 0.0)


def test_report_that_cannot_be_sent_is_left_to_the_worker() -> None:
    ours, theirs = ControlChannel.pair()
    assert _log_once(ours, "info", "store", "short")
    assert not _log_once(ours, "info", "store", "x" * MAX_MESSAGE_BYTES)
    while _log_once(ours, "info", "store", "short"):
        pass  # until the queue is full
    theirs.close()
    assert not _log_once(ours, "info", "store", "short")
    ours.close()


def test_start_of_several_workers_logs_its_settings_and_events_once(
    tmp_path: Path,
) -> None:
    """Nothing listens at the provider's address."""
    with Program(
        tmp_path,
        workers=3,
        logging_format="json",
        reverse_proxy=True,
        cookie_domains=[".example.com"],
    ) as program:
        wait_for(lambda: "provider_failed" in program.log(), "the failure")
        wait_for(lambda: len(program.workers) == 3, "the workers")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        lines = [json.loads(line) for line in program.log().splitlines()]
    texts = [line["message"] for line in lines]
    levels = {line["message"].partition(" ")[0]: line["level"] for line in lines}
    assert levels["reverse_proxy"] == "warning"
    assert levels["authproxy"] == levels["stopped"] == "info"
    assert [line["module"] for line in lines].count("provider_failed") == 1
    for text in (
        "authproxy 0.1.0 starts, workers: 3",
        "provider 'oidc=web': type oidc, issuer http://127.0.0.1:9",
        "callback URL: https://HOST/oauth2/callback",
        "cookie: _oauth2_proxy for example.com; sessions in the cookie",
        "trusted proxies: loopback, private addresses and unix sockets",
        "stopped",
    ):
        assert texts.count(text) == 1, text
    assert any(text.startswith("store: sqlite ") for text in texts)
    assert "hidden-client-secret" not in str(lines)
