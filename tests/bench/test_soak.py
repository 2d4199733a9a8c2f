"""A short run of ``bench/soak.py``: all responses are right, and bounds decide."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.programs import find

ROOT = Path(__file__).parents[2]
LIMIT = 120.0  # seconds, on a busy machine; else about 12


@pytest.mark.timeout(LIMIT + 60)
def test_soak_short_run_has_right_responses_and_reports_a_passed_bound(
    tmp_path: Path,
) -> None:
    if find("redis-server") is None:
        pytest.skip("redis-server is not installed")
    output, plot = tmp_path / "result.json", tmp_path / "plot.svg"
    command = [
        sys.executable, ROOT / "bench" / "soak.py", "--minutes", "0.1",
        "--rate", "40", "--sessions", "20", "--interval", "0.5", "--reload", "3",
        "--warm-up", "0.03", "--max-threads", "-1000000",
        "--output", output, "--plot", plot,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert output.exists(), done.stdout + done.stderr
    result = json.loads(output.read_text())
    assert result["wrong"] == {}, done.stdout
    assert result["too_steep"] == ["threads"], done.stdout
    assert done.returncode == 1
    for kind in (
        "login",
        "check",
        "get",
        "post",
        "WebSocket message",
        "HTTP/2 response",
    ):
        assert result["counts"].get(kind, 0) > 0, result["counts"]
    assert len(ElementTree.parse(plot).findall(".//{*}polyline")) == 14
