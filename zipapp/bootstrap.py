"""Start the zipapp: find its unpacked files, or unpack them, and run from there.

Python cannot import native modules from a zip file, so the wheels of this platform are
unpacked to a directory named after their digest. It is searched and created in the first
usable place of `cache_directories`. This module runs at every start and imports little.
"""

from __future__ import annotations

import fcntl
import os
import sys
import zipimport
from importlib.machinery import EXTENSION_SUFFIXES

TYPE_CHECKING = False  # importing typing and collections.abc takes too long
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILES = "FILES"  # the list of unpacked files: digest, size and path in each line
# Modification time of unpacked files, in seconds. A file with another time is verified
# by its digest, because it was changed or copied.
UNPACKED_MTIME = 315532800
TEMPORARY_DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm")
REMEDY = (
    "set AUTHPROXY_CACHE to a directory that this user can write to and that is not "
    "mounted noexec, or unpack the files when the image is built, by --version with "
    "AUTHPROXY_CACHE set"
)
_in_use: list[int] = []  # descriptors whose locks keep the files from being removed


class StartError(Exception):
    """The program cannot start; the message has the cause and the remedy."""


class UnusableDirectoryError(Exception):
    """Files cannot be run from a directory; the message has the cause."""


def main() -> int:
    """Run the program and return the exit code."""
    loader = globals().get("__loader__")
    if not isinstance(loader, zipimport.zipimporter):
        return fail("this file runs only inside the zipapp")
    try:
        sys.path[0] = unpacked_directory(Zipapp(loader))
    except StartError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return 130
    from authproxy.commands.cli import main as run

    return run()


def fail(text: str) -> int:
    """Print an error and return the exit code."""
    sys.stderr.write(f"authproxy: {text}\n")
    return 1


def this_target() -> str:
    """Return Python version and platform, as ``3.11-linux-x86_64``.

    Free-threaded and debug builds have a letter after the version, because they need
    other native modules.
    """
    implementation, _, tag = EXTENSION_SUFFIXES[0].split(".")[1].partition("-")
    abi = tag.partition("-")[0]
    if implementation != "cpython" or not abi.startswith("3"):
        return f"{sys.implementation.name}-{tag or implementation}"
    system = "macos" if sys.platform == "darwin" else sys.platform
    if tag.endswith("-musl"):
        system += "-musl"
    return f"3.{abi[1:]}-{system}-{os.uname().machine}"


class Zipapp:
    """The running zipapp and the list of wheels for this Python and platform."""

    def __init__(self, loader: zipimport.zipimporter) -> None:
        """Read the list; raises `StartError` without one for this target."""
        self.path = loader.archive
        self.target = this_target()
        name = os.path.join(self.path, "targets", self.target)
        try:
            content = loader.get_data(name).decode("ascii")
        except OSError:
            raise StartError(self._mismatch()) from None
        except (ValueError, zipimport.ZipImportError) as error:
            raise StartError(f"{self.path} is damaged: {error}") from None
        self.digest, _, self.wheels = content.partition("\n")
        if len(self.digest) != 64 or set(self.digest) - set("0123456789abcdef"):
            raise StartError(f"{self.path} is damaged: invalid digest")

    def _mismatch(self) -> str:
        """Return the error for a Python or platform without wheels in the zipapp."""
        import zipfile

        with zipfile.ZipFile(self.path) as archive:
            names = [name.rpartition("/") for name in archive.namelist()]
        targets = [name for folder, _, name in names if folder == "targets"]
        if not targets:
            return f"{self.path} is damaged: it lists no platforms"
        return (
            f"{self.path} was built for {', '.join(targets)}, but this Python is "
            f"{self.target}; run it with another Python, or build it with "
            "zipapp/build.py --python and --platform"
        )


def unpacked_directory(zipapp: Zipapp) -> str:
    """Return the directory with the files of *zipapp*; unpack them if necessary.

    Raises `StartError` if no place is usable, or if the one in AUTHPROXY_CACHE is not
    safe.
    """
    problems = []
    for cache, create in cache_directories():
        try:
            return directory_in(cache, create, zipapp)
        except UnusableDirectoryError as error:
            if create is create_chosen:
                raise StartError(f"{error}, or set AUTHPROXY_CACHE") from None
            problem = str(error)
        except OSError as error:
            problem = f"{cache}: {error.strerror or error}"
        if problem not in problems:
            problems.append(problem)
    raise StartError(f"cannot unpack {zipapp.path}: {'; '.join(problems)}; {REMEDY}")


def cache_directories() -> Iterator[tuple[str, Callable[[str], None]]]:
    """Yield directories for unpacked files, each with the function that creates it."""
    get = os.environ.get
    if get("AUTHPROXY_CACHE"):
        yield os.path.realpath(os.environ["AUTHPROXY_CACHE"]), create_chosen
    systemd_cache = get("CACHE_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(systemd_cache):
        yield os.path.realpath(systemd_cache), create_directory
    # The specification ignores a relative XDG_CACHE_HOME; "~" stays without a home.
    for home_cache in (get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(home_cache):
            yield os.path.realpath(f"{home_cache}/authproxy"), create_private
            break
    runtime = get("RUNTIME_DIRECTORY", "").partition(":")[0]
    # Last the directory of a login session, because its end removes the files.
    session = get("XDG_RUNTIME_DIR", "")
    for base in (runtime, get("TMPDIR", ""), *TEMPORARY_DIRECTORIES, session):
        if os.path.isabs(base):
            # The name is predictable: a symlink there may be another user's.
            name = f"authproxy-{os.getuid()}"
            yield os.path.join(os.path.realpath(base), name), create_directory


def create_chosen(path: str) -> None:
    """Create a directory and its parents, readable by all users, as for an image."""
    os.makedirs(path, mode=0o755, exist_ok=True)


def create_private(path: str) -> None:
    """Create a private directory and its parents."""
    os.makedirs(path, mode=0o700, exist_ok=True)


def create_directory(path: str) -> None:
    """Create a private directory in an existing one."""
    try:  # noqa: SIM105 - importing contextlib takes too long
        os.mkdir(path, mode=0o700)
    except FileExistsError:
        pass  # check_safe follows


def directory_in(cache: str, create: Callable[[str], None], zipapp: Zipapp) -> str:
    """Return the directory with the files in *cache*; unpack or repair them there.

    Raises OSError, `UnusableDirectoryError`, and `StartError` for a damaged zipapp.
    """
    if not os.path.lexists(cache):
        create(cache)
    check_safe(cache)
    check_parents(cache)
    if os.statvfs(cache).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise OSError(0, "mounted noexec, native modules cannot be loaded")
    folder = os.path.join(cache, zipapp.digest)
    if os.path.lexists(folder):
        check_safe(folder)
        if is_complete(folder):
            return folder
    import unpacking

    unpacking.unpack(zipapp, cache, folder)
    if not is_complete(folder):
        raise OSError(0, "the unpacked files were removed at once")
    return folder


def check_safe(folder: str) -> None:
    """Reject a directory to which another user except root could write code."""
    status = os.lstat(folder)
    if status.st_mode & 0o170000 != 0o040000:
        raise UnusableDirectoryError(f"{folder} is not a directory; remove it")
    if status.st_uid not in (os.getuid(), 0):
        raise UnusableDirectoryError(f"{folder} belongs to another user; remove it")
    if status.st_mode & 0o022:
        raise UnusableDirectoryError(
            f"{folder} is writable by other users; chmod 755 it"
        )


def check_parents(folder: str) -> None:
    """Reject a directory that another user could replace through a parent."""
    above = os.path.dirname(folder)
    while above != folder:
        status = os.lstat(above)
        # With the sticky bit, as in /tmp, only owners can rename entries.
        if status.st_mode & 0o1002 == 0o002:
            raise UnusableDirectoryError(
                f"{above} is writable by all users; chmod o-w or +t it"
            )
        if status.st_uid not in (os.getuid(), 0):
            raise UnusableDirectoryError(
                f"{above} belongs to another user; move the cache out of it"
            )
        above, folder = os.path.dirname(above), above


def is_complete(folder: str) -> bool:
    """Return whether all files are as unpacked; locks them against removal.

    Files with the expected size and modification time count as unchanged.
    """
    try:
        descriptor = os.open(os.path.join(folder, FILES), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # it is being removed
        os.close(descriptor)
        return False
    except OSError:
        pass  # no locks on this file system: old versions stay
    with open(descriptor, encoding="utf-8", closefd=False) as file:
        lines = file.read().split("\n")
    complete = lines[-1] == "end" and all(
        is_unchanged(folder, line) for line in lines[:-1]
    )
    if complete:
        _in_use.append(descriptor)
    else:
        os.close(descriptor)
    return complete


def is_unchanged(folder: str, line: str) -> bool:
    """Return whether a file is as its *line* of the list: ``DIGEST SIZE PATH``."""
    digest, size, name = line.split(" ", 2)
    path = f"{folder}/{name}"
    try:
        status = os.lstat(path)
        if status.st_size != int(size):
            return False
        if status.st_mtime == UNPACKED_MTIME:
            return True
        import hashlib

        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == digest
    except (OSError, ValueError):
        return False
