"""A log file that is rotated, and that several workers append to.

Every chunk is appended under a lock on the file (``flock``), after a look whether the
path still leads to it. Who finds that the chunk would make it too large renames it,
still under the lock, and the next to come makes a new one; the others see that and open
it. So no line is lost, torn or written to a file that is being compressed, and whoever
moves the file away from outside (logrotate) is understood too.

A rotated file is called ``NAME-2026-11-24T10-30-00.000.EXT``, by the moment at which it
was rotated, with ``.gz`` when it has been compressed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..server_settings import LogFileSettings

MODE = 0o600  # lines name users
MEBIBYTE = 1 << 20
DEVICES = Path("/dev")
COMPRESSED = ".gz"
UNFINISHED = ".tmp"  # behind the name of a file that is being made
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}")
STAMP_FORMAT = "%Y-%m-%dT%H-%M-%S"
COPY_SIZE = 1 << 20


def resolve_path(settings: LogFileSettings) -> Path:
    """The file itself: where a link leads to, but not from standard output's name."""
    path = Path(settings.path)
    return path if path.is_relative_to(DEVICES) else Path(os.path.realpath(path))


class LogFile:
    """The file that *settings* name; opened by the first `write`, or by `open`.

    Belongs to one thread; other processes may have the same file, and rotate it where
    this one does not (*rotates*): that may start a thread. All methods raise OSError.
    """

    def __init__(
        self, settings: LogFileSettings, *, local_time: bool, rotates: bool = True
    ) -> None:
        self._rotates = rotates
        self._path = resolve_path(settings)
        self._max_size = settings.max_size * MEBIBYTE
        self._local_time = local_time
        self._backups = Backups(settings, local_time=local_time)
        self._fd = -1

    def open(self) -> None:
        """Open the file, which is made if need be."""
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, MODE)

    def close(self) -> None:
        """Close it; the next `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def interrupt(self) -> None:
        """Nothing here waits for a reader."""

    def write(self, chunk: bytes) -> None:
        """Append *chunk*, all of it or nothing."""
        while not self._append(chunk):
            pass

    def _append(self, chunk: bytes) -> bool:
        """Append *chunk*; False when the file was another one, or had to be rotated."""
        if self._fd < 0:
            self.open()
        with _locked(self._fd):
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                _write_all(self._fd, chunk)
                return True
            if self._is_current(status):
                size = status.st_size
                fits = not size or size + len(chunk) <= self._max_size
                if fits or not self._rotates or not self._rotate():
                    self._write_or_undo(chunk, size)
                    return True
        self.close()
        return False

    def _is_current(self, status: os.stat_result) -> bool:
        """Whether the path still leads to the open file."""
        try:
            return os.path.samestat(status, self._path.stat())
        except FileNotFoundError:
            return False

    def _write_or_undo(self, chunk: bytes, size: int) -> None:
        try:
            _write_all(self._fd, chunk)
        except OSError:
            # No half line: the disk is full, and others may go on after it.
            os.ftruncate(self._fd, size)
            raise

    def _rotate(self) -> bool:
        """Rename the file; False when that can't be done: better too large than lost."""
        if self._path.is_relative_to(DEVICES):
            return False  # /dev/stdout may lead to a regular file
        backup = self._backups.new_path(time.time())
        try:
            self._path.rename(backup)
        except OSError:
            return False
        with contextlib.suppress(OSError):
            self._backups.clean_up(backup)
        return True


class Backups:
    """The rotated files of a log file."""

    def __init__(self, settings: LogFileSettings, *, local_time: bool) -> None:
        path = resolve_path(settings)
        self._folder = path.parent
        self._prefix, self._suffix = f"{path.stem}-", path.suffix
        self._settings = settings
        self._local_time = local_time

    def new_path(self, now: float) -> Path:
        """The name for a file that is rotated at *now*; nobody has it yet."""
        while True:
            path = self._folder / f"{self._prefix}{self._stamp(now)}{self._suffix}"
            if not path.exists() and not _compressed_path(path).exists():
                return path
            now += 0.001

    def _stamp(self, now: float) -> str:
        moment = datetime.fromtimestamp(now, None if self._local_time else UTC)
        return f"{moment:{STAMP_FORMAT}}.{moment.microsecond // 1000:03}"

    def clean_up(self, fresh: Path | None = None) -> None:
        """Remove what is too old or too much, and compress the rest in a thread.

        *fresh* stays in any case: clocks go back, local ones every autumn.
        """
        kept = self._remove_expired(time.time(), fresh)
        if self._settings.compress and kept:
            threading.Thread(
                target=_compress_all, args=(kept,), name="log compression", daemon=True
            ).start()

    def _remove_expired(self, now: float, fresh: Path | None) -> list[Path]:
        """The files that stay, the newest first; the others are removed."""
        found: dict[str, list[Path]] = {}
        for path in self._folder.iterdir():
            stamp = self._stamp_of(path.name)
            if stamp:
                found.setdefault(stamp, []).append(path)
        newest = self._stamp_of(fresh.name) if fresh is not None else ""
        stamps = sorted(found, key=lambda stamp: (stamp == newest, stamp), reverse=True)
        keep = set(stamps)
        if self._settings.max_backups > 0:
            keep &= set(stamps[: self._settings.max_backups])
        if self._settings.max_age > 0:
            days = timedelta(days=self._settings.max_age).total_seconds()
            oldest = self._stamp(now - days)
            keep = {stamp for stamp in keep if stamp >= oldest or stamp == newest}
        for stamp in set(stamps) - keep:
            for path in found[stamp]:
                path.unlink(missing_ok=True)
        return [path for stamp in stamps if stamp in keep for path in found[stamp]]

    def _stamp_of(self, name: str) -> str:
        """The stamp in the name of a rotated file; "" for other files."""
        bare = name.removesuffix(COMPRESSED)
        if not (bare.startswith(self._prefix) and bare.endswith(self._suffix)):
            return ""
        stamp = bare[len(self._prefix) : len(bare) - len(self._suffix)]
        return stamp if STAMP.fullmatch(stamp) else ""


def _compressed_path(path: Path) -> Path:
    return path.with_name(path.name + COMPRESSED)


def _compress_all(paths: list[Path]) -> None:
    for path in paths:
        if not path.name.endswith(COMPRESSED):
            with contextlib.suppress(
                OSError
            ):  # the disk may be full: it stays as it is
                _compress(path)


def _compress(path: Path) -> None:
    """Put *path* into a compressed file; another worker may be about to do so too."""
    unfinished = path.with_name(path.name + UNFINISHED)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    with os.fdopen(os.open(unfinished, flags, MODE), "wb") as raw:
        fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(raw.fileno()), unfinished.stat()):
            return  # another worker has just finished it, and given it its name
        try:
            raw.truncate()
            with (
                path.open("rb") as source,
                gzip.GzipFile(path.name, "wb", fileobj=raw) as packed,
            ):
                shutil.copyfileobj(source, packed, COPY_SIZE)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        unfinished.rename(_compressed_path(path))
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
