#!/usr/bin/env python3
"""Build dist/authproxy.pyz, and run it.

    python3 zipapp/build.py [--output FILE] [--run ARGUMENTS …]

Needs Python 3.11+ with pip or venv; the packages come from pip's index. The archive runs
on the platform and the Python version that it was built with. When nothing has changed
since the last build, the archive is used as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
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
SHEBANG = b"#!/usr/bin/env python3\n"
TIMESTAMP = (1980, 1, 1, 0, 0, 0)
# What an installed package has and the program never needs: anywhere, and in the
# metadata (which has names of folders on this machine). Licences stay.
UNWANTED_FOLDERS = ("__pycache__", "tests")
UNWANTED_METADATA = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
NO_PACKAGES = 69  # exit code when pip failed: EX_UNAVAILABLE of sysexits.h
# Settings of a user's pip that contradict --target.
PIP_ENVIRONMENT = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


class BuildError(Exception):
    """The archive can't be built; the text says why, and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Build if needed, run if asked to; returns the exit code."""
    if sys.version_info < bootstrap.MINIMUM:
        version = sys.version.split()[0]
        return bootstrap.fail(f"Python 3.11 or later is needed, this is {version}")
    own, run = split(list(arguments))
    output = parse(own)
    try:
        build_if_needed(output)
    except BuildError as error:
        bootstrap.fail(str(error))
        return NO_PACKAGES
    except OSError as error:
        return bootstrap.fail(f"can't write {output}: {error}")
    if run is not None:
        os.execv(sys.executable, [sys.executable, str(output), *run])
    print(output)
    return 0


def split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """Our own arguments, and what stands behind --run (None without it)."""
    if "--run" not in arguments:
        return arguments, None
    at = arguments.index("--run")
    return arguments[:at], arguments[at + 1 :]


def parse(arguments: list[str]) -> Path:
    """Where the archive goes."""
    parser = argparse.ArgumentParser(
        prog="build.py",
        usage="build.py [-h] [--output FILE] [--run ARGUMENTS ...]",
        description="Build the archive, if its sources have changed.",
        epilog="--run starts it with all the arguments that follow.",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE")
    output: Path = parser.parse_args(arguments).output
    return output


def build_if_needed(output: Path) -> None:
    """Build the archive unless it is there and up to date."""
    mark = state_of_sources()
    if not is_fresh(output, mark):
        print(f"building {output}, this takes a while", file=sys.stderr, flush=True)
        build(output, mark)


def state_of_sources() -> str:
    """A digest of everything that the archive is made from."""
    digest = hashlib.sha256(bootstrap.platform().encode())
    for path in source_files():
        content = path.read_bytes()
        name = str(path.relative_to(ROOT))
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
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
    """Install everything into a folder and pack it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="authproxy-build-") as folder:
        staging = Path(folder) / "staging"
        install(staging, Path(folder))
        remove_unwanted(staging)
        payload = packed(staging)
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        beside.write_bytes(SHEBANG + archive_of(payload, mark))
        beside.chmod(0o755)
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)


def install(staging: Path, spare: Path) -> None:
    """The project and its dependencies into *staging*; *spare* is a folder for pip."""
    command = [*pip(spare), "install", "--quiet", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-warn-conflicts"]
    command += ["--root-user-action=ignore", "--target", str(staging), str(ROOT)]
    done = subprocess.run(command, env={**os.environ, **PIP_ENVIRONMENT})
    if done.returncode:
        raise BuildError(
            f"pip failed with exit code {done.returncode}, see above; it fetches the "
            "packages from its index and needs the network (or PIP_INDEX_URL, "
            "PIP_FIND_LINKS)"
        )


def pip(spare: Path) -> list[str]:
    """The command that is pip: this Python's, or that of a new environment."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    environment = spare / "environment"
    command = [sys.executable, "-m", "venv", str(environment)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise BuildError(
            f"{sys.executable} has neither pip nor a working venv; install one of them "
            "(Debian, Ubuntu: apt install python3-pip python3-venv)"
        )
    return [str(environment / "bin" / "python"), "-m", "pip"]


def remove_unwanted(staging: Path) -> None:
    """Remove what the program never needs, and whatever names this machine."""
    shutil.rmtree(staging / "bin", ignore_errors=True)
    for path in sorted(staging.rglob("*")):
        if path.is_dir() and path.name in UNWANTED_FOLDERS:
            shutil.rmtree(path)
    for metadata in staging.glob("*.dist-info"):
        for name in UNWANTED_METADATA:
            (metadata / name).unlink(missing_ok=True)


def packed(staging: Path) -> bytes:
    """A zip of *staging*, the same for the same files."""
    files = {
        path.relative_to(staging).as_posix(): path.read_bytes()
        for path in sorted(staging.rglob("*"))
        if path.is_file()
    }
    return zip_of(files, zipfile.ZIP_DEFLATED)


def archive_of(payload: bytes, mark: str) -> bytes:
    """The archive around *payload*, which was made from sources in the state *mark*."""
    files = {
        "__main__.py": (ROOT / "zipapp" / "bootstrap.py").read_bytes(),
        "DIGEST": hashlib.sha256(payload).hexdigest().encode(),
        "PLATFORM": bootstrap.platform().encode(),
        "SOURCES": mark.encode(),
        "payload.zip": payload,
    }
    # Stored: the payload is compressed already, and the rest is quicker to read.
    return zip_of(files, zipfile.ZIP_STORED)


def zip_of(files: dict[str, bytes], method: int) -> bytes:
    """A zip without a trace of when and by whom it was made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, TIMESTAMP)
            info.compress_type = method
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
