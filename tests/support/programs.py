"""Where the programs that tests run against are found; only the standard library.

Looked for on PATH, in Go's bin folders and in ``.tools`` of the repository, which
``.ci/run`` fills.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"


def find(name: str) -> Path | None:
    """The program *name* ("nginx", "keycloak" …), or None when it isn't installed."""
    if name == "keycloak":
        return _keycloak()
    found = shutil.which(name, path=os.pathsep.join(_folders()))
    return Path(found) if found else None


def _folders() -> list[str]:
    """Folders to search, in order; Debian puts servers where users' PATHs don't look."""
    gopath = os.environ.get("GOPATH") or str(Path.home() / "go")
    places = [str(TOOLS / "bin"), *os.environ.get("PATH", "").split(os.pathsep)]
    places += [os.environ.get("GOBIN", ""), str(Path(gopath) / "bin")]
    places += ["/usr/sbin", "/usr/local/sbin"]
    return [place for place in places if place]


def _keycloak() -> Path | None:
    """Keycloak's start script; without a Java runtime there is no Keycloak."""
    scripts = sorted(TOOLS.glob("keycloak-*/bin/kc.sh"))
    home = os.environ.get("KEYCLOAK_HOME")
    if home:
        scripts.append(Path(home) / "bin" / "kc.sh")
    if not scripts or not find("java"):
        return None
    return scripts[-1]
