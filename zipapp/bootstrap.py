"""The entry point of the zipapp: unpack it once, then run from the cache.

Python cannot import native modules from a zip file, so the files are unpacked to a
private directory that is named after the zipapp's digest. An atomic rename publishes
them, so processes can start concurrently. This module runs at every start and imports
little. Its syntax is valid in older Pythons, so that they print the required version.

The cache is ``$AUTHPROXY_CACHE``, ``authproxy`` in ``$XDG_CACHE_HOME`` or ``~/.cache``,
or, if that is not writable, a directory in the system's directory for temporary files.
Directories of other zipapps are kept, because processes may run from them.
"""

import os
import sys
import zipimport
from importlib.machinery import EXTENSION_SUFFIXES

MINIMUM = (3, 11)
UNPACKING = ".unpacking-"  # prefix of incomplete directories
UNPACKING_TTL = 24 * 3600.0  # seconds; older incomplete directories are removed


class StartError(Exception):
    """The program cannot start; the message has the cause and the remedy."""


def main() -> int:
    """Run the program and return the exit code."""
    if sys.version_info < MINIMUM:
        return fail(
            f"Python 3.11 or later is required, this is {sys.version.split()[0]}"
        )
    loader = globals().get("__loader__")
    if not isinstance(loader, zipimport.zipimporter):
        return fail("this file runs only inside the zipapp")
    try:
        sys.path[0] = unpacked_directory(loader)
    except StartError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"cannot unpack {loader.archive}: {error}; set AUTHPROXY_CACHE")
    from authproxy.commands.cli import main as run

    return run()


def fail(text: str) -> int:
    """Print an error and return the exit code."""
    sys.stderr.write(f"authproxy: {text}\n")
    return 1


def platform() -> str:
    """Return the platform of native modules, as ``cpython-311-x86_64-linux-gnu``."""
    machine = os.uname().machine
    tag = EXTENSION_SUFFIXES[0].split(".")[1]
    return tag if machine in tag else f"{tag}-{machine}"


def unpacked_directory(loader: zipimport.zipimporter) -> str:
    """Return the directory with the zipapp's files; unpack them if necessary."""
    archive = loader.archive
    built_for, digest = read_small(loader, "PLATFORM"), read_small(loader, "DIGEST")
    if built_for != platform():
        raise StartError(
            f"{archive} was built for {built_for}, but this Python is {platform()}; "
            "run it with that Python or build it with this one"
        )
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise StartError(f"{archive} is damaged: invalid digest")
    cache = cache_folder(digest)
    folder = os.path.join(cache, digest)
    if not os.path.isdir(folder):
        unpack(archive, digest, cache, folder)
    check_private(folder)
    return folder


def read_small(loader: zipimport.zipimporter, name: str) -> str:
    """Return the text of a small file in the zipapp."""
    archive = loader.archive
    try:
        return loader.get_data(os.path.join(archive, name)).decode("ascii").strip()
    except (OSError, ValueError, zipimport.ZipImportError) as error:
        raise StartError(f"{archive} is damaged: {error}") from None


def cache_folder(digest: str) -> str:
    """Return a cache directory that no other user can write to."""
    chosen = preferred_cache()
    usable = False
    if chosen:
        try:
            os.makedirs(chosen, mode=0o700, exist_ok=True)
        except OSError:
            pass
        else:
            writable = os.access(chosen, os.W_OK | os.X_OK)
            usable = writable or os.path.isdir(os.path.join(chosen, digest))
    if not usable:
        # The name is predictable; check_private rejects a directory of another user.
        import tempfile

        chosen = os.path.join(tempfile.gettempdir(), f"authproxy-{os.getuid()}")
        os.makedirs(chosen, mode=0o700, exist_ok=True)
    check_private(chosen)
    check_parents(chosen)
    return chosen


def preferred_cache() -> str:
    """Return the cache directory of the environment with symlinks resolved, or ""."""
    chosen = os.environ.get("AUTHPROXY_CACHE")
    if chosen:
        return os.path.realpath(chosen)
    # The specification ignores a relative XDG_CACHE_HOME; "~" stays without a home.
    bases = (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache"))
    base = next((base for base in bases if os.path.isabs(base)), "")
    return os.path.realpath(os.path.join(base, "authproxy")) if base else ""


def check_private(folder: str) -> None:
    """Reject a directory to which another user except root could write code."""
    status = os.lstat(folder)
    if status.st_uid not in (os.getuid(), 0):
        raise StartError(f"{folder} belongs to another user; set AUTHPROXY_CACHE")
    if status.st_mode & 0o022:
        raise StartError(
            f"{folder} is writable by other users; chmod 700 it or set AUTHPROXY_CACHE"
        )


def check_parents(folder: str) -> None:
    """Reject a directory that another user could replace through a parent."""
    above = os.path.dirname(folder)
    while above != folder:
        # With the sticky bit, as in /tmp, only the owner can rename entries.
        if os.lstat(above).st_mode & 0o1002 == 0o002:
            raise StartError(f"{above} is writable by all users; set AUTHPROXY_CACHE")
        above, folder = os.path.dirname(above), above


def unpack(archive: str, digest: str, cache: str, folder: str) -> None:
    """Unpack, check the digest and compile next to *folder*, then rename to it."""
    import shutil
    import tempfile
    import zipfile
    import zlib

    remove_abandoned(cache)
    staging = tempfile.mkdtemp(prefix=UNPACKING, dir=cache)  # mode 0700
    try:
        fill(staging, archive, digest, folder)
        try:
            os.rename(staging, folder)
        except OSError:
            if not os.path.isdir(folder):  # otherwise another process was faster
                raise
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise StartError(f"{archive} is damaged: {error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def fill(staging: str, archive: str, digest: str, folder: str) -> None:
    """Unpack to *staging* and compile for the paths in *folder*."""
    import compileall
    import hashlib
    import io
    import zipfile

    with zipfile.ZipFile(archive) as outer:
        payload = outer.read("payload.zip")
    if hashlib.sha256(payload).hexdigest() != digest:
        raise StartError(f"{archive} is damaged: the digest of its content differs")
    with zipfile.ZipFile(io.BytesIO(payload)) as inner:
        inner.extractall(staging)  # its digest is verified
    compileall.compile_dir(staging, ddir=folder, quiet=2, workers=1)


def remove_abandoned(cache: str) -> None:
    """Remove incomplete directories of processes that were killed."""
    import shutil
    import time

    for entry in os.scandir(cache):
        if entry.name.startswith(UNPACKING):
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if age > UNPACKING_TTL:
                shutil.rmtree(entry.path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
