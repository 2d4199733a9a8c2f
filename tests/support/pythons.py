"""The Python interpreters of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

# One per line of development; the first ones are too old for authproxy.
OLD = ("2.7", *(f"3.{minor}" for minor in range(11)))
SUPPORTED = tuple(f"3.{minor}" for minor in range(11, 15))


@cache
def interpreters() -> dict[str, str]:
    """Return the path of an interpreter for each version, such as ``3.12``.

    Searches PATH and the versions of pyenv.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = {}
    for version in (*OLD, *SUPPORTED):
        candidates = [
            str(path) for path in pyenv.glob(f"versions/{version}*/bin/python")
        ]
        on_path = shutil.which(f"python{version}")
        for candidate in (*candidates, *([on_path] if on_path else [])):
            if _version_of(candidate) == version:
                found[version] = candidate
                break
    return found


def _version_of(path: str) -> str:
    """Return the version of the interpreter *path*; empty if it does not start."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()
