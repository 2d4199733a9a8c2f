"""Measures one flood against one program."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import proxied
import websockets as websocket_bench
from flood_kinds.kinds import Flood
from flood_kinds.link import Order
from flood_kinds.targets import PYTHONPATH, Scene, Target

IDLE_SECONDS = 3.0
AFTER_SECONDS = 1.0  # of a check whether the server is as before
RECOVERY = 10.0  # seconds
SAMPLE_INTERVAL = 0.25  # seconds between two readings of the memory
MAX_RATIO, MAX_GROWTH = 5.0, 32.0  # goals: p99 to idle p99, MB
SLACK_MS = 5.0  # a p99 this far above the idle one is as before
SLACK_DESCRIPTORS = 16
MAX_BYTES, MAX_REQUESTS, MAX_CONNECTS = 8e6, 2000.0, 400.0  # per second, in all
EACH_BYTES, EACH_REQUESTS, EACH_CONNECTS = 2e6, 400.0, 100.0  # of one attacker
TLS_CONNECTS = 0.5  # factor, because a handshake costs both sides more


def measure(
    scene: Scene, flood: Flood, name: str, attackers: int, seconds: float, number: int
) -> dict[str, Any]:
    """Return one row; raises `Skipped` if this machine does not allow the flood."""
    with contextlib.ExitStack() as stack:
        target = scene.start(stack, name, flood.variant, number)
        client = Client(stack, target, tls=flood.variant.tls)
        client.measure(1.0)  # warm up
        idle = client.measure(IDLE_SECONDS)
        before = State(target)
        start, cpu = time.monotonic(), cpu_seconds(target.pid)
        with Memory(target.pid) as memory:
            attack = start_attack(stack, flood, target, attackers, seconds)
            during = client.measure(seconds)
            used = cpu_seconds(target.pid) - cpu
            elapsed = time.monotonic() - start
            totals = [json.loads(process.communicate()[0]) for process in attack]
        since = time.monotonic()
        left, recovered = recovery(client, target, before, idle, since)
        sums = {key: sum(total[key] for total in totals) for key in totals[0]}
        return {
            "flood": flood.name,
            "program": name,
            "attackers": attackers,
            "idle": idle,
            "during": during,
            "p50_ratio": during["p50_ms"] / idle["p50_ms"],
            "p99_ratio": during["p99_ms"] / idle["p99_ms"],
            "rss_growth_mb": memory.growth("rss_kb"),
            "pss_growth_mb": memory.growth("pss_kb"),
            "recovered_s": recovered,
            "lasting": left,
            "server_cpu": used / elapsed,
            "attackers_cpu": sums.pop("cpu_seconds") / elapsed,
            "attack": sums,
        }


class Client:
    """The well-behaved client."""

    def __init__(
        self, stack: contextlib.ExitStack, target: Target, *, tls: bool
    ) -> None:
        kind = "tls" if tls else "plain"
        self._process = stack.enter_context(
            python("flood_kinds.probe", str(target.check_port), kind, target.cookies)
        )
        stack.callback(self._process.kill)

    def measure(self, seconds: float) -> dict[str, Any]:
        """Return the latencies of *seconds*."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


class State:
    """Processes, descriptors and memory of a server, and its tracebacks."""

    def __init__(self, target: Target) -> None:
        self.pids = websocket_bench.tree(target.pid)
        self.descriptors = sum(descriptors(pid) for pid in self.pids)
        self.pss = websocket_bench.memory(target.pid)["pss_kb"] / 1024
        self.tracebacks = target.log().count("Traceback (most recent call last)")


class Memory(threading.Thread):
    """The peak memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._stop_event = threading.Event()
        self._first = websocket_bench.memory(pid)
        self._peak = dict(self._first)

    def run(self) -> None:
        """Sample until the end of the block."""
        while not self._stop_event.wait(SAMPLE_INTERVAL):
            with contextlib.suppress(OSError):
                for key, value in websocket_bench.memory(self._pid).items():
                    self._peak[key] = max(self._peak[key], value)

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_event.set()
        self.join()

    def growth(self, key: str) -> float:
        """Return the growth in MB."""
        return (self._peak[key] - self._first[key]) / 1024


def start_attack(
    stack: contextlib.ExitStack,
    flood: Flood,
    target: Target,
    attackers: int,
    seconds: float,
) -> list[subprocess.Popen[str]]:
    """Start the attacker processes: one, or two for many attackers."""
    processes = 1 if attackers < 20 or flood.total else 2
    connects = min(MAX_CONNECTS, EACH_CONNECTS * attackers)
    if flood.total:
        connects = flood.total / max(1.0, seconds / 2)
    elif flood.connections > 1:
        connects = max(connects, flood.connections * attackers / max(1.0, seconds / 2))
    connects *= TLS_CONNECTS if flood.alpn else 1
    cookie = target.cookies.read_bytes().splitlines()[0].decode()
    started = []
    for number in range(processes):
        order = Order(
            flood.name,
            target.ports[flood.port],
            flood.variant.tls,
            target.source,
            attackers // processes,
            number,
            seconds,
            min(MAX_BYTES, EACH_BYTES * attackers) / processes,
            min(MAX_REQUESTS, EACH_REQUESTS * attackers) / processes,
            connects / processes,
            cookie,
        )
        process = stack.enter_context(python("flood_kinds.attacker"))
        stack.callback(process.kill)
        assert process.stdin is not None
        process.stdin.write(json.dumps(order._asdict()) + "\n")
        process.stdin.flush()
        started.append(process)
    return started


def recovery(
    client: Client, target: Target, before: State, idle: dict[str, Any], since: float
) -> tuple[list[str], float]:
    """Return what is not as before after `RECOVERY`, and the time that it took."""
    while True:
        after = client.measure(AFTER_SECONDS)
        left = differences(State(target), before)
        limit = max(2 * idle["p99_ms"], idle["p99_ms"] + SLACK_MS)
        if after["p99_ms"] > limit or after["problems"]:
            left.append(f"p99 {after['p99_ms']:.1f} ms {after['problems'] or ''}")
        took = time.monotonic() - since
        if not left or took >= RECOVERY:
            return left, took


def differences(after: State, before: State) -> list[str]:
    """Return the differences between two states."""
    left = []
    if after.pids != before.pids:
        left.append(f"processes {before.pids} -> {after.pids}")
    if after.descriptors > before.descriptors + SLACK_DESCRIPTORS:
        left.append(f"descriptors {before.descriptors} -> {after.descriptors}")
    if after.pss > before.pss + MAX_GROWTH:
        left.append(f"memory {before.pss:.0f} -> {after.pss:.0f} MB")
    if after.tracebacks > before.tracebacks:
        left.append(f"{after.tracebacks - before.tracebacks} tracebacks in the log")
    return left


def python(module: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a module of the benchmarks."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )


def descriptors(pid: int) -> int:
    """Return the number of open files of a process."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children; 0 if it has exited."""
    with contextlib.suppress(OSError):
        return proxied.cpu_seconds(pid)
    return 0.0
