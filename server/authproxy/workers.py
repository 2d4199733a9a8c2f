"""Start: one worker in this process, or a supervisor with several forked ones.

The supervisor opens the sockets, forks, restarts the dead with a back-off and passes
signals on. It runs no event loop and no thread, so that it can fork at any time; signals
wake it through a socket (`signal.set_wakeup_fd`) and are handled in its own loop.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence

from .clock import log_timestamp
from .listeners import ListenError, Listening, opened
from .metrics.cells import SharedCells
from .metrics.metrics import metrics_of
from .server_settings import ServerSettings
from .stores.shared_state import NoPlaceError, placed

MIN_BACK_OFF, MAX_BACK_OFF = 0.1, 10.0  # seconds before a dead worker is replaced
GOOD_LIFE = 10.0  # seconds after which a death counts as the first one
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run(settings: ServerSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    try:
        with opened(settings.listeners) as sockets, placed(settings) as settings:
            for warning in settings.warnings:
                _say(f"warning: {warning}")
            for listening in sockets:
                what = "metrics" if listening.metrics else "listening"
                _say(f"{what} on {listening.name}")
            if settings.workers == 1:
                from .server import serve

                serve(settings, sockets, metrics=metrics_of(settings, SharedCells(), 0))
                return 0
            return Supervisor(settings, sockets).run()
    except (ListenError, NoPlaceError) as error:
        _say(str(error))
        return 1


def _say(text: str) -> None:
    """A line in the standard log, before there is a loop."""
    stamp = log_timestamp(time.time(), local_time=True)
    sys.stderr.write(f"[{stamp}] [server] {text}\n")
    sys.stderr.flush()


class Supervisor:
    """Keeps ``settings.workers`` workers alive."""

    def __init__(self, settings: ServerSettings, sockets: Sequence[Listening]) -> None:
        self._settings = settings
        self._sockets = sockets
        self._born: dict[int, float] = {}  # pid → monotonic seconds
        # As many again, for workers that start before those that they replace have ended.
        self._shared = SharedCells(2 * settings.workers)
        self._slots: dict[int, int] = {}  # pid → slot
        self._due: list[float] = []  # when the missing ones are to be replaced
        self._back_off = MIN_BACK_OFF
        self._stopping = False
        self._deadline = 0.0
        # Workers hold the reading end: it ends when the supervisor does.
        self._alive = os.pipe()
        self._wake_out, self._wake_in = socket.socketpair()

    def run(self) -> int:
        """Supervise until a signal says stop and all workers are gone."""
        from . import server  # noqa: F401 - imported once, shared by all workers

        self._catch_signals()
        gc.collect()
        gc.freeze()
        for _ in range(self._settings.workers):
            self._fork()
        while self._born or not self._stopping:
            self._wait()
            self._replace_missing()
        return 0

    def _catch_signals(self) -> None:
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)

    def _fork(self) -> None:
        # A signal between the fork and its resetting would be swallowed by the worker,
        # and reported to the supervisor by the socket that both still share.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        slot = self._free_slot()
        pid = os.fork()
        if pid:
            self._slots[pid] = slot
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._born[pid] = time.monotonic()
            return
        # The worker: nothing of the supervisor may run in it after this.
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.close(self._alive[1])
            self._wake_in.close()
            self._wake_out.close()
            from .server import serve

            metrics = metrics_of(self._settings, self._shared, slot)
            serve(self._settings, self._sockets, parent=self._alive[0], metrics=metrics)
            code = 0
        except BaseException as error:  # noqa: BLE001 - the border of the process
            _say(f"worker {os.getpid()} failed: {error!r}")
        finally:
            os._exit(code)

    def _free_slot(self) -> int:
        """The lowest one: who follows a dead worker takes its place in the metrics."""
        used = set(self._slots.values())
        return next(slot for slot in range(self._shared.slots) if slot not in used)

    def _wait(self) -> None:
        """Wait for a signal, or until something is due."""
        moments = [*self._due, *([self._deadline] if self._stopping else [])]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        ready, _, _ = select.select([self._wake_out], [], [], timeout)
        numbers = self._wake_out.recv(4096) if ready else b""
        for number in numbers:
            self._handle(number)
        if self._stopping and time.monotonic() >= self._deadline:
            self._send(signal.SIGKILL)
            self._deadline = time.monotonic() + 1.0

    def _handle(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            _say("a reload by SIGHUP is not supported yet")
        else:
            self._stop()

    def _stop(self) -> None:
        """Stop gently; a second time, at once."""
        if self._stopping:
            self._send(signal.SIGQUIT)
            return
        self._stopping = True
        self._deadline = time.monotonic() + self._settings.limits.drain_timeout + 5
        self._due.clear()
        # Ours are closed first: when the last worker closes its own, nobody listens.
        for listening in self._sockets:
            listening.socket.close()
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for pid in self._born:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._born:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._buried(pid, status)

    def _buried(self, pid: int, status: int) -> None:
        lived = time.monotonic() - self._born.pop(pid)
        self._shared.retire(self._slots.pop(pid))
        if self._stopping:
            return
        if lived >= GOOD_LIFE:
            self._back_off = MIN_BACK_OFF
        code = os.waitstatus_to_exitcode(status)
        _say(f"worker {pid} ended with {code}; next in {self._back_off:.1f} s")
        self._due.append(time.monotonic() + self._back_off)
        self._back_off = min(self._back_off * 2, MAX_BACK_OFF)

    def _replace_missing(self) -> None:
        now = time.monotonic()
        ready = [moment for moment in self._due if moment <= now]
        self._due = [moment for moment in self._due if moment > now]
        for _ in ready:
            self._fork()
