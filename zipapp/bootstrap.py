"""Starts authproxy from its archive: unpack once, then run from there.

Native modules can't be imported from a zip, so the archive's files are unpacked into a
private folder named by the archive's digest. They appear there by one atomic rename,
so several processes may start at once. Only the standard library, and little of it: this
runs at every start.
"""

from __future__ import annotations

import os
import sys
import zipimport

MINIMUM = (3, 11)


def main() -> int:
    """Run the program; returns the exit code."""
    if sys.version_info < MINIMUM:
        return fail(f"Python 3.11 or later is needed, this is {sys.version.split()[0]}")
    loader = __loader__
    if not isinstance(loader, zipimport.zipimporter):
        return fail("this file only works inside the archive")
    archive = loader.archive
    try:
        digest = loader.get_data(os.path.join(archive, "DIGEST")).decode().strip()
        built_for = loader.get_data(os.path.join(archive, "PLATFORM")).decode().strip()
    except (OSError, zipimport.ZipImportError) as error:
        return fail(f"{archive} is damaged: {error}")
    if built_for != platform():
        return fail(f"{archive} was built for {built_for}, this is {platform()}")
    try:
        folder = unpacked(archive, digest)
    except UnusableCache as error:
        return fail(str(error))
    sys.path[0] = folder
    from authproxy.cli import main as run

    return run()


def fail(text: str) -> int:
    """Say what is wrong; the exit code."""
    sys.stderr.write(f"authproxy: {text}\n")
    return 1


def platform() -> str:
    """What native modules depend on: implementation, version, system, machine."""
    machine = os.uname().machine
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f"{sys.implementation.name}-{version}-{sys.platform}-{machine}"


class UnusableCache(Exception):
    """The folder to unpack into can't be used; the text says why."""


def unpacked(archive: str, digest: str) -> str:
    """The folder with the archive's files, unpacked if need be."""
    cache = cache_folder()
    folder = os.path.join(cache, digest)
    if not os.path.isdir(folder):
        unpack(archive, digest, cache, folder)
    check_private(folder)
    return folder


def cache_folder() -> str:
    """A folder that only we can write to."""
    chosen = os.environ.get("AUTHPROXY_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(base, "authproxy")
    try:
        os.makedirs(chosen, mode=0o700, exist_ok=True)
        writable = os.access(chosen, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        # A fixed name in a shared folder: private to us, or refused below.
        import tempfile

        chosen = os.path.join(tempfile.gettempdir(), f"authproxy-{os.getuid()}")
        os.makedirs(chosen, mode=0o700, exist_ok=True)
    check_private(chosen)
    return chosen


def check_private(folder: str) -> None:
    """Refuse a folder that somebody else could have put code into."""
    status = os.lstat(folder)
    if status.st_uid != os.getuid():
        raise UnusableCache(f"{folder} belongs to another user; set AUTHPROXY_CACHE")
    if status.st_mode & 0o022:
        raise UnusableCache(
            f"{folder} can be written to by others; chmod 700 it or set AUTHPROXY_CACHE"
        )


def unpack(archive: str, digest: str, cache: str, folder: str) -> None:
    """Unpack beside, check the digest, then rename."""
    import compileall
    import hashlib
    import shutil
    import tempfile
    import zipfile

    staging = tempfile.mkdtemp(prefix=".unpacking-", dir=cache)
    try:
        with zipfile.ZipFile(archive) as source:
            payload = source.read("payload.zip")
            if hashlib.sha256(payload).hexdigest() != digest:
                raise UnusableCache(f"{archive} is damaged: its digest is wrong")
        inner = os.path.join(staging, ".payload.zip")
        with open(inner, "wb") as stream:
            stream.write(payload)
        with zipfile.ZipFile(inner) as source:
            source.extractall(staging)
        os.unlink(inner)
        compileall.compile_dir(staging, quiet=2, workers=1)
        try:
            os.rename(staging, folder)
        except OSError:
            if not os.path.isdir(folder):  # not just a sibling that was faster
                raise
    except (zipfile.BadZipFile, KeyError) as error:
        raise UnusableCache(f"{archive} is damaged: {error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
