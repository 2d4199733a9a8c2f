"""Several processes with one store; their flows are interleaved effect by effect.

`MemoryStore` is a store without I/O and with a manual clock. `Fleet` runs flows of
several processes concurrently. A seed determines the interleaving, so a test can try
many and reproduce each.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from authproxy_core import (
    Add,
    AuthProxy,
    Decision,
    Delete,
    Load,
    LoadAll,
    Lock,
    Members,
    Outcome,
    Remove,
    Respond,
    Save,
    Settings,
    StoreError,
    Unlock,
)
from authproxy_core.messages import Header

from .harness import Harness, keep_cookies

BUSY = object()  # the result of a lock that another process holds
STORE_EFFECTS = (Load, LoadAll, Save, Delete, Add, Members, Remove)


class MemoryStore:
    """Values, sets and locks with a TTL; calls its listeners for each change."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.values: dict[str, tuple[bytes, float]] = {}
        self.sets: dict[str, dict[bytes, float]] = {}
        self.locks: dict[str, tuple[object, float]] = {}
        self.listeners: list[Callable[[str | None], None]] = []
        self.away = False
        self.failing: Callable[[Any], bool] = lambda effect: False
        self.seen: list[Any] = []

    def held(self, part: str = "") -> list[str]:
        """Return the existing keys that contain *part*, sorted."""
        now = self.clock()
        found = [key for key, (_, until) in self.values.items() if now < until]
        found += [key for key, members in self.sets.items() if members]
        return sorted(key for key in found if part in key)

    def tickets(self) -> list[str]:
        """Return the keys of the stored sessions, sorted."""
        return [key for key in self.held() if re.search("-[0-9a-f]{32}$", key)]

    def get(self, key: str) -> bytes | None:
        """Return the value of a key, None if it has none."""
        value, until = self.values.get(key, (None, 0.0))
        return value if self.clock() < until else None

    def put(self, key: str, value: bytes, ttl: float) -> None:
        """Set a value, as another program would."""
        self.values[key] = (value, self.clock() + ttl if ttl else float("inf"))
        self._notify(key)

    def _notify(self, key: str) -> None:
        for listener in self.listeners:
            listener(key)

    def perform(self, effect: Any, owner: object) -> Any:
        """Return the result of an effect, or `BUSY`."""
        self.seen.append(effect)
        if self.away or self.failing(effect):
            raise StoreError("store unavailable")
        now = self.clock()
        match effect:
            case Load(key):
                return self.get(key)
            case LoadAll(keys):
                return tuple(self.get(key) for key in keys)
            case Save(key, value, ttl, expected):
                if expected is not None and (self.get(key) or b"") != expected:
                    return False
                self.put(key, value, ttl)
                return True
            case Delete(key):
                self.values.pop(key, None)
                self._notify(key)
            case Add(key, member, ttl):
                self.sets.setdefault(key, {})[member] = now + ttl
            case Members(key):
                found = self.sets.get(key, {})
                return tuple(member for member, until in found.items() if now < until)
            case Remove(key, member):
                self.sets.get(key, {}).pop(member, None)
            case Lock(key, ttl):
                held = self.locks.get(key)
                if held is not None and now < held[1]:
                    return BUSY
                self.locks[key] = (owner, now + ttl)
                return True
            case Unlock(key):
                if self.locks.get(key, (None,))[0] is owner:
                    del self.locks[key]
        return None

    def count(self, kind: type) -> int:
        """Return the number of performed effects of a type."""
        return sum(type(effect) is kind for effect in self.seen)


class Process:
    """One proxy of a fleet, with its local locks."""

    def __init__(self, fleet: Fleet, settings: Settings, *, trusting: bool) -> None:
        self.fleet = fleet
        self.harness = fleet.harness
        self.proxy: AuthProxy = fleet.harness.new_proxy(settings)
        self.harness.run(self.proxy.warm_up())
        self.local: dict[str, object] = {}
        self.prefix = settings.cookie.name
        if trusting:
            self.proxy.store_notifies = True
            fleet.store.listeners.append(lambda key: self.proxy.store_changed(key))

    def perform(self, effect: Any, owner: object) -> Any:
        """Return the result of an effect, or `BUSY`."""
        if isinstance(effect, STORE_EFFECTS):
            return self.fleet.store.perform(effect, owner)
        if isinstance(effect, Lock | Unlock):
            if not effect.local:
                assert effect.key.startswith(f"{self.prefix}-")
                return self.fleet.store.perform(effect, owner)
            if isinstance(effect, Unlock):
                return self.local.pop(effect.key, None)
            if effect.key in self.local:
                return BUSY
            self.local[effect.key] = owner
            return True
        return self.harness.perform(effect)

    def get(
        self, target: str, *fields: Header, jar: dict[bytes, bytes] | None = None
    ) -> Respond:
        """Return the response to a request; the jar stores its cookies."""
        cookies = self.harness.jar if jar is None else jar
        outcome = self.proxy.handle(self.harness.request(target, *fields, jar=cookies))
        [answer] = self.fleet.together([(self, outcome)])
        assert isinstance(answer, Respond)
        keep_cookies(cookies, answer)
        return answer

    def run(self, flow: Any) -> Any:
        """Run a flow of this process; return its result."""
        [result] = self.fleet.together([(self, flow)])
        return result

    def log_in(self, user: str = "alice", jar: dict[bytes, bytes] | None = None) -> Any:
        """Log in; return the response of the callback."""
        cookies = self.harness.jar if jar is None else jar
        started = self.get("/oauth2/start?rd=/", jar=cookies)
        [location] = [v for n, v in started.headers if n == b"location"]
        url = self.harness.idp.log_in(location.decode(), user)
        return self.get(url[url.index("/oauth2") :], jar=cookies)


class Fleet:
    """Processes with equal settings that share a store, a provider and a clock."""

    def __init__(
        self, settings: Settings, *, size: int = 2, trusting: bool = True, seed: int = 0
    ) -> None:
        self.harness = Harness(settings)
        self.clock = self.harness.clock
        self.idp = self.harness.idp
        self.store = MemoryStore(self.clock)
        self.random = random.Random(seed)
        self.processes = [
            Process(self, settings, trusting=trusting) for _ in range(size)
        ]

    def __getitem__(self, number: int) -> Process:
        return self.processes[number]

    def join(self, settings: Settings, *, trusting: bool = True) -> Process:
        """Add a process with the given settings."""
        process = Process(self, settings, trusting=trusting)
        self.processes.append(process)
        return process

    def check_together(
        self, count: int, jar: dict[bytes, bytes], target: str = "/oauth2/auth"
    ) -> list[Respond]:
        """Send *count* requests with the same cookies to all processes in turn."""
        outcomes = [
            (process, process.proxy.handle(self.harness.request(target, jar=jar)))
            for number in range(count)
            for process in [self.processes[number % len(self.processes)]]
        ]
        answers = self.together(outcomes)
        assert all(isinstance(answer, Respond) for answer in answers)
        return answers

    def together(self, work: list[tuple[Process, Any]]) -> list[Any]:
        """Run flows (or decisions) concurrently; return their results."""
        runs = [Run(process, outcome) for process, outcome in work]
        self.finish(*runs)
        return [run.result for run in runs]

    def finish(self, *runs: Run) -> None:
        """Run flows to their end, in an order from the seed."""
        while waiting := [run for run in runs if not run.done]:
            self.random.shuffle(waiting)
            if not any(run.step() for run in waiting):
                self.clock.now += 1.0  # all flows wait for locks
                for run in waiting:
                    run.waited += 1.0


class Run:
    """A running flow and its pending effect."""

    def __init__(self, process: Process, outcome: Outcome | Decision) -> None:
        self.process = process
        self.done = not hasattr(outcome, "send")
        self.result: Any = outcome
        self.flow: Any = outcome
        self.effect: Any = None
        self.waited = 0.0
        if not self.done:
            self._go(lambda: next(self.flow))

    def step(self) -> bool:
        """Perform the pending effect; return False if it has to wait."""
        try:
            answer = self.process.perform(self.effect, self)
        except Exception as error:
            self._go(lambda error=error: self.flow.throw(error))
            return True
        if answer is BUSY:
            if self.waited < self.effect.wait:
                return False
            answer = False
        self.waited = 0.0
        self._go(lambda: self.flow.send(answer))
        return True

    def _go(self, step: Callable[[], Any]) -> None:
        try:
            self.effect = step()
        except StopIteration as stop:
            self.done, self.result = True, stop.value
