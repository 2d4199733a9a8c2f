#!/usr/bin/env python3
"""Build the zipapp dist/authproxy.pyz, and optionally run it.

    python3 zipapp/build.py [--output FILE] [--run ARGUMENTS …]

Requires Python 3.11+ with pip or venv, and pip's package index. The zipapp runs on the
platform and the Python version with which it was built. If the sources have not changed
since the last build, the existing zipapp is used.
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
# Parts of installed packages that the program does not need. Some metadata has paths of
# the build machine. Licenses stay.
UNWANTED_FOLDERS = ("__pycache__", "tests")
UNWANTED_METADATA = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
NO_PACKAGES = 69  # exit code if pip fails, EX_UNAVAILABLE of sysexits.h
# Overrides pip settings that conflict with --target.
PIP_ENVIRONMENT = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


class BuildError(Exception):
    """The zipapp cannot be built; the message has the cause and the remedy."""


def main(arguments: Sequence[str]) -> int:
    """Build if necessary, run on request, and return the exit code."""
    if sys.version_info < bootstrap.MINIMUM:
        version = sys.version.split()[0]
        return bootstrap.fail(f"Python 3.11 or later is required, this is {version}")
    options, run = split(list(arguments))
    output = parse(options)
    try:
        build_if_needed(output)
    except BuildError as error:
        bootstrap.fail(str(error))
        return NO_PACKAGES
    except OSError as error:
        return bootstrap.fail(f"cannot write {output}: {error}")
    if run is not None:
        os.execv(sys.executable, [sys.executable, str(output), *run])
    print(output)
    return 0


def split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """Return the arguments before --run and those after it, None without --run."""
    if "--run" not in arguments:
        return arguments, None
    end = arguments.index("--run")
    return arguments[:end], arguments[end + 1 :]


def parse(arguments: list[str]) -> Path:
    """Return the path of the zipapp."""
    parser = argparse.ArgumentParser(
        prog="build.py",
        usage="build.py [-h] [--output FILE] [--run ARGUMENTS ...]",
        description="Build the zipapp if its sources have changed.",
        epilog="--run starts it with all following arguments.",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE")
    output: Path = parser.parse_args(arguments).output
    return output


def build_if_needed(output: Path) -> None:
    """Build the zipapp unless it is up to date."""
    digest = digest_of_sources()
    if not is_current(output, digest):
        print(f"building {output}", file=sys.stderr, flush=True)
        build(output, digest)


def digest_of_sources() -> str:
    """Return a digest of the sources and the platform of the zipapp."""
    digest = hashlib.sha256(bootstrap.platform().encode())
    for path in source_files():
        content = path.read_bytes()
        name = str(path.relative_to(ROOT))
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def source_files() -> Iterator[Path]:
    """Yield the source files in a fixed order."""
    for name in SOURCES:
        path = ROOT / name
        if path.is_file():
            yield path
        for found in sorted(path.rglob("*")):
            if found.is_file() and "__pycache__" not in found.parts:
                yield found


def is_current(output: Path, digest: str) -> bool:
    """Return whether the zipapp was built from the sources with *digest*."""
    try:
        with zipfile.ZipFile(output) as archive:
            return archive.read("SOURCES").decode() == digest
    except (OSError, KeyError, zipfile.BadZipFile):
        return False


def build(output: Path, digest: str) -> None:
    """Install the project with its dependencies and pack them."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="authproxy-build-") as folder:
        staging = Path(folder) / "staging"
        install(staging, Path(folder))
        remove_unwanted(staging)
        payload = pack(staging)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        temporary.write_bytes(SHEBANG + wrap_payload(payload, digest))
        temporary.chmod(0o755)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def install(staging: Path, spare: Path) -> None:
    """Install the project and its dependencies to *staging*; pip may use *spare*."""
    command = [*pip(spare), "install", "--quiet", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-warn-conflicts"]
    command += ["--root-user-action=ignore", "--target", str(staging), str(ROOT)]
    done = subprocess.run(command, env={**os.environ, **PIP_ENVIRONMENT})
    if done.returncode:
        raise BuildError(
            f"pip failed with exit code {done.returncode}, see above; it requires network "
            "access to its package index, or PIP_INDEX_URL or PIP_FIND_LINKS"
        )


def pip(spare: Path) -> list[str]:
    """Return the command of pip: of this Python, or of a new environment."""
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
    """Remove unneeded files and metadata with paths of this machine."""
    shutil.rmtree(staging / "bin", ignore_errors=True)
    for path in sorted(staging.rglob("*")):
        if path.is_dir() and path.name in UNWANTED_FOLDERS:
            shutil.rmtree(path)
    for metadata in staging.glob("*.dist-info"):
        for name in UNWANTED_METADATA:
            (metadata / name).unlink(missing_ok=True)


def pack(staging: Path) -> bytes:
    """Return a reproducible zip of *staging*."""
    files = {
        path.relative_to(staging).as_posix(): path.read_bytes()
        for path in sorted(staging.rglob("*"))
        if path.is_file()
    }
    return zip_of(files, zipfile.ZIP_DEFLATED)


def wrap_payload(payload: bytes, digest: str) -> bytes:
    """Return the zipapp with *payload*; *digest* is that of the sources."""
    files = {
        "__main__.py": (ROOT / "zipapp" / "bootstrap.py").read_bytes(),
        "DIGEST": hashlib.sha256(payload).hexdigest().encode(),
        "PLATFORM": bootstrap.platform().encode(),
        "SOURCES": digest.encode(),
        "payload.zip": payload,
    }
    # Not compressed: the payload is, and the small files are read faster.
    return zip_of(files, zipfile.ZIP_STORED)


def zip_of(files: dict[str, bytes], method: int) -> bytes:
    """Return a zip without times and users."""
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
