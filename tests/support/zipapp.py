"""Build ``authproxy.pyz`` with zipapp/build.py, and run it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from support.programs import ROOT

BUILD = ROOT / "zipapp" / "build.py"
NO_PACKAGES = 69  # build.py's exit code when pip failed


def build(
    *arguments: str | Path, script: Path = BUILD, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the build with *arguments* and *environment* added."""
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def run(
    archive: Path,
    *arguments: str,
    cache: Path | str = "",
    python: Path | str = sys.executable,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run *archive* with the cache directory *cache* and *environment* alone."""
    variables = {"PATH": os.environ["PATH"], **environment}
    if cache:
        variables["AUTHPROXY_CACHE"] = str(cache)
    return subprocess.run(
        [str(python), str(archive), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether ``--version`` has printed the version."""
    return done.returncode == 0 and done.stdout.startswith("authproxy ")


def is_rejected(done: subprocess.CompletedProcess[str], *texts: str) -> bool:
    """Return whether it failed with one error line that contains all *texts*."""
    lines = done.stderr.splitlines()
    return (
        done.returncode == 1
        and not done.stdout
        and len(lines) == 1
        and all(text in lines[0] for text in ("authproxy: ", *texts))
    )


def targets_of(archive: Path) -> dict[str, str]:
    """Return the digest of each target: the names of their directories in a cache."""
    with zipfile.ZipFile(archive) as source:
        return {
            name.removeprefix("targets/"): source.read(name).decode().partition("\n")[0]
            for name in source.namelist()
            if name.startswith("targets/")
        }


def digest_of(archive: Path) -> str:
    """Return the digest of a zipapp for one target."""
    [digest] = targets_of(archive).values()
    return digest
