"""A worker's part in reloads: told by the supervisor, or of its own accord.

`Member` obeys the words of `rollout`; `OwnReloads` does all of it in the only process
of a server without supervisor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal, Protocol

from authproxy_core.errors import AuthProxyError

from ..net.control_channel import ControlChannel
from ..process.reload_coordinator import UNCHANGED, WATCH_INTERVAL
from ..server_settings import ServerSettings
from .file_watcher import FileWatcher
from .reload_settings import (
    ConfigSource,
    Prepared,
    candidate,
    deserialize_settings,
    error_lines,
)


class Reloadable(Protocol):
    """A worker that can be given new settings."""

    @property
    def settings(self) -> ServerSettings:
        """Those in force."""

    async def prepare(self, settings: ServerSettings) -> Prepared:
        """Make what *settings* need; raises what shows that they can't be used."""

    def switch(self, prepared: Prepared) -> None:
        """Use what was prepared, from the next request on."""

    def count_reload(self, outcome: Literal["success", "failure"]) -> None:
        """Count a reload."""

    def notice(self, text: str, *, good: bool = False) -> None:
        """Log a line; *good* if nobody needs to look at it."""


class WorkerReload:
    """One of several workers."""

    def __init__(self, worker: Reloadable, channel: ControlChannel) -> None:
        self._worker = worker
        self._channel = channel
        self._prepared: Prepared | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Say that the worker serves, and listen from now on."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._listen)
        self._channel.send("up")

    def stop(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._drop()

    def _listen(self) -> None:
        while (heard := self._channel.receive()) is not None:
            word, descriptor = heard
            if word == "prepare" and descriptor is not None:
                self._drop()
                self._begin(descriptor)
            elif word == "switch" and self._prepared is not None:
                self._worker.switch(self._prepared)
                self._drop()
                self._channel.send("switched")
            elif word == "drop":
                self._drop()
            elif word.startswith("count"):
                failed = word.endswith("failure")
                self._worker.count_reload("failure" if failed else "success")

    def _drop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._prepared = None

    def _begin(self, descriptor: int) -> None:
        try:
            settings = deserialize_settings(
                descriptor
            )  # at once: it closes the file of secrets
        except Exception as error:  # noqa: BLE001 - whatever it is, the old ones stay
            self._channel.send(f"failed {'; '.join(error_lines(error))}")
            return
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._prepare(settings))

    async def _prepare(self, settings: ServerSettings) -> None:
        try:
            self._prepared = await self._worker.prepare(settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old ones stay
            self._channel.send(f"failed {'; '.join(error_lines(error))}")
        else:
            self._channel.send("ready")


class SingleProcessReload:
    """Reloads in a server of one process; *source* is the configuration."""

    def __init__(self, worker: Reloadable, source: ConfigSource | None) -> None:
        self._worker = worker
        self._source = source
        self._watch = FileWatcher(worker.settings.files)
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at the files from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Reload no more."""
        if self._task is not None:
            self._task.cancel()

    def ask(self) -> None:
        """Reload as soon as possible."""
        self._asked.set()

    async def _run(self) -> None:
        while True:
            watching = self._worker.settings.reload_on_change and self._source
            try:
                async with asyncio.timeout(WATCH_INTERVAL if watching else None):
                    await self._asked.wait()
            except TimeoutError:
                if not await asyncio.to_thread(self._watch.has_stable_change):
                    continue
            self._asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        worker, source = self._worker, self._source
        if source is None:
            worker.notice("there is no configuration to reload")
            return
        try:
            # In a thread: it reads files and takes a while.
            found = await asyncio.to_thread(candidate, worker.settings, source)
            self._watch.set_paths(found.settings.files)
            worker.switch(await worker.prepare(found.settings))
        except Exception as error:  # noqa: BLE001 - whatever it is, the old ones stay
            if isinstance(error, AuthProxyError):
                named = getattr(error, "files", ())
                self._watch.set_paths({*worker.settings.files, *named})
            self._say((f"reload failed, {UNCHANGED}", *indented(error_lines(error))))
            worker.count_reload("failure")
            return
        worker.count_reload("success")
        self._say(found.notes)
        worker.notice("configuration reloaded", good=True)

    def _say(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._worker.notice(line)


def indented(lines: Iterable[str]) -> list[str]:
    """*lines* below a heading."""
    return [f"  {line}" for line in lines]
