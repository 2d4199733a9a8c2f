#!/usr/bin/env python3
"""Build dist/authproxy.pyz, and run it.

    python3 zipapp/build.py [--output FILE] [--run ARGUMENTS …]

Needs Python 3.11+ with pip; the packages come from pip's index. The archive runs on the
platform and the Python version that it was built with. When nothing has changed since
the last build, the archive is used as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import bootstrap

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "dist" / "authproxy.pyz"
SOURCES = ("pyproject.toml", "core", "server", "zipapp", "README.md", "LICENSE")
TIMESTAMP = (1980, 1, 1, 0, 0, 0)
# What an installed package has and the program never needs.
UNWANTED = ("__pycache__", "tests", "bin")


def main(arguments: Sequence[str]) -> int:
    """Build if needed, run if asked to; returns the exit code."""
    own, run = split(list(arguments))
    parser = argparse.ArgumentParser(prog="build.py", description="build the zipapp")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args(own).output
    if sys.version_info < bootstrap.MINIMUM:
        return bootstrap.fail("Python 3.11 or later is needed to build")
    mark = state_of_sources()
    if not is_fresh(output, mark):
        try:
            build(output, mark)
        except subprocess.CalledProcessError as error:
            return bootstrap.fail(
                f"pip failed with {error.returncode}; it needs its package index"
            )
    if run is None:
        print(output)
        return 0
    sys.stdout.flush()
    return os.execv(sys.executable, [sys.executable, str(output), *run])


def split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """Our own arguments, and what stands behind --run (None without it)."""
    if "--run" not in arguments:
        return arguments, None
    at = arguments.index("--run")
    return arguments[:at], arguments[at + 1 :]


def state_of_sources() -> str:
    """A digest of everything that the archive is made from."""
    digest = hashlib.sha256(bootstrap.platform().encode())
    for path in source_files():
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def source_files() -> Iterator[Path]:
    """The project's files, in a stable order."""
    for name in SOURCES:
        path = ROOT / name
        if path.is_file():
            yield path
        for found in sorted(path.rglob("*")):
            if found.is_file() and "__pycache__" not in found.parts:
                yield found


def is_fresh(output: Path, mark: str) -> bool:
    """Whether the archive was made from the sources as they are."""
    try:
        with zipfile.ZipFile(output) as archive:
            return archive.read("SOURCES").decode() == mark
    except (OSError, KeyError, zipfile.BadZipFile):
        return False


def build(output: Path, mark: str) -> None:
    """Install everything into a folder and pack it; raises CalledProcessError."""
    print("building", output, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder) / "staging"
        install(staging)
        payload = packed(staging)
    digest = hashlib.sha256(payload).hexdigest()
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        add(archive, "__main__.py", (ROOT / "zipapp" / "bootstrap.py").read_bytes())
        add(archive, "DIGEST", digest.encode())
        add(archive, "PLATFORM", bootstrap.platform().encode())
        add(archive, "SOURCES", mark.encode())
        # Stored: it is compressed already.
        add(archive, "payload.zip", payload, zipfile.ZIP_STORED)
    beside.replace(output)


def install(staging: Path) -> None:
    """The project and its dependencies into *staging*."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-warn-conflicts"]
    command += ["--root-user-action=ignore", "--target", str(staging), str(ROOT)]
    subprocess.run(command, check=True)


def packed(staging: Path) -> bytes:
    """A zip of *staging*, the same for the same files."""
    for path in sorted(staging.rglob("*")):
        if path.is_dir() and path.name in UNWANTED:
            shutil.rmtree(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(staging.rglob("*")):
            if path.is_file():
                name = path.relative_to(staging).as_posix()
                add(archive, name, path.read_bytes())
    return buffer.getvalue()


def add(
    archive: zipfile.ZipFile,
    name: str,
    data: bytes,
    method: int = zipfile.ZIP_DEFLATED,
) -> None:
    """Add a file without a trace of when and by whom."""
    info = zipfile.ZipInfo(name, TIMESTAMP)
    info.compress_type = method
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
