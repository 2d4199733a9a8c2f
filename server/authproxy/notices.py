"""Lines in the standard log from where no worker's loop runs: the supervisor's.

They are written at once, where and as the workers write theirs. Nobody waits for a slow
reader: a supervisor that hangs could replace no worker.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable

from authproxy_core.settings import Settings

from .clock import Clock
from .log_file import LogFile
from .logs import STANDARD_ERROR, STANDARD_OUTPUT, lines_of
from .server_settings import LogSettings, ServerSettings

MODULE = "server"


class Announcer:
    """Writes lines by *settings*; *core* is what they are about."""

    def __init__(self, settings: LogSettings, core: Settings) -> None:
        self._settings = settings
        self._clock = Clock(local_time=settings.local_time)
        self._lines = lines_of(settings, core, self._clock)
        self._file: LogFile | None = None
        if settings.file is not None:
            # The supervisor has no threads, for it forks.
            self._file = LogFile(
                settings.file, local_time=settings.local_time, rotates=False
            )

    def say(self, text: str, *, good: bool) -> None:
        """Write a line, to where *good* news or other lines go."""
        if not self._settings.standard:
            return
        self._clock.tick()
        line = self._lines.standard("info" if good else "error", MODULE, text)
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


def hold_standard_streams() -> None:
    """Open what of standard input, output and error is closed.

    Else their numbers go to the next files and sockets, and lines of the log into them.
    """
    for fd in (0, STANDARD_OUTPUT, STANDARD_ERROR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


_announcers: list[Announcer] = []  # one, as soon as there are settings


def speak_by(settings: ServerSettings) -> None:
    """Write by *settings* from now on."""
    _announcers[:] = [Announcer(settings.logs, settings.core)]


def say(text: str, *, good: bool = False) -> None:
    """Write one line; *good* if nobody needs to look at it."""
    if not _announcers:
        _announcers.append(Announcer(LogSettings(), Settings()))
    _announcers[0].say(text, good=good)


def say_all(header: str, lines: Iterable[str]) -> None:
    """Write *header*, and each of *lines* as one of its own."""
    say(header)
    for line in lines:
        say(f"  {line}")
