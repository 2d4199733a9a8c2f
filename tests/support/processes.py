"""Other programs, started for a test and surely ended after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from support.ports import LOOPBACK

POLL = 0.02  # seconds between two looks at a condition
TAIL = 60  # lines of a log that are shown
_running: list[Process] = []


class ProgramFailedError(Exception):
    """A program ended, or didn't answer in time; its log is part of the message."""


def running() -> tuple[Process, ...]:
    """The programs that run now, in the order they were started."""
    return tuple(_running)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Return as soon as *condition* holds; TimeoutError when it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(POLL)


def listens(port: int, host: str = LOOPBACK) -> bool:
    """Whether somebody accepts connections on *port*."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
        return True
    return False


class Process:
    """A program in a process group of its own, with its output in a file.

    ``environment`` is all it gets besides PATH, HOME, the language and what measures
    coverage: nothing of the tester's own settings reaches it.
    """

    KEPT = ("PATH", "HOME", "LANG", "JAVA_HOME", "TMPDIR")

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start *command* in *folder*, which also takes the log."""
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._mark = 0
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key in self.KEPT or key.startswith("COVERAGE_")
        }
        with self.log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env={**inherited, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _running.append(self)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id, which is the group's as well."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._popen.poll()

    def wait_until(self, ready: Callable[[], bool], seconds: float = 15.0) -> Process:
        """Wait until *ready* holds; the program must not end before."""

        def decided() -> bool:
            return self.exit_code is not None or ready()

        try:
            wait_for(decided, f"{self.name} to answer", seconds)
        except TimeoutError as error:
            self.stop()
            raise ProgramFailedError(f"{error}\n{self.log_tail()}") from None
        if self.exit_code is not None:
            self.stop()
            raise ProgramFailedError(
                f"{self.name} ended with {self.exit_code}\n{self.log_tail()}"
            )
        return self

    def wait(self, seconds: float = 15.0) -> int:
        """Wait for its end; returns the exit code."""
        return self._popen.wait(seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the program alone, not to its children."""
        self._popen.send_signal(number)

    def stop(self, seconds: float = 10.0) -> None:
        """End the whole group: politely, then by force."""
        if self in _running:
            _running.remove(self)
        self._signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)
        self._signal_group(signal.SIGKILL)
        self._popen.wait()

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def log(self) -> str:
        """All that it wrote so far."""
        return self.log_file.read_text(errors="replace")

    def mark(self) -> None:
        """Remember the end of the log, for `log_since_mark`."""
        self._mark = self.log_file.stat().st_size

    def log_since_mark(self) -> str:
        """What it wrote after `mark`."""
        with self.log_file.open("rb") as log:
            log.seek(self._mark)
            return log.read().decode(errors="replace")

    def log_tail(self, lines: int = TAIL) -> str:
        """The last lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])
