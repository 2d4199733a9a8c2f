"""Open files beneath a root directory; reject paths and symlinks that leave it.

The path is resolved segment by segment on open directories, so neither a symlink nor a
concurrent rename can lead out of the root. Symlinks that stay inside are resolved
here, because mounted Kubernetes ConfigMaps consist of them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

MAX_SYMLINKS = 40  # the limit of Linux
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Opening a FIFO must not block; special files are closed again.
ENTRY_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_beneath(root: str, path: str, *, follow: bool = False) -> int:
    """Return a descriptor of the file or directory *path* beneath *root*.

    With *follow*, symlinks may lead anywhere. Raises OSError: EACCES if the path leaves
    the root, ENOENT also for special files.
    """
    segments = _split(path)
    if ".." in segments or any("\0" in segment for segment in segments):
        raise _os_error(errno.ENOENT)
    if follow:
        full_path = os.path.join(root, *segments)
        return _check_type(os.open(full_path, ENTRY_FLAGS & ~os.O_NOFOLLOW))
    ancestors = [os.open(root, DIRECTORY_FLAGS)]
    try:
        descriptor = _resolve(ancestors, segments)
    finally:
        for directory in ancestors:
            os.close(directory)
    return _check_type(descriptor)


def _resolve(ancestors: list[int], segments: Sequence[str]) -> int:
    """Open *segments*, starting at the last of *ancestors*.

    *ancestors* are the open directories from the root; the list changes, and the caller
    closes them.
    """
    pending = list(reversed(segments))
    symlinks = 0
    while pending:
        segment = pending.pop()
        if segment == "..":  # from a symlink
            if len(ancestors) == 1:
                raise _os_error(errno.EACCES)
            os.close(ancestors.pop())
            continue
        try:
            descriptor = os.open(segment, ENTRY_FLAGS, dir_fd=ancestors[-1])
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK):  # EMLINK on BSD
                raise
            symlinks += 1
            target = os.readlink(segment, dir_fd=ancestors[-1])
            if symlinks > MAX_SYMLINKS or target.startswith("/"):
                raise _os_error(errno.EACCES) from None
            pending += reversed(_split(target))
            continue
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if pending:
                os.close(descriptor)
                raise _os_error(errno.ENOTDIR)
            return descriptor
        ancestors.append(descriptor)
    return os.dup(ancestors[-1])


def _split(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment not in ("", ".")]


def _check_type(descriptor: int) -> int:
    """Return *descriptor* if it is of a file or directory, else close it."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return descriptor
    os.close(descriptor)
    raise _os_error(errno.ENOENT)


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
