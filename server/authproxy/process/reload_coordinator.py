"""A reload over several workers: all of them switch, or none.

The supervisor reads and checks the configuration and hands it to every worker; each
prepares and says so. When the last one is ready, all are told to switch. If one can't,
or takes too long, all keep what they have. The words are those of `server.Member`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from ..logs.supervisor_log import configure, log, log_all
from ..net.control_channel import ControlChannel
from ..net.listeners import ListeningSocket
from ..reload.file_watcher import FileWatcher
from ..reload.reload_settings import (
    Candidate,
    ConfigSource,
    candidate,
    contexts,
    error_lines,
    serialize_settings,
)
from ..server_settings import ServerSettings

WATCH_INTERVAL = 1.0  # seconds between two looks at the files
PREPARE_TIMEOUT = 30.0  # seconds for the workers to prepare
UNCHANGED = "the configuration stays as it was:"


class ReloadTarget(Protocol):
    """A worker that is told of new settings."""

    channel: ControlChannel


class ReloadCoordinator:
    """Reloads one after the other; ``settings`` are those in force."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[ListeningSocket],
        followers: Mapping[int, ReloadTarget],
        source: ConfigSource | None,
    ) -> None:
        self.settings = settings
        self._sockets = sockets
        self._followers = followers
        self._source = source
        self._watch = FileWatcher(settings.files)
        self._next_look = time.monotonic() + WATCH_INTERVAL
        self._asked = False
        self._candidate: Candidate | None = None
        self._switching = False
        self._waiting: set[int] = set()
        self._deadline = 0.0

    @property
    def under_way(self) -> bool:
        """Whether the workers are preparing or switching."""
        return self._candidate is not None

    @property
    def due(self) -> float | None:
        """When `advance` wants to be called (monotonic seconds), None: no need."""
        if self._candidate is not None:
            return self._deadline
        return self._next_look if self._watches else None

    @property
    def _watches(self) -> bool:
        return self.settings.reload_on_change and self._source is not None

    def request(self) -> None:
        """Reload as soon as possible."""
        self._asked = True

    def advance(self) -> None:
        """Begin or end a reload when it is time for it."""
        now = time.monotonic()
        if self._candidate is not None:
            if now >= self._deadline:
                self._too_late(self._candidate)
            return
        if self._watches and now >= self._next_look:
            self._next_look = now + WATCH_INTERVAL
            self._asked = self._watch.has_stable_change() or self._asked
        if self._asked:
            self._asked = False
            self._begin()

    def on_message(self, pid: int, word: str) -> None:
        """A worker says that it is ready or has switched, or why it can't."""
        if self._candidate is None or pid not in self._waiting:
            return
        if word == ("switched" if self._switching else "ready"):
            self._waiting.discard(pid)
            self._go_on()
        elif word.startswith("failed"):
            self._give_up((f"worker {pid}: {word.partition(' ')[2]}",))

    def on_worker_exit(self, pid: int) -> None:
        """Nobody waits for a dead worker: the next one begins with what is in force."""
        self._waiting.discard(pid)
        self._go_on()

    def _begin(self) -> None:
        if self._source is None:
            log("there is no configuration to reload")
            return
        try:
            found = candidate(self.settings, self._source)
            descriptor = serialize_settings(found.settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old ones stay
            self._refused(error)
            return
        self._watch.set_paths(found.settings.files)
        self._candidate = found
        self._waiting = set(self._followers)
        self._deadline = time.monotonic() + PREPARE_TIMEOUT
        for follower in self._followers.values():
            follower.channel.send("prepare", descriptor)
        os.close(descriptor)
        self._go_on()

    def _refused(self, error: Exception) -> None:
        self._watch.set_paths({*self.settings.files, *getattr(error, "files", ())})
        log_all(f"reload failed, {UNCHANGED}", error_lines(error))
        self._count("failure")

    def _go_on(self) -> None:
        """Take the next step when nobody is waited for."""
        found = self._candidate
        if found is None or self._waiting:
            return
        if self._switching:
            self._end(found)
        else:
            self._switch(found)

    def _switch(self, found: Candidate) -> None:
        try:
            new_contexts = contexts(found.settings)
        except (OSError, KeyError, ValueError) as error:
            self._give_up(error_lines(error))
            return
        self._tell("switch")
        self.settings = found.settings
        for listening, context in zip(self._sockets, new_contexts, strict=True):
            listening.context = context
        self._switching = True
        self._waiting = set(self._followers)
        self._go_on()

    def _end(self, found: Candidate) -> None:
        self._candidate, self._switching = None, False
        configure(found.settings)
        for note in found.notes:
            log(note)
        log("configuration reloaded", good=True)
        self._count("success")

    def _too_late(self, found: Candidate) -> None:
        late = ", ".join(map(str, sorted(self._waiting)))
        if self._switching:
            log(f"worker {late} is busy and will use the new configuration later")
            self._end(found)
        else:
            self._give_up((f"worker {late} did not get ready in time",))

    def _give_up(self, lines: Sequence[str]) -> None:
        self._candidate = None
        log_all(f"reload failed, {UNCHANGED}", lines)
        self._tell("drop")
        self._count("failure")

    def _tell(self, word: str) -> None:
        for follower in self._followers.values():
            follower.channel.send(word)

    def _count(self, outcome: str) -> None:
        """Have one of the workers count it: the numbers of all are added up."""
        for follower in list(self._followers.values())[:1]:
            follower.channel.send(f"count {outcome}")
