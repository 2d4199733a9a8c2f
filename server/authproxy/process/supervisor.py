"""The supervisor: forks the workers, replaces the dead, passes on signals and settings.

It opens no connection and runs no event loop and no thread, so that it can fork at any
time; signals wake it through a socket (`signal.set_wakeup_fd`) and are handled in its
own loop, as are the words of the workers.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Sequence

from authproxy_core.errors import AuthProxyError

from ..logs.supervisor_log import log, log_all
from ..metrics.metrics import metrics_of
from ..metrics.shared_memory import SharedMetrics
from ..net.control_channel import ControlChannel
from ..net.listeners import ListeningSocket, refuse_connections
from ..reload.reload_settings import ConfigSource, error_lines
from ..server_settings import ServerSettings
from .reload_coordinator import ReloadCoordinator

MIN_BACK_OFF, MAX_BACK_OFF = 0.1, 10.0  # seconds before a dead worker is replaced
STABLE_UPTIME = 10.0  # seconds after which a death counts as the first one
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class WorkerProcess:
    """A worker as its supervisor sees it; ``up`` when it has begun to serve.

    ``slot`` is its place in the metrics.
    """

    def __init__(self, channel: ControlChannel, slot: int) -> None:
        self.channel = channel
        self.slot = slot
        self.born = time.monotonic()
        self.up = False


class Supervisor:
    """Keeps ``settings.workers`` workers alive."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[ListeningSocket],
        source: ConfigSource | None,
    ) -> None:
        self._sockets = sockets
        self._children: dict[int, WorkerProcess] = {}  # by process id
        self._rollouts = ReloadCoordinator(settings, sockets, self._children, source)
        # As many again, for workers that start before those that they replace have ended.
        self._shared = SharedMetrics(2 * settings.workers)
        self._due: list[float] = []  # when the missing ones are to be replaced
        self._back_off = MIN_BACK_OFF
        self._ever_up = False
        self._stopping = False
        self._deadline = 0.0
        self._code = 0
        # Workers hold the reading end: it ends when the supervisor does.
        self._alive = os.pipe()
        self._wake_out, self._wake_in = socket.socketpair()

    @property
    def _settings(self) -> ServerSettings:
        return self._rollouts.settings

    def run(self) -> int:
        """Supervise until a signal says stop and all workers are gone."""
        from ..worker import worker  # noqa: F401 - imported once, shared by all workers

        self._catch_signals()
        gc.collect()
        gc.freeze()
        for _ in range(self._settings.workers):
            self._fork()
        while self._children or not self._stopping:
            self._wait()
            self._rollouts.advance()
            self._replace_missing()
        return self._code

    def _catch_signals(self) -> None:
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)

    # Workers.

    def _fork(self) -> None:
        ours, theirs = ControlChannel.pair()
        slot = self._free_slot()
        # A signal between the fork and its resetting would be swallowed by the worker,
        # and reported to the supervisor by the socket that both still share.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            theirs.close()
            self._children[pid] = WorkerProcess(ours, slot)
            return
        # The worker: nothing of the supervisor may run in it after this.
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._close_own(ours)
            from ..worker.worker import serve

            serve(
                self._settings,
                self._sockets,
                parent=self._alive[0],
                channel=theirs,
                metrics=metrics_of(self._settings, self._shared, slot),
            )
            code = 0
        except AuthProxyError as error:
            log_all(f"worker {os.getpid()} can't use its settings:", error_lines(error))
        except BaseException as error:  # noqa: BLE001 - the border of the process
            log(f"worker {os.getpid()} failed: {error!r}")
        finally:
            os._exit(code)

    def _free_slot(self) -> int:
        """The lowest one: who follows a dead worker takes its place in the metrics."""
        used = {child.slot for child in self._children.values()}
        return next(slot for slot in range(self._shared.slots) if slot not in used)

    def _close_own(self, ours: ControlChannel) -> None:
        """In a worker: close what belongs to the supervisor."""
        os.close(self._alive[1])
        self._wake_in.close()
        self._wake_out.close()
        ours.close()
        for child in self._children.values():
            child.channel.close()

    def _wait(self) -> None:
        """Wait for a signal or a word of a worker, or until something is due."""
        moments = [*self._due, *([self._deadline] if self._stopping else [])]
        if (due := self._rollouts.due) is not None and not self._stopping:
            moments.append(due)
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        wake = self._wake_out.fileno()
        channels = {one.channel.fileno(): pid for pid, one in self._children.items()}
        ready, _, _ = select.select([wake, *channels], [], [], timeout)
        if wake in ready:
            for number in self._wake_out.recv(4096):
                self._handle(number)
        for descriptor in ready:
            if descriptor != wake:
                self._read_messages(channels[descriptor])
        if self._stopping and time.monotonic() >= self._deadline:
            self._send(signal.SIGKILL)
            self._deadline = time.monotonic() + 1.0

    def _read_messages(self, pid: int) -> None:
        child = self._children.get(pid)
        while child is not None and (heard := child.channel.receive()) is not None:
            word, _ = heard
            if word == "up":
                child.up = self._ever_up = True
            else:
                self._rollouts.on_message(pid, word)

    def _handle(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._rollouts.request()
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
            refuse_connections(listening)
            listening.socket.close()
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for pid in self._children:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._read_messages(pid)  # its last words
            self._on_worker_exit(pid, status)

    def _on_worker_exit(self, pid: int, status: int) -> None:
        child = self._children.pop(pid)
        child.channel.close()
        self._shared.retire(child.slot)
        self._rollouts.on_worker_exit(pid)
        if self._stopping:
            return
        code = os.waitstatus_to_exitcode(status)
        if not self._ever_up and code == 1:
            # The next one would fail in the same way.
            log(f"worker {pid} could not start; giving up")
            self._code = 1
            self._stop()
            return
        if time.monotonic() - child.born >= STABLE_UPTIME:
            self._back_off = MIN_BACK_OFF
        log(f"worker {pid} ended with {code}; next in {self._back_off:.1f} s")
        self._due.append(time.monotonic() + self._back_off)
        self._back_off = min(self._back_off * 2, MAX_BACK_OFF)

    def _replace_missing(self) -> None:
        # A worker that is born in the middle of a rollout would miss it.
        if self._rollouts.under_way:
            return
        now = time.monotonic()
        ready = [moment for moment in self._due if moment <= now]
        self._due = [moment for moment in self._due if moment > now]
        for _ in ready:
            self._fork()
