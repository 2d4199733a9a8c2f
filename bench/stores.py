#!/usr/bin/env python3
"""Measure auth checks per second with sessions in Redis.

    python bench/stores.py [--rounds N] [--seconds N] [--connections N] [--sqlite]
                           [--warm N] [--cold N] [--output FILE]

Requires wrk and redis-server, and oauth2-proxy for the comparison. The programs use one
local Redis with the same number of sessions. Warm: a few sessions repeat. Cold: every
request has another session, so each check reads Redis. ``--sqlite`` adds authproxy with
sessions in a SQLite file. The CPU time of a check includes the processes of the proxy and
Redis; it depends less on other load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import hiredis  # noqa: E402
import msgspec  # noqa: E402

import run  # noqa: E402
import sessions  # noqa: E402
from authproxy.stores import sqlite_file  # noqa: E402
from authproxy_core import Add, Save, Session, drive_sync  # noqa: E402
from authproxy_core.sessions.sessions import Sessions  # noqa: E402
from authproxy_core.settings.root import CookieSettings, SessionSettings, Settings  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from run import cpu_seconds  # noqa: E402
from support.processes import Process  # noqa: E402
from support.programs import find  # noqa: E402
from support.redis import RedisServer  # noqa: E402

TTL = 3600.0  # seconds
Put = Callable[[Any], None]


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/stores.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--warm", type=int, default=200)
    parser.add_argument("--cold", type=int, default=24_000)
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if find("wrk") is None or find("redis-server") is None:
        print("wrk and redis-server are required")
        return 1
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        rows = measure(stack, Path(name), options)
    for row in rows:
        print(
            f"{row['case']:5} {row['program']:20} {row['rate']:10,.0f}/s"
            f"  p50 {row['p50_ms']:7.2f} ms  p99 {row['p99_ms']:7.2f} ms"
            f"  CPU {row['proxy_us']:6.1f} µs + Redis {row['redis_us']:5.1f} µs per check"
        )
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


class Contestant(msgspec.Struct):
    """A running proxy and the files of its cookies."""

    port: int
    process: Process
    files: dict[str, Path]


def measure(
    stack: contextlib.ExitStack, folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row per case and program with the medians of all rounds."""
    redis = stack.enter_context(RedisServer(folder))
    running = stack.enter_context(serve(DevProvider(ProviderConfig())))
    session = sessions.realistic_session(running.url)
    in_redis = f'session_store_type = "redis"\nredis_connection_url = "{redis.url}"\n'
    backends = {"authproxy": in_redis, "oauth2-proxy": in_redis}
    if options.sqlite:
        path = folder / "sessions.db"
        in_file = f'session_store_type = "sqlite"\nsqlite_path = "{path}"\n'
        backends["authproxy, SQLite"] = in_file
    found = {}
    for name, backend in backends.items():
        program = name.partition(",")[0]
        if program == "oauth2-proxy" and find(program) is None:
            continue
        files = {}
        for case, count in (("warm", options.warm), ("cold", options.cold)):
            files[case] = folder / f"{name}-{case}.txt"
            put = into_file(path) if "SQLite" in name else into_redis(redis)
            fill(
                files[case], put, session, count, oauth2_proxy=program == "oauth2-proxy"
            )
        directory = folder / name.replace(", ", "-")
        directory.mkdir()
        port, process = run.start_proxy(
            stack, directory, program, running.url, extra=backend
        )
        found[name] = Contestant(port, process, files)
    return [
        row
        for case in ("warm", "cold")
        for row in measure_case(case, found, redis, options)
    ]


def measure_case(
    case: str,
    found: dict[str, Contestant],
    redis: RedisServer,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Return one row per program with the medians of the rounds."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
    for _ in range(options.rounds):
        for name, one in found.items():
            before = cpu_seconds(one.process.pid), cpu_seconds(redis.pid)
            result = run.wrk(
                one.port, one.files[case], options.connections, options.seconds
            )
            after = cpu_seconds(one.process.pid), cpu_seconds(redis.pid)
            used = [
                (end - start) / result["requests"] * 1e6
                for start, end in zip(before, after, strict=True)
            ]
            results[name].append({**result, "proxy_us": used[0], "redis_us": used[1]})
    keys = ("rate", "p50_ms", "p99_ms", "proxy_us", "redis_us")
    return [
        {
            "case": case,
            "program": name,
            **{key: statistics.median(one[key] for one in rounds) for key in keys},
            "rounds": rounds,
        }
        for name, rounds in results.items()
    ]


# -- sessions


def fill(
    file: Path, put: Put, session: Session, count: int, *, oauth2_proxy: bool
) -> None:
    """Write *count* sessions to a store, and their cookies to *file*."""
    settings = Settings(
        cookie=CookieSettings(
            name=sessions.NAME,
            secrets=(sessions.SECRET,),
            format="oauth2-proxy" if oauth2_proxy else "authproxy",
        ),
        sessions=SessionSettings(backend="store", shared=True),
    )
    writer = Sessions(
        settings,
        provider_ids=[session.provider],
        clock=time.time,
        random_bytes=os.urandom,
    )
    with file.open("wb") as stream:
        for number in range(count):
            one = msgspec.structs.replace(
                session,
                provider="",
                created_at=time.time(),
                login_at=time.time(),
                user=f"user-{number}",
                email=f"user-{number}@example.com",
            )
            kept = drive_sync(writer.create(one, (), host="localhost"), put)
            [(_, cookie)] = kept.headers
            stream.write(cookie.partition(b";")[0] + b"\n")


def into_redis(server: RedisServer) -> Put:
    """Return a function that performs saves in Redis, without the session index."""
    import socket

    connection = socket.create_connection((server.address.host, server.port))
    reader = hiredis.Reader()

    def put(effect: Any) -> None:
        if not isinstance(effect, Save) or ":" in effect.key:
            return
        command = ("SET", effect.key, effect.value, "EX", int(TTL))
        connection.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]
        while (reply := reader.gets()) is False:
            reader.feed(connection.recv(4096))
        assert reply == b"OK", reply

    return put


def into_file(path: Path) -> Put:
    """Return a function that performs saves in a SQLite file."""
    connection = sqlite_file.open_database(str(path))

    def put(effect: Any) -> None:
        now = time.time()
        match effect:
            case Save(key, value, _):
                sqlite_file.save(connection, key, value, now + TTL, now)
            case Add(key, member, _):
                sqlite_file.add(connection, key, member, now + TTL, now)

    return put


if __name__ == "__main__":
    sys.exit(main())
