"""Starts authproxy from its archive: unpack once, then run from there.

Native modules can't be imported from a zip, so the archive's files are unpacked into a
private folder named by the archive's digest. They appear there by one atomic rename,
so several processes may start at once. Only the standard library, and little of it: this
runs at every start. Written so that older Pythons can still read it, and say so.

The folder is ``$AUTHPROXY_CACHE``, or ``authproxy`` in ``$XDG_CACHE_HOME`` or
``~/.cache``, or one in the folder for temporary files when these can't be written to.
Folders of other archives are left alone: a process may still be running from them.
"""

import os
import sys
import zipimport
from importlib.machinery import EXTENSION_SUFFIXES

MINIMUM = (3, 11)
UNPACKING = ".unpacking-"  # beginning of the names of folders that are being filled
ABANDONED = 24 * 3600.0  # seconds after which nobody is filling such a folder any more


class StartError(Exception):
    """The program can't be started; the text says why, and what to do."""


def main() -> int:
    """Run the program; returns the exit code."""
    if sys.version_info < MINIMUM:
        return fail(f"Python 3.11 or later is needed, this is {sys.version.split()[0]}")
    loader = globals().get("__loader__")
    if not isinstance(loader, zipimport.zipimporter):
        return fail("this file only works inside the archive")
    try:
        sys.path[0] = ready_folder(loader)
    except StartError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"can't unpack {loader.archive}: {error}; set AUTHPROXY_CACHE")
    from authproxy.commands.cli import main as run

    return run()


def fail(text: str) -> int:
    """Say what is wrong; the exit code."""
    sys.stderr.write(f"authproxy: {text}\n")
    return 1


def platform() -> str:
    """What native modules depend on, such as ``cpython-311-x86_64-linux-gnu``."""
    machine = os.uname().machine
    tag = EXTENSION_SUFFIXES[0].split(".")[1]
    return tag if machine in tag else f"{tag}-{machine}"


def ready_folder(loader: zipimport.zipimporter) -> str:
    """The private folder with the archive's files, unpacked if need be."""
    archive = loader.archive
    built_for, digest = read_small(loader, "PLATFORM"), read_small(loader, "DIGEST")
    if built_for != platform():
        raise StartError(
            f"{archive} was built for {built_for}, but this Python is {platform()}; "
            "run it with a fitting one or build it again with this one"
        )
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise StartError(f"{archive} is damaged: its digest can't be read")
    cache = cache_folder(digest)
    folder = os.path.join(cache, digest)
    if not os.path.isdir(folder):
        unpack(archive, digest, cache, folder)
    check_private(folder)
    return folder


def read_small(loader: zipimport.zipimporter, name: str) -> str:
    """The text of one of the archive's small files."""
    archive = loader.archive
    try:
        return loader.get_data(os.path.join(archive, name)).decode("ascii").strip()
    except (OSError, ValueError, zipimport.ZipImportError) as error:
        raise StartError(f"{archive} is damaged: {error}") from None


def cache_folder(digest: str) -> str:
    """A folder that only we can write to, or that has our files already."""
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
        # A fixed name in a shared folder: it is ours, or it is refused below.
        import tempfile

        chosen = os.path.join(tempfile.gettempdir(), f"authproxy-{os.getuid()}")
        os.makedirs(chosen, mode=0o700, exist_ok=True)
    check_private(chosen)
    check_above(chosen)
    return chosen


def preferred_cache() -> str:
    """The folder that the environment asks for, symbolic links resolved, or ""."""
    chosen = os.environ.get("AUTHPROXY_CACHE")
    if chosen:
        return os.path.realpath(chosen)
    # A relative XDG_CACHE_HOME is to be ignored; without a home, "~" stays as it is.
    bases = (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache"))
    base = next((base for base in bases if os.path.isabs(base)), "")
    return os.path.realpath(os.path.join(base, "authproxy")) if base else ""


def check_private(folder: str) -> None:
    """Refuse a folder that somebody else (but root) could have put code into."""
    status = os.lstat(folder)
    if status.st_uid not in (os.getuid(), 0):
        raise StartError(f"{folder} belongs to another user; set AUTHPROXY_CACHE")
    if status.st_mode & 0o022:
        raise StartError(
            f"{folder} can be written to by others; chmod 700 it or set AUTHPROXY_CACHE"
        )


def check_above(folder: str) -> None:
    """Refuse a place where anybody could put another folder instead of ours."""
    above = os.path.dirname(folder)
    while above != folder:
        # In a folder with the sticky bit, as /tmp, only the owner can move things.
        if os.lstat(above).st_mode & 0o1002 == 0o002:
            raise StartError(f"anybody can write to {above}; set AUTHPROXY_CACHE")
        above, folder = os.path.dirname(above), above


def unpack(archive: str, digest: str, cache: str, folder: str) -> None:
    """Unpack beside, check the digest, compile, then rename to *folder*."""
    import shutil
    import tempfile
    import zipfile
    import zlib

    sweep(cache)
    staging = tempfile.mkdtemp(prefix=UNPACKING, dir=cache)  # mode 0700
    try:
        fill(staging, archive, digest, folder)
        try:
            os.rename(staging, folder)
        except OSError:
            if not os.path.isdir(folder):  # not just a sibling that was faster
                raise
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise StartError(f"{archive} is damaged: {error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def fill(staging: str, archive: str, digest: str, folder: str) -> None:
    """The archive's files into *staging*, compiled as if they were in *folder*."""
    import compileall
    import hashlib
    import io
    import zipfile

    with zipfile.ZipFile(archive) as outer:
        payload = outer.read("payload.zip")
    if hashlib.sha256(payload).hexdigest() != digest:
        raise StartError(f"{archive} is damaged: its content has another digest")
    with zipfile.ZipFile(io.BytesIO(payload)) as inner:
        inner.extractall(staging)  # it has the digest that we expect
    compileall.compile_dir(staging, ddir=folder, quiet=2, workers=1)


def sweep(cache: str) -> None:
    """Remove what starts that were killed while unpacking have left behind."""
    import shutil
    import time

    for entry in os.scandir(cache):
        if entry.name.startswith(UNPACKING):
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if age > ABANDONED:
                shutil.rmtree(entry.path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
