#!/usr/bin/env python3
"""Break things at random while sessions are in constant use; check every response.

    python bench/chaos.py [--minutes N] [--seed N] [--store KIND[,KIND...]] [--users N]
                          [--sessions N] [--rate N] [--refresh N] [--rounds N] [--observe N]
                          [--only FAULT[,FAULT...]] [--output FILE] [--logs FOLDER] [--keycloak]
                          [--untimed] [--list]

Two instances of authproxy with two workers each are behind nginx. All links have gates.
Each response is checked: whether it has the identity that belongs to its cookie, and
whether a proxied one belongs to its request. KIND is cookie, redis, sentinel, cluster or
sqlite; several share the minutes. The seed determines the sequence of the faults.

The report counts wrong identities, sessions that ended before their lifetime, refresh
tokens that were used twice, tracebacks in the logs, responses with other statuses than
200, 202, 401, 502, 503 and 504, and the time after each repair until no request fails.
The exit code is 1 unless all are zero and that time is at most two seconds; ``--untimed``
ignores the time. ``--keycloak`` takes Keycloak as the provider instead of the development
provider; it has no clock steps, and its refresh tokens are not counted. ``--rounds`` ends the run of each store earlier, ``--refresh`` is the age
in seconds at which sessions are refreshed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("bench", "tests", "server", "core")]

import uvloop  # noqa: E402

from chaos_parts.faults import FAULTS, Fault, available  # noqa: E402
from chaos_parts.stage import Stage  # noqa: E402
from chaos_parts.stores import STORES  # noqa: E402
from chaos_parts.traffic import Traffic  # noqa: E402
from chaos_parts.verdict import Verdict, print_report  # noqa: E402
from support.programs import find  # noqa: E402

QUIET = 1.0  # seconds before a fault
OBSERVATION = 5.0  # seconds after a repair
SECOND_FAULT = 0.25  # probability of two faults at once


def main() -> int:
    """Run; print the report."""
    options = parse()
    if options.list:
        for one in FAULTS:
            print(f"{one.name:24} {(one.run.__doc__ or '').strip()}")
        return 0
    for name in ("nginx", "redis-server"):
        if find(name) is None:
            print(f"{name} is not installed")
            return 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    verdicts = []
    for kind in options.store.split(","):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            stage = Stage(
                stack,
                Path(folder) / kind,
                store=kind,
                users=options.users,
                seed=options.seed,
                refresh=options.refresh,
                keycloak=options.keycloak,
            )
            verdicts.append(uvloop.run(run(stage, options)))
            if options.logs is not None:
                for instance in stage.instances:
                    source = instance.process.log_file
                    shutil.copy(source, options.logs / f"{kind}-{source.name}")
        print_report(verdicts[-1])
    if options.output is not None:
        documents = [verdict.document() for verdict in verdicts]
        options.output.write_text(json.dumps(documents, indent=1) + "\n")
    good = all(verdict.is_good(timed=not options.untimed) for verdict in verdicts)
    return 0 if good else 1


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="bench/chaos.py")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", default=",".join(STORES))
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--refresh", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--observe", type=float, default=OBSERVATION)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--logs", type=Path)
    parser.add_argument("--keycloak", action="store_true")
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    for kind in options.store.split(","):
        if kind not in STORES:
            parser.error(f"no store {kind!r}; one of {', '.join(STORES)}")
    for name in filter(None, options.only.split(",")):
        if name not in [one.name for one in FAULTS]:
            parser.error(f"no fault {name!r}; --list names them")
    options.seconds = options.minutes * 60 / len(options.store.split(","))
    return options


async def run(stage: Stage, options: argparse.Namespace) -> Verdict:
    """Run the traffic and the faults; return the verdict."""
    faults, skipped = available(stage)
    wanted = options.only.split(",") if options.only else []
    faults = [one for one in faults if not wanted or one.name in wanted]
    traffic = Traffic(
        stage.port, stage.provider_port, stage.sign_in, options.users, options.seed
    )
    await traffic.fill(options.sessions)
    stop = asyncio.Event()
    task = asyncio.create_task(traffic.run(options.rate, stop))
    dice = random.Random(options.seed)
    verdict = Verdict(stage, traffic, skipped, options.seed)
    end = time.monotonic() + options.seconds
    order: list[Fault] = []
    while time.monotonic() < end and len(verdict.rounds) != (options.rounds or -1):
        if len(order) < 2:  # every fault once, in a new order, before one comes again
            order += dice.sample(faults, len(faults))
        count = 2 if len(order) > 1 and dice.random() < SECOND_FAULT else 1
        chosen = [order.pop(0) for _ in range(min(count, len(order)))]
        await asyncio.sleep(QUIET)
        await one_round(stage, traffic, dice, chosen, verdict, options.observe)
    stop.set()
    await task
    verdict.finish()
    return verdict


async def one_round(
    stage: Stage,
    traffic: Traffic,
    dice: random.Random,
    chosen: list[Fault],
    verdict: Verdict,
    observe: float,
) -> None:
    """Break, wait, repair, observe."""
    seconds = dice.uniform(1.0, 4.0)
    names: list[str] = []
    started = time.monotonic()
    try:
        async with contextlib.AsyncExitStack() as stack:
            for one in chosen:
                names.append(one.name)
                traffic.active = list(names)
                detail = await stack.enter_async_context(one.run(stage, dice, seconds))
                names[-1] = f"{one.name} {detail}".strip()
                traffic.clock = stage.clock
                traffic.active = list(names)
            await asyncio.sleep(seconds)
    except Exception as error:  # a failed fault is a result
        verdict.problems.append(f"{', '.join(names)}: {type(error).__name__}: {error}")
    repaired = time.monotonic()
    traffic.active = [f"after {name}" for name in names]
    await asyncio.sleep(observe)
    verdict.round(", ".join(names), started, repaired)


if __name__ == "__main__":
    sys.exit(main())
