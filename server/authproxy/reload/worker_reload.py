"""A worker's part in reloads, with and without a supervisor.

`WorkerReload` follows the messages of the supervisor's `ReloadCoordinator`.
`SingleProcessReload` does the whole reload in the only process of the server.
"""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

from authproxy_core.errors import AuthProxyError

from ..logs.formatter import Level
from ..net.control_channel import ControlChannel
from ..server_settings import ServerSettings
from .file_watcher import FileWatcher
from .reload_settings import (
    FAILED,
    NO_SOURCE,
    RELOADED,
    WATCH_INTERVAL,
    ConfigSource,
    PreparedReload,
    deserialize_settings,
    error_lines,
    read_candidate,
)


class Reloadable(Protocol):
    """A worker that can be given new settings."""

    @property
    def settings(self) -> ServerSettings:
        """The settings in effect."""

    async def prepare(self, settings: ServerSettings) -> PreparedReload:
        """Build what *settings* need; raises if they can't be used."""

    def commit(self, prepared: PreparedReload) -> None:
        """Use the prepared settings from the next request on."""

    def count_reload(self, outcome: Literal["success", "failure"]) -> None:
        """Count a reload in the metrics."""

    def log(self, text: str, *, level: Level = "error") -> None:
        """Log a line."""


class WorkerReload:
    """Reloads one of several workers, directed by the supervisor's messages.

    N is the number of a reload. Received: ``prepare N`` with the descriptor of the
    settings, ``commit N``, ``abort N``, ``count_reload OUTCOME``. Sent: ``started``,
    ``prepared N``, ``committed N``, ``failed N REASON``.
    """

    def __init__(self, worker: Reloadable, channel: ControlChannel) -> None:
        self._worker = worker
        self._channel = channel
        self._number = ""  # of the latest reload
        self._prepared: PreparedReload | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Report that the worker serves, and handle messages from now on."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._read_messages)
        self._channel.send("started")

    def stop(self) -> None:
        """Handle no more messages."""
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._abort()

    def _read_messages(self) -> None:
        while (received := self._channel.receive()) is not None:
            message, descriptor = received
            kind, _, argument = message.partition(" ")
            if kind == "prepare" and descriptor is not None:
                self._abort()
                self._number = argument
                self._start_prepare(descriptor)
            elif kind == "count_reload":
                self._worker.count_reload(
                    "failure" if argument == "failure" else "success"
                )
            elif argument == self._number:
                if kind == "commit" and self._prepared is not None:
                    self._worker.commit(self._prepared)
                    self._send("committed")
                self._abort()

    def _send(self, kind: str, reason: str = "") -> None:
        self._channel.send(f"{kind} {self._number} {reason}".rstrip())

    def _abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._prepared = None

    def _start_prepare(self, descriptor: int) -> None:
        try:
            # Not in the task: this closes the file, which contains secrets.
            settings = deserialize_settings(descriptor)
        except Exception as error:  # noqa: BLE001 - the old settings stay in effect
            self._send("failed", "; ".join(error_lines(error)))
            return
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._prepare(settings))

    async def _prepare(self, settings: ServerSettings) -> None:
        try:
            self._prepared = await self._worker.prepare(settings)
        except Exception as error:  # noqa: BLE001 - the old settings stay in effect
            self._send("failed", "; ".join(error_lines(error)))
        else:
            self._send("prepared")


class SingleProcessReload:
    """Reloads a server of one process; *source* is its configuration, if any."""

    def __init__(self, worker: Reloadable, source: ConfigSource | None) -> None:
        self._worker = worker
        self._source = source
        self._watcher = FileWatcher(worker.settings.files)
        self._requested = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch the files and handle reload requests from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Reload no more."""
        if self._task is not None:
            self._task.cancel()

    def request(self) -> None:
        """Reload as soon as possible."""
        self._requested.set()

    async def _run(self) -> None:
        while True:
            watches = self._worker.settings.reload_on_change and self._source
            try:
                async with asyncio.timeout(WATCH_INTERVAL if watches else None):
                    await self._requested.wait()
            except TimeoutError:
                if not await asyncio.to_thread(self._watcher.has_stable_change):
                    continue
            self._requested.clear()
            await self._reload()

    async def _reload(self) -> None:
        worker, source = self._worker, self._source
        if source is None:
            worker.log(NO_SOURCE)
            return
        try:
            # In a thread, because it reads and parses files.
            candidate = await asyncio.to_thread(read_candidate, worker.settings, source)
            self._watcher.set_paths(candidate.settings.files)
            worker.commit(await worker.prepare(candidate.settings))
        except Exception as error:  # noqa: BLE001 - the old settings stay in effect
            if isinstance(error, AuthProxyError):
                files = getattr(error, "files", ())
                self._watcher.set_paths({*worker.settings.files, *files})
            for line in (FAILED, *(f"  {line}" for line in error_lines(error))):
                worker.log(line)
            worker.count_reload("failure")
            return
        worker.count_reload("success")
        for warning in candidate.warnings:
            worker.log(warning, level="warning")
        worker.log(RELOADED, level="info")
