"""Which of the files that a configuration names have changed on the disk.

Looking is a few `stat` calls, which works on every file system and container mount.
Links are followed: Kubernetes changes a mounted secret by swapping a link to its folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

# Device, inode, size, moments of the last change of content and of the entry.
FileStamp: TypeAlias = tuple[int, int, int, int, int] | None


class FileWatcher:
    """Looks at files (folders count as well) whenever it is asked to."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._known = self._look()
        self._last = self._known

    def set_paths(self, paths: Iterable[str]) -> None:
        """Look at *paths* from now on; those that are new count as unchanged."""
        self._paths = frozenset(paths)
        now = self._look()
        self._known = now | {p: m for p, m in self._known.items() if p in self._paths}
        self._last = now | {p: m for p, m in self._last.items() if p in self._paths}

    def has_stable_change(self) -> bool:
        """Whether something has changed, but nothing any more since the last look.

        A certificate and its key are replaced one after the other: who reads them in
        between has two that do not belong together.
        """
        now = self._look()
        rests, self._last = now == self._last, now
        if not rests or now == self._known:
            return False
        self._known = dict(now)
        return True

    def _look(self) -> dict[str, FileStamp]:
        return {path: _mark(path) for path in self._paths}


def _mark(path: str) -> FileStamp:
    """None for what is not there or can't be looked at."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
