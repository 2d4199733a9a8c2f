"""Programs that are started for a test and always stopped after it."""

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

POLL_INTERVAL = 0.02  # seconds between two checks of a condition
TAIL = 60  # lines of a log in a failure report
_running: list[Process] = []


class ProgramFailedError(Exception):
    """A program exited or did not become ready in time; the message has its log."""


def running() -> tuple[Process, ...]:
    """Return the running programs in the order of their start."""
    return tuple(_running)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until *condition* holds; raises TimeoutError after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(POLL_INTERVAL)


def listens(port: int, host: str = LOOPBACK) -> bool:
    """Return whether *port* accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
        return True
    return False


class Process:
    """A program in a new process group, with its output in a file.

    Its environment is *environment*, `INHERITED` and the variables of coverage, so
    settings of the developer do not reach it.
    """

    INHERITED = ("PATH", "HOME", "LANG", "JAVA_HOME", "TMPDIR")

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start *command* in *folder*, where the log is written."""
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._mark = 0
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key in self.INHERITED or key.startswith("COVERAGE_")
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
        """The process id, which is also that of the group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._popen.poll()

    def wait_until(self, ready: Callable[[], bool], seconds: float = 60.0) -> Process:
        """Wait until *ready* holds; raises ProgramFailedError if the program exits."""

        def is_done() -> bool:
            return self.exit_code is not None or ready()

        try:
            wait_for(is_done, f"{self.name} to be ready", seconds)
        except TimeoutError as error:
            self.stop()
            raise ProgramFailedError(f"{error}\n{self.log_tail()}") from None
        if self.exit_code is not None:
            self.stop()
            raise ProgramFailedError(
                f"{self.name} exited with code {self.exit_code}\n{self.log_tail()}"
            )
        return self

    def wait(self, seconds: float = 60.0) -> int:
        """Wait until it exits; return the exit code."""
        return self._popen.wait(seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the program, not to its children."""
        self._popen.send_signal(number)

    def stop(self, seconds: float = 20.0) -> None:
        """Stop the process group with SIGTERM, then with SIGKILL."""
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
        """Return its output so far."""
        return self.log_file.read_text(errors="replace")

    def mark(self) -> None:
        """Mark the end of the log for `log_since_mark`."""
        self._mark = self.log_file.stat().st_size

    def log_since_mark(self) -> str:
        """Return its output since `mark`."""
        with self.log_file.open("rb") as log:
            log.seek(self._mark)
            return log.read().decode(errors="replace")

    def log_tail(self, lines: int = TAIL) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])
