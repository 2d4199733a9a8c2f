"""Build ``authproxy.pyz`` with zipapp/build.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.programs import ROOT

BUILD = ROOT / "zipapp" / "build.py"
NO_PACKAGES = 69  # build.py's exit code when pip failed


def build(
    *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the build with *arguments* and *environment* added."""
    return subprocess.run(
        [sys.executable, str(BUILD), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
