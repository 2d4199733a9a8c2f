"""Temporary directory of the embedded store, used when no path is configured.

It is created before the workers are forked, so that all workers, including restarted
ones, use the same file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import msgspec

from ..server_settings import ServerSettings

# Only a private directory is created in them.
TEMPORARY_DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
FILE = "shared.db"


class UnusablePlaceError(Exception):
    """The store cannot be created in a directory; the message has the cause."""


class NoDirectoryError(Exception):
    """No private directory can be created for the shared state of the workers."""


@contextlib.contextmanager
def with_store_path(settings: ServerSettings) -> Iterator[ServerSettings]:
    """Yield *settings* with the store's path; removes the directory at the end.

    Raises `NoDirectoryError`.
    """
    if settings.store.kind != "sqlite" or settings.store.path:
        yield settings
        return
    directory = _create_directory()
    try:
        path = os.path.join(directory, FILE)
        store = msgspec.structs.replace(settings.store, path=path)
        yield msgspec.structs.replace(settings, store=store)
    finally:
        import shutil

        shutil.rmtree(directory, ignore_errors=True)


def _create_directory() -> str:
    """Create a private directory with the store in the first usable place.

    Raises `NoDirectoryError` with the problem of each place.
    """
    problems = []
    for parent in _places():
        try:
            return _create_in(parent)
        except UnusablePlaceError as error:
            problems.append(f"{parent}: {error}")
    raise NoDirectoryError(
        "cannot create a directory for the shared state of the workers: "
        f"{'; '.join(problems)}; set TMPDIR to a writable directory, set sqlite_path, "
        "or shared_state = 'none'"
    )


def _places() -> list[str]:
    """Return the directories to try; a login session's is last, as it may be removed."""
    places = [
        os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0],  # of systemd
        os.environ.get("TMPDIR", ""),
        *TEMPORARY_DIRECTORIES,
        os.environ.get("XDG_RUNTIME_DIR", ""),
    ]
    return list(dict.fromkeys(filter(os.path.isabs, places)))


def _create_in(parent: str) -> str:
    """Create a directory in *parent* and the store in it.

    Raises `UnusablePlaceError`, also if the file system is full or has no locks.
    """
    import shutil
    import sqlite3
    import tempfile

    from authproxy_core.errors import StoreError

    from .sqlite_file import open_database

    directory = ""
    try:
        directory = tempfile.mkdtemp(prefix="authproxy-", dir=parent)
        open_database(os.path.join(directory, FILE)).close()
    except (OSError, sqlite3.Error, StoreError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        cause = error.strerror if isinstance(error, OSError) else ""
        raise UnusablePlaceError(cause or str(error)) from None
    return directory
