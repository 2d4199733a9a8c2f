"""Standard log of the supervisor and of other code without an event loop.

Lines have the format and the destination of the workers' lines, and are written at
once. A line is dropped if the reader is too slow, because a blocked supervisor could
not restart workers.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable

from authproxy_core.settings.root import Settings

from ..loop.clock import Clock
from ..server_settings import LogSettings, ServerSettings
from .file import LogFile
from .formatter import Level
from .logger import STANDARD_ERROR, STANDARD_OUTPUT, create_formatter

MODULE = "server"


class SupervisorLog:
    """Writes standard log lines according to *settings*."""

    def __init__(self, settings: LogSettings, core: Settings) -> None:
        self._settings = settings
        self._clock = Clock(local_time=settings.local_time)
        self._formatter = create_formatter(settings, core, self._clock)
        self._file: LogFile | None = None
        if settings.file is not None:
            # Rotation may start a thread, but the supervisor forks.
            self._file = LogFile(
                settings.file, local_time=settings.local_time, rotates=False
            )

    def write(self, level: Level, text: str, module: str) -> None:
        """Write one line."""
        if not self._settings.standard:
            return
        self._clock.tick()
        line = self._formatter.standard(level, module, text)
        data = line.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):  # there is no way to report it
            if level != "info" and not self._settings.errors_to_info:
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
    """Open those of standard input, output and error that are closed.

    Otherwise the next files and sockets get their numbers, and log lines go into them.
    """
    for fd in (0, STANDARD_OUTPUT, STANDARD_ERROR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


_logs: list[SupervisorLog] = []  # at most one


def configure(settings: ServerSettings) -> None:
    """Use *settings* for all later lines."""
    _logs[:] = [SupervisorLog(settings.logs, settings.core)]


def log(text: str, *, level: Level = "error", module: str = MODULE) -> None:
    """Write one line; before `configure`, with the default settings."""
    if not _logs:
        _logs.append(SupervisorLog(LogSettings(), Settings()))
    _logs[0].write(level, text, module)


def log_all(header: str, lines: Iterable[str]) -> None:
    """Write *header* and *lines*, indented, at error level."""
    log(header)
    for line in lines:
        log(f"  {line}")
