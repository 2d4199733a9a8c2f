"""The import contracts of pyproject.toml fail on a violation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Module: the import added to it, and a part of the report.
VIOLATIONS = {
    "core/authproxy_core/messages.py": ("import asyncio", "imports asyncio"),
    "core/authproxy_core/session.py": (
        "from authproxy_core import proxy",
        "authproxy_core.session -> authproxy_core.proxy",
    ),
    "core/authproxy_core/go_regex.py": (
        "import authproxy",
        "authproxy_core.go_regex -> authproxy ",
    ),
    "core/authproxy_core/sessions/sealing.py": (
        "from authproxy_core.sessions import sessions",
        "in authproxy_core.sessions",
    ),
    "server/authproxy/http/request_head.py": (
        "from authproxy.serve import worker_context",
        "authproxy.http.request_head -> authproxy.serve.worker_context",
    ),
    "server/authproxy/server_settings.py": (
        "import authproxy_demo",
        "authproxy.server_settings -> authproxy_demo",
    ),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report about a copy of the packages with all violations in it."""
    copy = tmp_path_factory.mktemp("violations")
    for folder in ("core", "server", "tests/support"):
        shutil.copytree(ROOT / folder, copy / folder)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name, (line, _) in VIOLATIONS.items():
        with (copy / name).open("a") as module:
            module.write(f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": f"{copy}/core:{copy}/server", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", VIOLATIONS)
def test_import_contracts_violation_is_reported(name: str, report: str) -> None:
    assert VIOLATIONS[name][1] in report, report
