"""Assemble the zipapp and the files of a release."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import bootstrap
import wheels
from archive import zip_of
from sbom import bill_of_materials

ROOT = wheels.ROOT
OUTPUT = ROOT / "dist" / "authproxy.pyz"
SOURCES = ("pyproject.toml", "core", "server", "zipapp", "LICENSE")
# Python shows the second line of a truncated file, because it has no zip directory.
PREFIX = b"""#!/usr/bin/env python3
    "authproxy: this file is incomplete; copy or download it again"
"""
MODULES = {
    "__main__.py": "entry.py",
    "bootstrap.py": "bootstrap.py",
    "unpacking.py": "unpacking.py",
}
NO_PACKAGES = 69  # exit code if pip fails, EX_UNAVAILABLE of sysexits.h


def main(arguments: Sequence[str]) -> int:
    """Build if necessary, run on request, and return the exit code."""
    given, run = split(list(arguments))
    options = parse(given)
    output: Path = options.output
    try:
        build_if_needed(options)
    except wheels.BuildError as error:
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


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options; the targets are in ``targets``."""
    here = bootstrap.this_target()
    python, _, platform = here.partition("-")
    parser = argparse.ArgumentParser(
        prog="build.py",
        usage="build.py [-h] [--python VERSIONS] [--platform PLATFORMS] [--otlp]\n"
        "                [--release] [--output FILE] [--run ARGUMENTS ...]",
        description="Build the zipapp if its sources have changed.",
        epilog="--run starts it with all following arguments.",
    )
    parser.add_argument(
        "--python",
        default=python,
        metavar="VERSIONS",
        help=f"comma-separated; known: {', '.join(wheels.PYTHONS)} (default: {python})",
    )
    parser.add_argument(
        "--platform",
        default=platform,
        metavar="PLATFORMS",
        help=f"comma-separated; known: {', '.join(wheels.PLATFORMS)} "
        f"(default: {platform})",
    )
    parser.add_argument(
        "--otlp",
        dest="lock",
        action="store_const",
        const=wheels.OTLP_LOCK,
        default=wheels.LOCK,
        help="with the packages of OpenTelemetry, for traces",
    )
    parser.add_argument(
        "--release",
        action="store_true",
        help="also write a bill of materials (CycloneDX) and SHA256SUMS beside the file",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE")
    options = parser.parse_args(arguments)
    options.targets = [
        f"{version}-{system}"
        for version in options.python.split(",")
        for system in options.platform.split(",")
    ]
    return options


def build_if_needed(options: argparse.Namespace) -> None:
    """Build the zipapp unless it is up to date."""
    output: Path = options.output
    digest = digest_of_sources([options.lock.name, *options.targets])
    if options.release or not is_current(output, digest):
        print(f"building {output}", file=sys.stderr, flush=True)
        build(options, digest)


def digest_of_sources(choices: list[str]) -> str:
    """Return a digest of the sources and of what was chosen for the zipapp."""
    digest = hashlib.sha256(" ".join(choices).encode())
    for name in SOURCES:
        top = ROOT / name
        for path in [top] if top.is_file() else wheels.source_files(top):
            content = path.read_bytes()
            name = str(path.relative_to(ROOT))
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def is_current(output: Path, digest: str) -> bool:
    """Return whether the zipapp was built from the sources with *digest*."""
    try:
        with zipfile.ZipFile(output) as archive:
            return archive.read("SOURCES").decode() == digest
    except (OSError, KeyError, zipfile.BadZipFile):
        return False


def build(options: argparse.Namespace, digest: str) -> None:
    """Write the zipapp, and on request what a release has besides."""
    output, targets = options.output, options.targets
    output.parent.mkdir(parents=True, exist_ok=True)
    own, own_content = wheels.project_wheel()
    with tempfile.TemporaryDirectory(prefix="authproxy-build-") as folder:
        here = bootstrap.this_target()
        fetched = wheels.fetch_wheels(targets, here, Path(folder), options.lock)
    for target_wheels in fetched.values():
        target_wheels[own] = own_content
    content = PREFIX + pack(fetched, digest)
    write(output, content, 0o755)
    if options.release:
        all_wheels = {
            name: content
            for target_wheels in fetched.values()
            for name, content in target_wheels.items()
        }
        names = {target: list(found) for target, found in fetched.items()}
        document = bill_of_materials(content, all_wheels, names, own).encode()
        bill = output.with_suffix(".cdx.json")
        write(bill, document, 0o644)
        sums = "".join(
            f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"
            for path, data in ((output, content), (bill, document))
        )
        write(output.with_name("SHA256SUMS"), sums.encode(), 0o644)


def write(path: Path, content: bytes, mode: int) -> None:
    """Replace *path* at once, so that a running build leaves no partial file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def pack(fetched: dict[str, dict[str, bytes]], digest: str) -> bytes:
    """Return the zipapp; *digest* is that of the sources.

    Each wheel is contained once, as it was published, whatever number of targets use it.
    """
    files = {
        name: (ROOT / "zipapp" / source).read_bytes()
        for name, source in MODULES.items()
    }
    files["SOURCES"] = digest.encode()
    for target, target_wheels in fetched.items():
        lines = "".join(
            f"{hashlib.sha256(content).hexdigest()} {name}\n"
            for name, content in sorted(target_wheels.items())
        )
        target_digest = hashlib.sha256(lines.encode()).hexdigest()
        files[f"targets/{target}"] = f"{target_digest}\n{lines}".encode()
        files |= {f"wheels/{name}": data for name, data in target_wheels.items()}
    # Not compressed: the wheels are, and the small files are read faster.
    return zip_of(files, zipfile.ZIP_STORED)
