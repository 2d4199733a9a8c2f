"""Where the embedded store is when no path is given: a folder that lives with the server.

It is made before the workers are forked, so that all of them, and those that replace
them, use the same file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

import msgspec

from ..server_settings import ServerSettings

FALLBACK = "/dev/shm"  # noqa: S108 - what goes there is a private folder


class NoDirectoryError(Exception):
    """No private folder can be made for what the workers share."""


@contextlib.contextmanager
def with_store_path(settings: ServerSettings) -> Iterator[ServerSettings]:
    """The settings with the store's path; the folder is removed in the end.

    Raises `NoPlaceError`.
    """
    if settings.store.kind != "sqlite" or settings.store.path:
        yield settings
        return
    folder = _private_folder()
    try:
        path = os.path.join(folder, "shared.db")
        store = msgspec.structs.replace(settings.store, path=path)
        yield msgspec.structs.replace(settings, store=store)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> str:
    """A new folder that only we may enter, where the service manager says or in /tmp."""
    problems = []
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    for parent in filter(None, (runtime, tempfile.gettempdir(), FALLBACK)):
        try:
            return tempfile.mkdtemp(prefix="authproxy-", dir=parent)
        except OSError as error:
            problems.append(f"{parent}: {error.strerror}")
    raise NoDirectoryError(
        "no folder for what the workers share can be made "
        f"({'; '.join(problems)}); set sqlite_path, or shared_state = 'none'"
    )
