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

from .channel import Channel
from .listeners import Listening
from .notices import say, say_all, speak_by
from .reload import Candidate, Source, candidate, contexts, packed, reasons
from .server_settings import ServerSettings
from .watch import Watch

LOOK_INTERVAL = 1.0  # seconds between two looks at the files
PATIENCE = 30.0  # seconds for the workers to prepare
KEPT = "the configuration stays as it was:"


class Follower(Protocol):
    """A worker that is told of new settings."""

    channel: Channel


class Rollouts:
    """Reloads one after the other; ``settings`` are those in force."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: Sequence[Listening],
        followers: Mapping[int, Follower],
        source: Source | None,
    ) -> None:
        self.settings = settings
        self._sockets = sockets
        self._followers = followers
        self._source = source
        self._watch = Watch(settings.files)
        self._next_look = time.monotonic() + LOOK_INTERVAL
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

    def ask(self) -> None:
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
            self._next_look = now + LOOK_INTERVAL
            self._asked = self._watch.settled() or self._asked
        if self._asked:
            self._asked = False
            self._begin()

    def heard(self, pid: int, word: str) -> None:
        """A worker says that it is ready or has switched, or why it can't."""
        if self._candidate is None or pid not in self._waiting:
            return
        if word == ("switched" if self._switching else "ready"):
            self._waiting.discard(pid)
            self._go_on()
        elif word.startswith("failed"):
            self._give_up((f"worker {pid}: {word.partition(' ')[2]}",))

    def died(self, pid: int) -> None:
        """Nobody waits for a dead worker: the next one begins with what is in force."""
        self._waiting.discard(pid)
        self._go_on()

    def _begin(self) -> None:
        if self._source is None:
            say("there is no configuration to reload")
            return
        try:
            found = candidate(self.settings, self._source)
            descriptor = packed(found.settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old ones stay
            self._refused(error)
            return
        self._watch.follow(found.settings.files)
        self._candidate = found
        self._waiting = set(self._followers)
        self._deadline = time.monotonic() + PATIENCE
        for follower in self._followers.values():
            follower.channel.say("prepare", descriptor)
        os.close(descriptor)
        self._go_on()

    def _refused(self, error: Exception) -> None:
        self._watch.follow({*self.settings.files, *getattr(error, "files", ())})
        say_all(f"reload failed, {KEPT}", reasons(error))
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
            self._give_up(reasons(error))
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
        speak_by(found.settings)
        for note in found.notes:
            say(note)
        say("configuration reloaded", good=True)
        self._count("success")

    def _too_late(self, found: Candidate) -> None:
        late = ", ".join(map(str, sorted(self._waiting)))
        if self._switching:
            say(f"worker {late} is busy and will use the new configuration later")
            self._end(found)
        else:
            self._give_up((f"worker {late} did not get ready in time",))

    def _give_up(self, lines: Sequence[str]) -> None:
        self._candidate = None
        say_all(f"reload failed, {KEPT}", lines)
        self._tell("drop")
        self._count("failure")

    def _tell(self, word: str) -> None:
        for follower in self._followers.values():
            follower.channel.say(word)

    def _count(self, outcome: str) -> None:
        """Have one of the workers count it: the numbers of all are added up."""
        for follower in list(self._followers.values())[:1]:
            follower.channel.say(f"count {outcome}")
