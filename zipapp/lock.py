#!/usr/bin/env python3
"""Write or check the locks in zipapp/, the versions and digests of all dependencies.

    python3 zipapp/lock.py [--check | --upgrade]

requirements.txt is for the zipapp, requirements-otlp.txt for one that sends traces.
They have the digests of all files of each release, so that one lock serves all Pythons and
platforms. Without options, only what pyproject.toml requires is changed. Requires
Python 3.11+ with venv, and pip's package index.
"""

from __future__ import annotations

import argparse
import difflib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The extra of pyproject.toml in each lock; the others have the versions of the first.
LOCKS: dict[Path, tuple[str, ...]] = {
    ROOT / "zipapp" / "requirements.txt": (),
    ROOT / "zipapp" / "requirements-otlp.txt": ("--extra", "otlp"),
}
HEADER = """\
# Versions and digests of all dependencies, for all Pythons and platforms.
# Written by: python3 zipapp/lock.py
"""
PIP_TOOLS = "pip-tools==7.6.2"
# The lock names no package index, so it can be used with any.
OPTIONS = (
    "--no-header",  # it names the Python
    "--generate-hashes",
    "--strip-extras",
    "--no-annotate",
    "--no-emit-find-links",
    "--no-emit-index-url",
    "--no-emit-trusted-host",
    "--no-emit-options",
    "--quiet",
)


def main(arguments: Sequence[str]) -> int:
    """Write or check the lock and return the exit code."""
    parser = argparse.ArgumentParser(prog="lock.py", description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="report a stale lock")
    group.add_argument("--upgrade", action="store_true", help="use new releases")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="authproxy-lock-") as folder:
        all_locked = resolve(Path(folder), upgrade=options.upgrade)
    code = 0
    for lock, locked in all_locked.items():
        current = lock.read_text() if lock.exists() else ""
        if not options.check:
            lock.write_text(locked)
        elif locked != current:
            diff = difflib.unified_diff(current.splitlines(), locked.splitlines(), n=0)
            print("\n".join(diff))
            print(f"zipapp/{lock.name} is stale: run python3 zipapp/lock.py")
            code = 1
    return code


def resolve(folder: Path, *, upgrade: bool) -> dict[Path, str]:
    """Return the locks for pyproject.toml, made with pip-tools in *folder*."""
    venv.create(folder / "environment", with_pip=True, symlinks=True)
    python = str(folder / "environment" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", PIP_TOOLS]
    subprocess.run(install, check=True)
    command = [python, "-m", "piptools", "compile", *OPTIONS]
    command += ["--upgrade"] if upgrade else []
    found: dict[Path, str] = {}
    for lock, options in LOCKS.items():
        output = folder / lock.name
        if lock.exists():
            shutil.copy(lock, output)
        for other in found:
            options += ("--constraint", str(folder / other.name))
        subprocess.run(
            [*command, *options, "--output-file", str(output), "pyproject.toml"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        found[lock] = HEADER + output.read_text()
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(map(str, error.cmd))}")
        sys.exit(1)
