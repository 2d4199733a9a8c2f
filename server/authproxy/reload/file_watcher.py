"""File watcher: detect changes of the files that a configuration names.

It polls with `stat`, which works on every file system and container mount, and follows
symlinks: Kubernetes updates a mounted secret by replacing a symlink to its directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

# Device, inode, size, time of the last change of the content and of the inode.
FileStamp: TypeAlias = tuple[int, int, int, int, int] | None


class FileWatcher:
    """Detects changes of files and directories; each `has_stable_change` polls once."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._reported = self._read_stamps()
        self._last = self._reported

    def set_paths(self, paths: Iterable[str]) -> None:
        """Watch *paths* from now on; added paths count as unchanged."""
        self._paths = frozenset(paths)
        now = self._read_stamps()
        self._reported = now | self._still_watched(self._reported)
        self._last = now | self._still_watched(self._last)

    def has_stable_change(self) -> bool:
        """Return whether files have changed, but not since the previous call.

        A certificate and its key are replaced one after the other. A read between the
        two gets files that do not match.
        """
        now = self._read_stamps()
        stable, self._last = now == self._last, now
        if not stable or now == self._reported:
            return False
        self._reported = now
        return True

    def _still_watched(self, stamps: dict[str, FileStamp]) -> dict[str, FileStamp]:
        return {path: stamp for path, stamp in stamps.items() if path in self._paths}

    def _read_stamps(self) -> dict[str, FileStamp]:
        return {path: _read_stamp(path) for path in self._paths}


def _read_stamp(path: str) -> FileStamp:
    """Return the stamp of the file at *path*; None if it is missing or unreadable."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
