"""Opens what lies below a folder, and nothing else, whatever the path says.

The way is walked segment by segment on open folders, so that neither a symbolic link
nor somebody who renames folders meanwhile leads out of it. Links that stay inside are
followed by hand: what is mounted from a Kubernetes ConfigMap consists of them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

MAX_SYMLINKS = 40  # as Linux has it
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A pipe must not keep us waiting for a writer; what is no file is closed again.
ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_beneath(root: str, path: str, *, follow: bool = False) -> int:
    """A descriptor of the file or folder *path* below the folder *root*.

    With *follow* links may lead anywhere. Raises OSError: EACCES for a way out, ENOENT
    also for what is neither a file nor a folder.
    """
    segments = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in segments or any("\0" in part for part in segments):
        raise _failure(errno.ENOENT)
    if follow:
        whole = os.path.join(root, *segments)
        return _checked(os.open(whole, ENTRY & ~os.O_NOFOLLOW))
    way = [os.open(root, DIRECTORY_FLAGS)]
    try:
        found = _walked(way, segments)
    finally:
        for folder in way:
            os.close(folder)
    return _checked(found)


def _walked(way: list[int], segments: Sequence[str]) -> int:
    """Walk on from the last of *way*, the open folders from the root to here."""
    ahead = list(reversed(segments))
    links = 0
    while ahead:
        segment = ahead.pop()
        if segment == "..":  # of a link
            if len(way) == 1:
                raise _failure(errno.EACCES)
            os.close(way.pop())
            continue
        try:
            entry = os.open(segment, ENTRY, dir_fd=way[-1])
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK):  # the latter on BSD
                raise
            links += 1
            target = os.readlink(segment, dir_fd=way[-1])
            if links > MAX_SYMLINKS or target.startswith("/"):
                raise _failure(errno.EACCES) from None
            parts = [part for part in target.split("/") if part not in ("", ".")]
            ahead += reversed(parts)
            continue
        if not stat.S_ISDIR(os.fstat(entry).st_mode):
            if ahead:
                os.close(entry)
                raise _failure(errno.ENOTDIR)
            return entry
        way.append(entry)
    return os.dup(way[-1])


def _checked(entry: int) -> int:
    mode = os.fstat(entry).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return entry
    os.close(entry)
    raise _failure(errno.ENOENT)


def _failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))
