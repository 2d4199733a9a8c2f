"""The faults: each breaks one thing, waits, and repairs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from chaos_parts.gates import MODES
from chaos_parts.stage import Instance, Stage, kill
from chaos_parts.stores import ClusterStore, RedisStore, SentinelStore, SqliteStore
from support.processes import wait_for

HOUR = 3600.0
CGROUP = Path("/sys/fs/cgroup/memory")
LOW_MEMORY = 1 << 20  # bytes that a worker may allocate in addition
RESTART_TIMEOUT = 45.0  # seconds; orphaned workers finish their requests first
RELOAD_TIMEOUT = 8.0
MAX_SECRETS = 8
FEW_DESCRIPTORS = 8  # fewer than a worker has open
LINK_FAULTS = 5  # of a round of all faults, because there are many links and modes


class Fault(NamedTuple):
    """A fault; *missing* returns why this stage cannot have it, "" if it can."""

    name: str
    run: Callable[
        [Stage, random.Random, float], contextlib.AbstractAsyncContextManager[str]
    ]
    missing: Callable[[Stage], str]


FAULTS: list[Fault] = []


def always(_stage: Stage) -> str:
    """Return "": every stage can have the fault."""
    return ""


def only(*kinds: type) -> Callable[[Stage], str]:
    """Return a condition: the store is one of *kinds*."""

    def missing(stage: Stage) -> str:
        names = " or ".join(kind.__name__ for kind in kinds)
        return "" if isinstance(stage.store, kinds) else f"needs {names}"

    return missing


def fault(
    missing: Callable[[Stage], str] = always,
) -> Callable[
    [Callable[[Stage, random.Random, float], AsyncIterator[str]]],
    Callable[[Stage, random.Random, float], AsyncIterator[str]],
]:
    """Register a generator: it breaks, yields a description, and repairs."""

    def register(
        function: Callable[[Stage, random.Random, float], AsyncIterator[str]],
    ) -> Callable[[Stage, random.Random, float], AsyncIterator[str]]:
        @contextlib.asynccontextmanager
        async def run(
            stage: Stage, dice: random.Random, seconds: float
        ) -> AsyncIterator[str]:
            steps = function(stage, dice, seconds)
            try:
                yield await anext(steps)
            finally:  # repair it also if another fault fails
                with contextlib.suppress(StopAsyncIteration):
                    await anext(steps)

        run.__doc__ = function.__doc__
        FAULTS.append(Fault(function.__name__, run, missing))
        return function

    return register


def pick(stage: Stage, dice: random.Random) -> Instance:
    """Return one of the instances."""
    return stage.instances[dice.randrange(len(stage.instances))]


def reset_links(stage: Stage, *gates: str) -> None:
    """Reset the open connections of *gates*, so that others must be opened."""
    for gate in gates:
        stage.network.ask(gate=gate, mode="reset")
        stage.network.ask(gate=gate)


@fault()
async def kill_worker(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """kill -9 of a worker; the supervisor replaces it."""
    instance = pick(stage, dice)
    workers = instance.workers
    kill(workers[dice.randrange(len(workers))])
    yield f"instance {instance.number}"


@fault()
async def kill_supervisor(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """kill -9 of a supervisor; the instance is started again as by systemd."""
    instance = pick(stage, dice)
    workers = instance.workers
    kill(instance.process.pid)
    yield f"instance {instance.number}"
    await asyncio.to_thread(instance.restart)
    left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    deadline = asyncio.get_running_loop().time() + RESTART_TIMEOUT
    while left and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.1)
        left = [pid for pid in left if is_alive(pid)]
    if left:
        raise RuntimeError(f"workers of a killed supervisor still run: {left}")


@fault(only(RedisStore))
async def kill_redis(
    stage: Stage, _dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """kill -9 of Redis, which keeps its data."""
    assert isinstance(stage.store, RedisStore)
    server = stage.store.server
    await asyncio.to_thread(server.kill)
    yield ""
    await asyncio.to_thread(server.start)


@fault(only(RedisStore))
async def freeze_redis(
    stage: Stage, _dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """A Redis that accepts connections, but does not respond."""
    assert isinstance(stage.store, RedisStore)
    with stage.store.server.frozen():
        yield ""


@fault(only(SentinelStore))
async def fail_over(
    stage: Stage, _dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """kill -9 of the master; the replica takes over, and the master returns."""
    store = stage.store
    assert isinstance(store, SentinelStore)
    await asyncio.to_thread(wait_for, store.has_replica, "the replica", 20.0)
    server = await asyncio.to_thread(store.fail_over)
    yield ""
    await asyncio.to_thread(server.start)


@fault(only(ClusterStore))
async def move_slots(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """Slots of one master move to another, and back."""
    store = stage.store
    assert isinstance(store, ClusterStore)
    first = dice.randrange(5000)
    target = dice.choice((1, 2))
    await asyncio.to_thread(store.move_slots, first, 0, target)
    yield f"slots {first}… to master {target}"
    await asyncio.to_thread(store.move_slots, first, target, 0)


@fault()
async def kill_provider(
    stage: Stage, _dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """The provider crashes; its state is as before when it returns."""
    await asyncio.to_thread(stage.provider.ask, do="kill")
    yield ""
    await asyncio.to_thread(stage.provider.ask, do="start")


@fault()
async def disturb_link(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """A gate between two programs delays, resets, drops, cuts or corrupts."""
    gate = dice.choice(sorted(stage.gates))
    modes = [one for one in MODES if one != "garbage"]
    # nginx would pass garbage on to the client, as a response of HTTP/0.9.
    mode = dice.choice(modes if gate.startswith("instance") else MODES)
    stage.network.ask(
        gate=gate, mode=mode, seconds=dice.choice((0.05, 0.5)), size=dice.randrange(400)
    )
    yield f"{gate}: {mode}"
    stage.network.ask(gate=gate)


@fault()
async def reload(
    stage: Stage, dice: random.Random, seconds: float
) -> AsyncIterator[str]:
    """Reloads of valid configurations while requests are in flight."""
    for _ in range(3):
        for instance in stage.instances:
            instance.configure(banner=f"{dice.random()}")
            with contextlib.suppress(ProcessLookupError):
                instance.process.signal(signal.SIGHUP)
        await asyncio.sleep(seconds / 6)
    yield ""


@fault()
async def reload_invalid(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """A reload of an invalid configuration, which must change nothing."""
    instance = pick(stage, dice)
    instance.write(dice.choice(("=", 'cookie_secret = "short"\n', "", "a = [\n")))
    instance.process.signal(signal.SIGHUP)
    yield f"instance {instance.number}"
    instance.configure()
    instance.process.signal(signal.SIGHUP)


@fault()
async def rotate_cookie_secret(
    stage: Stage, dice: random.Random, seconds: float
) -> AsyncIterator[str]:
    """A new secret: first accepted by both instances, then used by both."""
    old: list[str] = stage.instances[0].options["cookie_secrets"]
    new = f"{dice.getrandbits(128):032x}"
    detail = ""
    for keys in ([*old, new], [new, *old][:MAX_SECRETS]):
        for instance in stage.instances:
            if not detail and not await reload_with(instance, keys):
                detail = "not possible now"
    if detail:  # one instance may seal with the new secret already
        for instance in stage.instances:
            await reload_with(instance, [*old, new])
    yield detail


async def reload_with(instance: Instance, secrets: list[str]) -> bool:
    """Return whether *instance* has read its configuration with *secrets*.

    Another fault, such as too few descriptors, can prevent it.
    """
    instance.configure(cookie_secrets=secrets)
    mark = instance.process.log().count("reloaded")
    with contextlib.suppress(ProcessLookupError):
        instance.process.signal(signal.SIGHUP)
    try:
        await asyncio.to_thread(
            wait_for,
            lambda: instance.process.log().count("reloaded") > mark,
            "a reload",
            RELOAD_TIMEOUT,
        )
    except TimeoutError:
        return False
    return True


@fault()
async def rotate_provider_keys(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """The provider signs with new keys; sometimes the old ones are withdrawn."""
    keeps = dice.random() < 0.5
    await asyncio.to_thread(stage.provider.ask, do="rotate", value=float(keeps))
    yield "" if keeps else "old keys withdrawn"


@fault(lambda stage: "" if stage.has_clock else "Keycloak has another clock")
async def step_clock(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """The clocks of all programs step by an hour, and stay there."""
    stage.clock = stage.clock + HOUR if stage.clock <= 0 else stage.clock - HOUR
    stage.set_clock(stage.clock)
    await asyncio.to_thread(stage.provider.ask, do="clock", value=stage.clock)
    yield f"to {stage.clock:+.0f} s"


@fault(lambda stage: "" if stage.has_dns else "needs mount namespaces and port 53")
async def dns_away(
    stage: Stage, _dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """The DNS server does not respond."""
    stage.network.ask(dns=False)
    reset_links(stage, "provider", "app")
    yield ""
    stage.network.ask(dns=True)


@fault(
    lambda stage: (
        ""
        if getattr(stage.store, "refusal", "-") == ""
        else "needs a small SQLite disk"
    )
)
async def full_disk(
    stage: Stage, _dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """The disk of the SQLite store is full."""
    store = stage.store
    assert isinstance(store, SqliteStore)
    filler = store.disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield ""
    filler.unlink()


@fault()
async def few_descriptors(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """A worker may open no more files."""
    instance = pick(stage, dice)
    pid = dice.choice(instance.workers)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, before[1]))
    reset_links(stage, f"instance-{instance.number}", "app")
    yield f"instance {instance.number}"
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@fault(
    lambda stage: (
        ""
        if os.access(CGROUP, os.W_OK) and (CGROUP / "memory.limit_in_bytes").exists()
        else "needs cgroups v1 with a memory controller"
    )
)
async def memory_limit(
    stage: Stage, dice: random.Random, _seconds: float
) -> AsyncIterator[str]:
    """A worker reaches the memory limit of its cgroup."""
    instance = pick(stage, dice)
    pid = dice.choice(instance.workers)
    group = CGROUP / f"chaos-{os.getpid()}"
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(LOW_MEMORY))
    (group / "cgroup.procs").write_text(str(pid))
    yield f"instance {instance.number}"
    (group / "memory.limit_in_bytes").write_text("-1")
    with contextlib.suppress(OSError):
        (CGROUP / "cgroup.procs").write_text(str(pid))
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            break
        await asyncio.sleep(0.05)


def available(stage: Stage) -> tuple[list[Fault], dict[str, str]]:
    """Return the faults that the stage can have, and why it cannot have the others."""
    if shutil.which("unshare") is None:
        stage.has_dns = False
    reasons = {one.name: one.missing(stage) for one in FAULTS}
    found = [one for one in FAULTS if not reasons[one.name]]
    found += [one for one in found if one.name == "disturb_link"] * (LINK_FAULTS - 1)
    return found, {name: why for name, why in reasons.items() if why}


def is_alive(pid: int) -> bool:
    """Return whether a process runs and is no zombie."""
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
