"""The regular expressions take linear time, whatever a client sends."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from limits.patterns import END, INPUT_SIZE, ROOT, inputs_for

PATHS = [str(ROOT / part) for part in ("core", "server", "tests")]


def test_every_pattern_takes_linear_time() -> None:
    """A quadratic one needs several seconds of CPU time for an input, not some ms."""
    done = subprocess.run(
        [sys.executable, "-m", "limits.patterns"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
    )
    names = done.stdout.splitlines()
    assert done.returncode == 0, (names[-1:], done.stderr)
    assert len(names) > 100
    assert any("access.path_variants" in name for name in names)


@pytest.mark.parametrize(
    ("pattern", "unit"),
    [
        (r"\s+x", " "),
        ("(?:a|b+)*c", "b"),
        ("<([^>]*,)*>", "a,"),
        ("name=(?:[a-z]+;?)*$", "a"),
    ],
)
def test_inputs_repeat_what_a_loop_matches(pattern: str, unit: str) -> None:
    inputs = inputs_for(re.compile(pattern))
    body = unit * (INPUT_SIZE // len(unit)) + END
    assert any(text.endswith(body) for text in inputs)
