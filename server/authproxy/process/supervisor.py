"""Supervisor: fork the workers, restart them, and relay signals and reloads.

It opens no connection and runs no event loop and no thread, so that it can fork at any
time. Signals wake its loop through a socket (`signal.set_wakeup_fd`); they and the
messages of the workers are handled there.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Sequence

from ..logs.reports import WorkerReports, parse_report
from ..logs.supervisor_log import log
from ..metrics.metrics import metrics_of
from ..metrics.shared_memory import SharedMetrics
from ..net.control_channel import ControlChannel
from ..net.listeners import ListeningSocket, refuse_connections
from ..reload.reload_settings import ConfigSource, error_lines
from ..server_settings import ServerSettings
from ..stores.create import store_factory
from .reload_coordinator import ReloadCoordinator
from .shared_attempts import create_attempts

MIN_BACK_OFF, MAX_BACK_OFF = 0.1, 10.0  # seconds before an exited worker is replaced
STABLE_UPTIME = 10.0  # seconds of uptime that reset the back-off
KILL_DELAY = 5.0  # seconds between the end of drain_timeout and SIGKILL
KILL_INTERVAL = 1.0  # seconds between two SIGKILLs
FAILED_WORKER = "worker_failed"  # message of a worker before its exit, with the reason
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class WorkerProcess:
    """The supervisor's view of a worker; ``slot`` is its number in the metrics.

    ``error`` is the reason that the worker reported before its exit.
    """

    def __init__(self, channel: ControlChannel, slot: int) -> None:
        self.channel = channel
        self.slot = slot
        self.error = ""
        self.forked_at = time.monotonic()


class Supervisor:
    """Keeps ``settings.workers`` workers running."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[ListeningSocket],
        source: ConfigSource | None,
    ) -> None:
        self._sockets = sockets
        self._workers: dict[int, WorkerProcess] = {}  # by process id
        self._reloads = ReloadCoordinator(settings, sockets, self._workers, source)
        # Twice as many slots, because a worker may start before its predecessor exits.
        self._metrics = SharedMetrics(2 * settings.workers)
        self._attempts = create_attempts()
        self._reports = WorkerReports()
        self._restarts_due: list[
            float
        ] = []  # monotonic seconds, one per missing worker
        self._back_off = MIN_BACK_OFF
        self._any_started = False
        self._stopping = False
        self._kill_at = 0.0  # monotonic seconds, once stopping
        self._exit_code = 0
        # Workers hold the reading end; it is at its end once the supervisor exits.
        self._alive = os.pipe()
        self._wake_out, self._wake_in = socket.socketpair()

    @property
    def _settings(self) -> ServerSettings:
        return self._reloads.settings

    def run(self) -> int:
        """Supervise until a signal requests a stop and all workers have exited.

        Returns the exit code of the program.
        """
        from ..worker import serve  # noqa: F401 - imported once, shared by all workers

        store_factory(self._settings.store)  # imported once, as well
        self._install_signal_handlers()
        # The workers share these objects. A collection first would take a tenth of the
        # start and find little, because none ran during the imports.
        gc.freeze()
        gc.enable()
        for _ in range(self._settings.workers):
            self._fork()
        while self._workers or not self._stopping:
            self._wait()
            self._reloads.advance()
            self._restart_due_workers()
        return self._exit_code

    def _install_signal_handlers(self) -> None:
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)

    def _fork(self) -> None:
        channel, worker_channel = ControlChannel.pair()
        slot = self._free_slot()
        # A signal that arrives before the worker resets its handlers would have no
        # effect there, and the shared wakeup socket would report it to the supervisor.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            channel.close()
            worker_channel.close()
            raise
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            worker_channel.close()
            self._workers[pid] = WorkerProcess(channel, slot)
            return
        # The worker: from here on no code of the supervisor may run in it.
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._close_in_worker(channel)
            from ..worker.serve import serve

            serve(
                self._settings,
                self._sockets,
                parent=self._alive[0],
                channel=worker_channel,
                metrics=metrics_of(self._settings, self._metrics, slot),
                attempts=self._attempts,
            )
            code = 0
        except BaseException as error:  # noqa: BLE001 - the supervisor logs it
            reasons = error_lines(error)
            worker_channel.send(f"{FAILED_WORKER} {'; '.join(reasons)}")
        finally:
            os._exit(code)

    def _free_slot(self) -> int:
        """Return the lowest free slot, so that a new worker continues its counters."""
        used = {worker.slot for worker in self._workers.values()}
        return next(slot for slot in range(self._metrics.slots) if slot not in used)

    def _close_in_worker(self, channel: ControlChannel) -> None:
        """In a new worker: close the supervisor's files and sockets."""
        os.close(self._alive[1])
        self._wake_in.close()
        self._wake_out.close()
        channel.close()
        for worker in self._workers.values():
            worker.channel.close()

    def _wait(self) -> None:
        """Wait for a signal, a worker's message or a deadline, and handle it."""
        deadlines = [*self._restarts_due]
        if self._stopping:
            deadlines.append(self._kill_at)
        elif (due := self._reloads.due) is not None:
            deadlines.append(due)
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        wake = self._wake_out.fileno()
        channels = {one.channel.fileno(): pid for pid, one in self._workers.items()}
        ready, _, _ = select.select([wake, *channels], [], [], timeout)
        if wake in ready:
            for number in self._wake_out.recv(4096):
                self._handle_signal(number)
        for descriptor in ready:
            if descriptor != wake:
                self._read_messages(channels[descriptor])
        if self._stopping and time.monotonic() >= self._kill_at:
            self._signal_workers(signal.SIGKILL)
            self._kill_at = time.monotonic() + KILL_INTERVAL

    def _read_messages(self, pid: int) -> None:
        worker = self._workers.get(pid)
        while worker is not None and (received := worker.channel.receive()) is not None:
            message, _ = received
            if message == "started":
                self._any_started = True
            elif (report := parse_report(message)) is not None:
                if self._reports.is_new(pid, report, time.monotonic()):
                    log(report.text, level=report.level, module=report.module)
            elif message.startswith(FAILED_WORKER):
                worker.error = message.removeprefix(FAILED_WORKER).strip()
            else:
                self._reloads.on_message(pid, message)

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._reloads.request()
        else:
            self._stop()

    def _stop(self) -> None:
        """Start a graceful shutdown; the second call aborts requests in flight."""
        if self._stopping:
            self._signal_workers(signal.SIGQUIT)
            return
        self._stopping = True
        drain_timeout = self._settings.limits.drain_timeout
        self._kill_at = time.monotonic() + drain_timeout + KILL_DELAY
        self._restarts_due.clear()
        # Before the workers close their copies: the last close must end the listener.
        for listener in self._sockets:
            refuse_connections(listener)
            listener.socket.close()
        self._signal_workers(signal.SIGTERM)

    def _signal_workers(self, number: int) -> None:
        for pid in self._workers:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._read_messages(pid)  # those sent before the exit
            self._on_worker_exit(pid, status)

    def _on_worker_exit(self, pid: int, status: int) -> None:
        worker = self._workers.pop(pid)
        worker.channel.close()
        self._metrics.clear_gauges(worker.slot)
        self._reloads.on_worker_exit(pid)
        if self._stopping:
            return
        code = os.waitstatus_to_exitcode(status)
        if not self._any_started and code == 1:
            # Each further worker would fail too, so one line is enough.
            log(f"start failed: {worker.error or 'a worker exited'}")
            self._exit_code = 1
            self._stop()
            return
        if time.monotonic() - worker.forked_at >= STABLE_UPTIME:
            self._back_off = MIN_BACK_OFF
        reason = f" ({worker.error})" if worker.error else ""
        self._restart_later(f"worker {pid} exited with code {code}{reason}")

    def _restart_later(self, reason: str) -> None:
        log(f"{reason}; restart in {self._back_off:.1f} s")
        self._restarts_due.append(time.monotonic() + self._back_off)
        self._back_off = min(self._back_off * 2, MAX_BACK_OFF)

    def _restart_due_workers(self) -> None:
        # A worker forked during a reload would miss its settings.
        if self._reloads.in_progress:
            return
        now = time.monotonic()
        due = [at for at in self._restarts_due if at <= now]
        self._restarts_due = [at for at in self._restarts_due if at > now]
        for _ in due:
            try:
                self._fork()
            except OSError as error:  # no process, memory or file descriptor
                self._restart_later(f"cannot start a worker: {error}")
