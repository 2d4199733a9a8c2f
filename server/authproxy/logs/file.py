"""A rotated log file that several workers append to.

A worker appends each chunk under a lock on the file (``flock``), after it has checked
that the path still leads to the open file. If the chunk would exceed the maximum size,
the worker renames the file under the lock; the next writer creates a new one, and the
others reopen the path. So no line is lost, split, or written to a file that is being
compressed. External rotation (logrotate) works in the same way.

A rotated file is named ``NAME-2026-11-24T10-30-00.000.EXT`` after the time of its
rotation, with ``.gz`` appended if it is compressed.
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

MODE = 0o600  # lines contain user names
MEBIBYTE = 1 << 20
DEVICES = Path("/dev")
COMPRESSED = ".gz"
UNFINISHED = ".tmp"  # suffix of a file that is being compressed
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}")
STAMP_FORMAT = "%Y-%m-%dT%H-%M-%S"
COPY_BYTES = 1 << 20


def resolve_path(settings: LogFileSettings) -> Path:
    """Return the path with symlinks resolved, except below /dev (``/dev/stdout``)."""
    path = Path(settings.path)
    return path if path.is_relative_to(DEVICES) else Path(os.path.realpath(path))


class LogFile:
    """The log file of *settings*; opened by the first `write`, or by `open`.

    Not thread-safe, but other processes may write to the same file. Without *rotates*
    only the other processes rotate it; rotation may start a thread. All methods raise
    OSError.
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
        """Open the file; create it if it does not exist."""
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, MODE)

    def close(self) -> None:
        """Close the file; the next `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def interrupt(self) -> None:
        """Do nothing: writes to a file don't wait for a reader."""

    def write(self, chunk: bytes) -> None:
        """Append *chunk* completely or not at all."""
        while not self._append(chunk):
            pass

    def _append(self, chunk: bytes) -> bool:
        """Append *chunk*; return False if the file has been or had to be rotated."""
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
        """Return whether the path still leads to the open file."""
        try:
            return os.path.samestat(status, self._path.stat())
        except FileNotFoundError:
            return False

    def _write_or_undo(self, chunk: bytes, size: int) -> None:
        try:
            _write_all(self._fd, chunk)
        except OSError:
            # The disk is full; the next line must not continue an incomplete one.
            os.ftruncate(self._fd, size)
            raise

    def _rotate(self) -> bool:
        """Rename the file; return False on failure: too large is better than lost."""
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
        self._directory = path.parent
        self._prefix, self._suffix = f"{path.stem}-", path.suffix
        self._settings = settings
        self._local_time = local_time

    def new_path(self, now: float) -> Path:
        """Return an unused path for a file that is rotated at *now* (Unix time)."""
        while True:
            path = self._directory / f"{self._prefix}{self._stamp(now)}{self._suffix}"
            if not path.exists() and not _compressed_path(path).exists():
                return path
            now += 0.001

    def _stamp(self, now: float) -> str:
        rotated_at = datetime.fromtimestamp(now, None if self._local_time else UTC)
        return f"{rotated_at:{STAMP_FORMAT}}.{rotated_at.microsecond // 1000:03}"

    def clean_up(self, fresh: Path | None = None) -> None:
        """Remove expired files, and compress the others in a thread.

        *fresh* is never removed, because its stamp may be older than others: clocks are
        set back, local time every autumn.
        """
        remaining = self._remove_expired(time.time(), fresh)
        if self._settings.compress and remaining:
            threading.Thread(
                target=_compress_all,
                args=(remaining,),
                name="log compression",
                daemon=True,
            ).start()

    def _remove_expired(self, now: float, fresh: Path | None) -> list[Path]:
        """Remove the files beyond the limits; return the others, the newest first."""
        found: dict[str, list[Path]] = {}
        for path in self._directory.iterdir():
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
        """Return the stamp in the name of a rotated file; "" for other files."""
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
            # The disk may be full; then the file stays uncompressed.
            with contextlib.suppress(OSError):
                _compress(path)


def _compress(path: Path) -> None:
    """Replace *path* by a compressed file, unless another worker is doing so."""
    unfinished = path.with_name(path.name + UNFINISHED)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    with os.fdopen(os.open(unfinished, flags, MODE), "wb") as raw:
        fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(raw.fileno()), unfinished.stat()):
            return  # another worker has just finished and renamed it
        try:
            raw.truncate()
            with (
                path.open("rb") as source,
                gzip.GzipFile(path.name, "wb", fileobj=raw) as compressed,
            ):
                shutil.copyfileobj(source, compressed, COPY_BYTES)
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
