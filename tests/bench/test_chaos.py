"""A short run of ``bench/chaos.py``: nothing is lost or mixed up by common faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import find

ROOT = Path(__file__).parents[2]
FAULTS = (
    "kill_worker",
    "kill_supervisor",
    "kill_redis",
    "kill_provider",
    "disturb_link",
    "rotate_cookie_secret",
)
ROUNDS = 6  # of one or two faults
LIMIT = 240.0  # seconds, on a busy machine; else about 30


@pytest.mark.timeout(LIMIT + 60)
def test_chaos_short_run_loses_and_mixes_up_nothing(tmp_path: Path) -> None:
    for name in ("nginx", "redis-server"):
        if find(name) is None:
            pytest.skip(f"{name} is not installed")
    output = tmp_path / "result.json"
    command = [
        sys.executable, ROOT / "bench" / "chaos.py", "--store", "redis",
        "--minutes", "3", "--rounds", str(ROUNDS), "--observe", "0.5", "--untimed",
        "--users", "10", "--sessions", "40", "--rate", "40", "--refresh", "3",
        "--only", ",".join(FAULTS), "--output", output,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert output.exists(), done.stdout + done.stderr
    [result] = json.loads(output.read_text())
    assert not any(result["results"].values()), done.stdout
    assert done.returncode == 0
    assert len(result["rounds"]) == ROUNDS
    assert result["refreshes"] > 0
    assert result["counts"]["status 202"] > 0
    assert result["counts"]["status 200"] > 0
