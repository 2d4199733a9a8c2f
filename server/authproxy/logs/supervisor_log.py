"""Lines in the standard log from where no worker's loop runs: the supervisor's.

They are written at once, where and as the workers write theirs. Nobody waits for a slow
reader: a supervisor that hangs could replace no worker.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable

from authproxy_core.settings.root import Settings

from ..net.clock import Clock
from ..server_settings import LogSettings, ServerSettings
from .file import LogFile
from .logger import STANDARD_ERROR, STANDARD_OUTPUT, create_formatter

MODULE = "server"


class SupervisorLog:
    """Writes lines by *settings*; *core* is what they are about."""

    def __init__(self, settings: LogSettings, core: Settings) -> None:
        self._settings = settings
        self._clock = Clock(local_time=settings.local_time)
        self._formatter = create_formatter(settings, core, self._clock)
        self._file: LogFile | None = None
        if settings.file is not None:
            # The supervisor has no threads, for it forks.
            self._file = LogFile(
                settings.file, local_time=settings.local_time, rotates=False
            )

    def write(self, text: str, *, good: bool) -> None:
        """Write a line, to where *good* news or other lines go."""
        if not self._settings.standard:
            return
        self._clock.tick()
        line = self._formatter.standard("info" if good else "error", MODULE, text)
        data = line.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):  # there is nobody to tell
            if not (good or self._settings.errors_to_info):
                _write(STANDARD_ERROR, data)
            elif self._file is None:
                _write(STANDARD_OUTPUT, data)
            else:
                self._file.write(data)
                self._file.close()  # a forked worker must not share the open file


def _write(fd: int, data: bytes) -> None:
    if select.select([], [fd], [], 0)[1]:
        os.write(fd, data)


def reserve_standard_fds() -> None:
    """Open what of standard input, output and error is closed.

    Else their numbers go to the next files and sockets, and lines of the log into them.
    """
    for fd in (0, STANDARD_OUTPUT, STANDARD_ERROR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


_announcers: list[SupervisorLog] = []  # one, as soon as there are settings


def configure(settings: ServerSettings) -> None:
    """Write by *settings* from now on."""
    _announcers[:] = [SupervisorLog(settings.logs, settings.core)]


def log(text: str, *, good: bool = False) -> None:
    """Write one line; *good* if nobody needs to look at it."""
    if not _announcers:
        _announcers.append(SupervisorLog(LogSettings(), Settings()))
    _announcers[0].write(text, good=good)


def log_all(header: str, lines: Iterable[str]) -> None:
    """Write *header*, and each of *lines* as one of its own."""
    log(header)
    for line in lines:
        log(f"  {line}")
