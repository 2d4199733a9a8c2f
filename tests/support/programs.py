"""Locations of the programs that the tests run.

They are searched on PATH, in Go's bin directories, and in ``.tools`` of the repository,
which ``.ci/run`` fills. This module uses only the standard library.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"


def find(name: str) -> Path | None:
    """Return the path of the program *name*, or None if it is not installed."""
    if name == "keycloak":
        return _keycloak()
    found = shutil.which(name, path=os.pathsep.join(_folders()))
    return Path(found) if found else None


def _folders() -> list[str]:
    """Return the directories to search, with Debian's directories for servers."""
    gopath = os.environ.get("GOPATH") or str(Path.home() / "go")
    folders = [str(TOOLS / "bin"), *os.environ.get("PATH", "").split(os.pathsep)]
    folders += [os.environ.get("GOBIN", ""), str(Path(gopath) / "bin")]
    folders += ["/usr/sbin", "/usr/local/sbin"]
    return [folder for folder in folders if folder]


def _keycloak() -> Path | None:
    """Return Keycloak's start script, or None without a Java runtime."""
    scripts = sorted(TOOLS.glob("keycloak-*/bin/kc.sh"))
    home = os.environ.get("KEYCLOAK_HOME")
    if home:
        scripts.append(Path(home) / "bin" / "kc.sh")
    if not scripts or not find("java"):
        return None
    return scripts[-1]
