"""Temporary directory of the embedded store, used when no path is configured.

It is created before the workers are forked, so that all workers, including restarted
ones, use the same file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

import msgspec

from ..server_settings import ServerSettings

FALLBACK = "/dev/shm"  # noqa: S108 - only a private directory is created there


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
        path = os.path.join(directory, "shared.db")
        store = msgspec.structs.replace(settings.store, path=path)
        yield msgspec.structs.replace(settings, store=store)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _create_directory() -> str:
    """Create a private directory in systemd's RUNTIME_DIRECTORY, else in /tmp."""
    problems = []
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    for parent in filter(None, (runtime, tempfile.gettempdir(), FALLBACK)):
        try:
            return tempfile.mkdtemp(prefix="authproxy-", dir=parent)
        except OSError as error:
            problems.append(f"{parent}: {error.strerror}")
    raise NoDirectoryError(
        "cannot create a directory for the shared state of the workers: "
        f"{'; '.join(problems)}; set sqlite_path, or shared_state = 'none'"
    )
