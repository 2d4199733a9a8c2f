"""Reload coordinator: a two-phase commit over the workers.

The supervisor reads and checks the configuration and sends it to every worker, which
prepares it. Once all workers are prepared, all are sent ``commit``. If one fails or
exceeds `PREPARE_TIMEOUT`, all are sent ``abort`` and keep their settings. The messages
are listed at `WorkerReload`. Each has the number of its reload, so a late one does not
count for the next reload.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from ..logs.supervisor_log import configure, log, log_all
from ..net.control_channel import ControlChannel
from ..net.listeners import ListeningSocket
from ..net.tls import renew_context
from ..reload.file_watcher import FileWatcher
from ..reload.reload_settings import (
    FAILED,
    NO_SOURCE,
    RELOADED,
    WATCH_INTERVAL,
    Candidate,
    ConfigSource,
    error_lines,
    listener_contexts,
    read_candidate,
    serialize_settings,
)
from ..server_settings import ServerSettings

PREPARE_TIMEOUT = 30.0  # seconds for the workers to prepare, or to commit


class ReloadTarget(Protocol):
    """A worker that takes part in reloads."""

    channel: ControlChannel


class ReloadCoordinator:
    """Runs one reload at a time; ``settings`` are those in effect.

    *workers* maps process ids to workers; the supervisor adds and removes them.
    """

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[ListeningSocket],
        workers: Mapping[int, ReloadTarget],
        source: ConfigSource | None,
    ) -> None:
        self.settings = settings
        self._sockets = sockets
        self._workers = workers
        self._source = source
        self._watcher = FileWatcher(settings.files)
        self._next_poll = time.monotonic() + WATCH_INTERVAL
        self._requested = False
        self._candidate: Candidate | None = None
        self._number = 0  # of the latest reload
        self._committing = False
        self._pending: set[int] = set()  # workers that have not replied
        self._deadline = 0.0

    @property
    def in_progress(self) -> bool:
        """Whether the workers are preparing or committing."""
        return self._candidate is not None

    @property
    def due(self) -> float | None:
        """Time of the next necessary `advance` (monotonic seconds), None: no need."""
        if self._candidate is not None:
            return self._deadline
        return self._next_poll if self._watches else None

    @property
    def _watches(self) -> bool:
        return self.settings.reload_on_change and self._source is not None

    def request(self) -> None:
        """Reload as soon as possible."""
        self._requested = True

    def advance(self) -> None:
        """Start a reload if one is requested, or end one that exceeds its deadline."""
        now = time.monotonic()
        if self._candidate is not None:
            if now >= self._deadline:
                self._on_timeout(self._candidate)
            return
        if self._watches and now >= self._next_poll:
            self._next_poll = now + WATCH_INTERVAL
            self._requested = self._watcher.has_stable_change() or self._requested
        if self._requested:
            self._requested = False
            self._start()

    def on_message(self, pid: int, message: str) -> None:
        """Handle a message of worker *pid* about a reload: KIND NUMBER [REASON]."""
        kind, _, rest = message.partition(" ")
        number, _, reason = rest.partition(" ")
        if (
            self._candidate is None
            or pid not in self._pending
            or number != str(self._number)
        ):
            return
        if kind == ("committed" if self._committing else "prepared"):
            self._pending.discard(pid)
            self._proceed()
        elif kind == "failed" and not self._committing:
            self._abort((f"worker {pid}: {reason}",))

    def on_worker_exit(self, pid: int) -> None:
        """Stop waiting for worker *pid*; its successor starts with ``settings``."""
        self._pending.discard(pid)
        self._proceed()

    def _start(self) -> None:
        if self._source is None:
            log(NO_SOURCE)
            return
        try:
            candidate = read_candidate(self.settings, self._source)
            descriptor = serialize_settings(candidate.settings)
        except Exception as error:  # noqa: BLE001 - the old settings stay in effect
            files = getattr(error, "files", ())
            self._watcher.set_paths({*self.settings.files, *files})
            self._log_failure(error_lines(error))
            return
        self._watcher.set_paths(candidate.settings.files)
        self._candidate = candidate
        self._number += 1
        self._pending = set(self._workers)
        self._deadline = time.monotonic() + PREPARE_TIMEOUT
        for worker in self._workers.values():
            worker.channel.send(f"prepare {self._number}", descriptor)
        os.close(descriptor)
        self._proceed()

    def _proceed(self) -> None:
        """Enter the next phase if all workers have replied."""
        candidate = self._candidate
        if candidate is None or self._pending:
            return
        if self._committing:
            self._finish(candidate)
        else:
            self._commit(candidate)

    def _commit(self, candidate: Candidate) -> None:
        try:
            contexts = listener_contexts(candidate.settings)
        except (OSError, KeyError, ValueError) as error:
            self._abort(error_lines(error))
            return
        self._send_all("commit")
        self.settings = candidate.settings
        # Workers that are forked later inherit these contexts.
        for listener, context in zip(self._sockets, contexts, strict=True):
            listener.context = renew_context(listener.context, context)
        self._committing = True
        self._pending = set(self._workers)
        self._proceed()

    def _finish(self, candidate: Candidate) -> None:
        self._candidate, self._committing = None, False
        configure(candidate.settings)
        for warning in candidate.warnings:
            log(warning, level="warning")
        log(RELOADED, level="info")
        self._count("success")

    def _on_timeout(self, candidate: Candidate) -> None:
        late = [f"worker {pid}" for pid in sorted(self._pending)]
        if self._committing:
            for worker in late:
                log(
                    f"{worker} has not confirmed the reload; "
                    "it applies it when its event loop is free"
                )
            self._finish(candidate)
        else:
            self._abort(
                [
                    f"{worker}: not prepared after {PREPARE_TIMEOUT:.0f} s"
                    for worker in late
                ]
            )

    def _abort(self, reasons: Sequence[str]) -> None:
        self._candidate = None
        self._send_all("abort")
        self._log_failure(reasons)

    def _log_failure(self, reasons: Sequence[str]) -> None:
        log_all(FAILED, reasons)
        self._count("failure")

    def _send_all(self, message: str) -> None:
        for worker in self._workers.values():
            worker.channel.send(f"{message} {self._number}")

    def _count(self, outcome: Literal["success", "failure"]) -> None:
        """Let one worker count the reload: the metrics add up those of all workers."""
        for worker in list(self._workers.values())[:1]:
            worker.channel.send(f"count_reload {outcome}")
