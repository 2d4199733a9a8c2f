"""The wheels in the zipapp: those of the lock file for each target, and the project's."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import subprocess
import sys
import tomllib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from archive import zip_of

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "zipapp" / "requirements.txt"
OTLP_LOCK = ROOT / "zipapp" / "requirements-otlp.txt"  # with the packages for traces
SOURCES = (
    "core/authproxy_core",
    "server/authproxy",
    "server/authproxy_demo",
    "server/authproxy_devprovider",
)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC = range(28, 16, -1)  # minor versions of glibc 2 whose wheels are accepted
# pip's platform tags; wheels require this system or a later one.
PLATFORMS = {
    f"linux-{machine}": (
        *(f"manylinux_2_{minor}_{machine}" for minor in GLIBC),
        f"manylinux2014_{machine}",
    )
    for machine in ("x86_64", "aarch64")
} | {"macos-arm64": ("macosx_13_0_arm64",)}
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input")


class BuildError(Exception):
    """The zipapp cannot be built; the message has the cause and the remedy."""


def fetch_wheels(
    targets: list[str], here: str, spare: Path, lock: Path = LOCK
) -> dict[str, dict[str, bytes]]:
    """Return the wheels in *lock* of each target by file name; pip may use *spare*.

    A target is ``PYTHON-PLATFORM``. Wheels that are not known for *here*, the target of
    this Python, are built from source. Raises `BuildError`.
    """
    command = pip(spare)

    def fetch(target: str) -> dict[str, bytes]:
        folder = spare / target
        python, _, platform = target.partition("-")
        if python in PYTHONS and platform in PLATFORMS:
            options = ["download", "--only-binary=:all:", f"--python-version={python}"]
            options += [f"--platform={tag}" for tag in PLATFORMS[platform]]
            options += ["--dest", str(folder)]
        elif target == here:
            options = ["wheel", "--wheel-dir", str(folder)]
        else:
            raise BuildError(
                f"no wheels are known for {target}: the Pythons are "
                f"{', '.join(PYTHONS)}, the platforms {', '.join(PLATFORMS)}; "
                "for another one, build there without --python and --platform"
            )
        run_pip([*command, *options, "--require-hashes", "--requirement", str(lock)])
        return {path.name: path.read_bytes() for path in sorted(folder.glob("*.whl"))}

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(targets, pool.map(fetch, targets), strict=True))


def run_pip(command: list[str]) -> None:
    """Run pip, which prints errors; raises `BuildError` if it fails."""
    done = subprocess.run([*command, *PIP_OPTIONS])
    if done.returncode:
        raise BuildError(
            f"pip failed with exit code {done.returncode}, see above; it requires network "
            "access to its package index, or PIP_INDEX_URL or PIP_FIND_LINKS"
        )


def pip(spare: Path) -> list[str]:
    """Return the command of pip: of this Python, or of a new environment in *spare*."""
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


def project_wheel() -> tuple[str, bytes]:
    """Return file name and content of the project's wheel, made from the sources."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = f"{about['name']}-{about['version']}"
    files = {
        path.relative_to(folder.parent).as_posix(): path.read_bytes()
        for folder in map(ROOT.joinpath, SOURCES)
        for path in source_files(folder)
    }
    metadata = [
        ("Metadata-Version", "2.4"),
        ("Name", about["name"]),
        ("Version", about["version"]),
        ("Summary", about["description"]),
        ("License-Expression", about["license"]),
        ("License-File", "LICENSE"),
        ("Requires-Python", about["requires-python"]),
        *(("Requires-Dist", requirement) for requirement in about["dependencies"]),
    ]
    tags = [
        ("Wheel-Version", "1.0"),
        ("Generator", "zipapp/build.py"),
        ("Root-Is-Purelib", "true"),
        ("Tag", "py3-none-any"),
    ]
    information = f"{name}.dist-info"
    files[f"{information}/METADATA"] = fields(metadata)
    files[f"{information}/WHEEL"] = fields(tags)
    files[f"{information}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files[f"{information}/RECORD"] = record(files, f"{information}/RECORD")
    return f"{name}-py3-none-any.whl", zip_of(files, zipfile.ZIP_DEFLATED)


def source_files(folder: Path) -> Iterator[Path]:
    """Yield the source files below *folder* in a fixed order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path


def fields(values: list[tuple[str, str]]) -> bytes:
    """Return *values* as the header fields of a metadata file."""
    return "".join(f"{name}: {value}\n" for name, value in values).encode()


def record(files: dict[str, bytes], name: str) -> bytes:
    """Return the RECORD file *name* of a wheel with *files*."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for path, content in files.items():
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        writer.writerow((path, f"sha256={digest.decode()}", len(content)))
    writer.writerow((name, "", ""))
    return text.getvalue().encode()
