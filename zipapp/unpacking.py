"""Unpack the wheels of the zipapp, repair them, and remove old versions.

An atomic rename publishes the files, so processes can start concurrently. A shared lock
on the list of files (`bootstrap.is_complete`) protects versions that are in use.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import io
import os
import shutil
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from py_compile import PycInvalidationMode

from bootstrap import FILES, UNPACKED_MTIME, StartError, Zipapp, is_complete

UNPACKING, REMOVING = ".unpacking-", ".removing-"  # prefixes of incomplete directories
ABANDONED_TTL = 24 * 3600.0  # seconds; then incomplete directories are removed
UNUSED_TTL = 24 * 3600.0  # seconds after unpacking; then unused versions are removed
# Errors of the zipfile module when it reads damaged files.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    KeyError,
    EOFError,
    ValueError,
    NotImplementedError,
)
# Sources of native modules, type stubs, and metadata about the installation.
UNNEEDED_SUFFIXES = (".c", ".h", ".pxd", ".pyi", ".pyx", ".dist-info/RECORD")
UNNEEDED_FOLDERS = ("/tests/", ".data/scripts/", ".data/headers/")


def unpack(zipapp: Zipapp, cache: str, folder: str) -> None:
    """Unpack to *cache*, check the digests, compile, and rename to *folder*.

    Replaces damaged files. Raises OSError, and `StartError` for a damaged zipapp.
    """
    previous_umask = os.umask(0o022)  # readable by all users, as in an image
    staging = tempfile.mkdtemp(prefix=UNPACKING, dir=cache)  # mode 0700
    try:
        _fill(staging, zipapp, folder)
        os.chmod(staging, 0o755)
        _publish(staging, cache, folder)
        _remove_old(cache, folder)
    except DAMAGE as error:
        raise StartError(f"{zipapp.path} is damaged: {error}; copy it again") from None
    finally:
        os.umask(previous_umask)
        shutil.rmtree(staging, ignore_errors=True)


def _fill(staging: str, zipapp: Zipapp, folder: str) -> None:
    """Unpack to *staging* and compile for the paths in *folder*."""
    if hashlib.sha256(zipapp.wheels.encode()).hexdigest() != zipapp.digest:
        raise ValueError("the digest of the list of wheels differs")
    with zipfile.ZipFile(zipapp.path) as outer:
        for line in zipapp.wheels.splitlines():
            digest, name = line.split()
            content = outer.read(f"wheels/{name}")
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"the digest of {name} differs")
            with zipfile.ZipFile(io.BytesIO(content)) as wheel:
                # extractall keeps within *staging*; the names are verified besides.
                wheel.extractall(staging, needed_files(wheel))
    compileall.compile_dir(
        staging,
        ddir=folder,
        quiet=2,
        workers=1,
        # Python need not compare times, which copies and image layers change.
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    _write_list(staging)


def needed_files(wheel: zipfile.ZipFile) -> list[str]:
    """Return the names of the files that the program needs."""
    return [
        name
        for name in wheel.namelist()
        if not name.endswith(UNNEEDED_SUFFIXES)
        and not any(folder in f"/{name}" for folder in UNNEEDED_FOLDERS)
    ]


def _write_list(staging: str) -> None:
    """Write the list of all files, which `bootstrap.is_complete` reads."""
    lines = []
    for path in sorted(_files_below(staging)):
        with open(path, "rb") as file:
            content = file.read()
        os.utime(path, (UNPACKED_MTIME, UNPACKED_MTIME))
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"{digest} {len(content)} {os.path.relpath(path, staging)}\n")
    with open(os.path.join(staging, FILES), "w", encoding="utf-8") as file:
        file.write("".join(lines) + "end")


def _files_below(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (os.path.join(parent, name) for name in names)


def _publish(staging: str, cache: str, folder: str) -> None:
    """Rename *staging* to *folder*, in the place of damaged files."""
    if os.path.lexists(folder):
        if is_complete(folder):
            return  # another process was faster
        _remove(folder, cache)
    try:
        os.rename(staging, folder)
    except OSError:
        if not os.path.isdir(folder):
            raise


def _remove_old(cache: str, folder: str) -> None:
    """Remove unused versions, and the incomplete directories of killed processes."""
    for entry in os.scandir(cache):
        age = time.time() - entry.stat(follow_symlinks=False).st_mtime
        if entry.name.startswith((UNPACKING, REMOVING)):
            if age > ABANDONED_TTL:
                shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.path != folder and len(entry.name) == 64 and age > UNUSED_TTL:
            _remove_if_unused(entry.path, cache)


def _remove_if_unused(folder: str, cache: str) -> None:
    """Remove *folder* unless a process runs from it."""
    try:
        descriptor = os.open(os.path.join(folder, FILES), os.O_RDONLY)
    except OSError:
        return  # not made by this program
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder, cache)
    except OSError:
        pass  # in use, or no locks on this file system
    finally:
        os.close(descriptor)


def _remove(folder: str, cache: str) -> None:
    """Remove *folder*, whose name is free at once."""
    doomed = tempfile.mkdtemp(prefix=REMOVING, dir=cache)
    try:
        os.rename(folder, os.path.join(doomed, "files"))
    finally:
        shutil.rmtree(doomed, ignore_errors=True)
