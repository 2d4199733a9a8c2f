"""Every fuzz target over its seeds and some hundred mutations, the same in every run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.target import Target, mutations
from fuzz.targets import TARGETS

MUTATIONS = 200  # inputs of each target
RUN = Path(__file__).with_name("run.py")


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_fuzz_target_mutated_seeds_raise_documented_errors_only(
    target: Target,
) -> None:
    for data in (*target.seeds, b"", *mutations(target.seeds, MUTATIONS)):
        try:
            target.check(data)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\n{data!r}")


def test_fuzz_run_list_names_all_targets() -> None:
    done = subprocess.run(
        [sys.executable, RUN, "--list"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(TARGETS)


def test_fuzz_run_replay_runs_one_input(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(TARGETS["go_csv"].seeds[0])
    command = [sys.executable, RUN, "go_csv", "--replay", file]
    assert subprocess.run(command, check=False).returncode == 0
