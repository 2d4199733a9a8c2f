"""Error replies of Redis: each makes the store unavailable and names a remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from authproxy.server_settings import RedisSettings, StoreSettings
from authproxy.stores.redis_errors import REMEDIES, ReplyError
from authproxy_core.settings import Secret
from support.ports import LOOPBACK, free_port
from support.processes import wait_for
from support.program import Program
from support.programs import find
from support.redis import ClusterSetup, RedisServer
from support.scripted import run
from support.stores import Watched

pytestmark = pytest.mark.skipif(
    find("redis-server") is None, reason="redis-server isn't installed"
)


def watch(
    body: Callable[[Watched], Awaitable[None]], *servers: Any, **values: Any
) -> None:
    """Run *body* with a store at *servers*."""
    addresses = tuple(server.address for server in servers)
    redis = RedisSettings(addresses=addresses, **values)

    async def main() -> None:
        async with Watched(StoreSettings(kind="redis", redis=redis)) as watched:
            await body(watched)

    run(main(), "uvloop")


def error_of(*servers: Any, **values: Any) -> str:
    """Return the error of a store at *servers*, which never becomes available."""
    found = []

    async def body(watched: Watched) -> None:
        await watched.until(lambda store: "redis: " in store.error, "the error reply")
        assert not any(available for available, _ in watched.states)
        found.append(watched.store.error)

    watch(body, *servers, **values)
    return str(found[0])


@pytest.mark.parametrize(
    ("lines", "values", "reply", "remedy"),
    [
        ((f"replicaof {LOOPBACK} 1",), {}, "READONLY", "set redis_connection_url to its"),
        (("requirepass pw",), {}, "NOAUTH", "set redis_password"),
        (("requirepass pw",), {"password": Secret("no")}, "WRONGPASS", "check redis_user"),
        ((), {"password": Secret("no")}, "ERR AUTH", "unset redis_password"),
        ((), {"db": 99}, "ERR DB index", "set another database"),
        (("maxmemory 1",), {}, "OOM", "raise maxmemory"),
        (("user default on nopass ~* +@all -set",), {}, "'set'", "grant the Redis user"),
        (("user default on nopass ~* +@all -get",), {}, "'get'", "grant the Redis user"),
        (("user default on nopass ~* +@all -del",), {}, "'del'", "grant the Redis user"),
        (("user default on nopass ~a* +@all",), {}, "NOPERM", "grant the Redis user"),
        ((), {"mode": "cluster"}, "ERR This instance", "unset redis_use_cluster"),
        ((), {"mode": "sentinel", "master_name": "m"}, "ERR unknown", "must name sentin"),
    ],
)  # fmt: skip
def test_error_reply_named_with_remedy(
    tmp_path: Path, lines: tuple[str, ...], values: Any, reply: str, remedy: str
) -> None:
    with RedisServer(tmp_path, *lines) as server:
        error = error_of(server, **values)
    assert reply in error
    assert remedy in error


def test_sentinel_as_server_named(tmp_path: Path) -> None:
    with RedisServer(tmp_path, f"dir {tmp_path}", sentinel=True) as server:
        assert "set redis_use_sentinel" in error_of(server)


def test_unwritable_snapshot_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with RedisServer(tmp_path, f"dir {folder}", "save 1000 1") as server:
        folder.rmdir()
        server.ask("SET", "a", "b")
        server.ask("BGSAVE")
        wait_for(lambda: "MISCONF" in server.ask("SET", "a", "b"), "the failure")
        assert "cannot write its data to disk" in error_of(server)


def test_loading_waits_until_data_are_read(tmp_path: Path) -> None:
    """Each of 50 keys takes a fifth of a second until the delay is removed."""
    redis = RedisServer(tmp_path, "rdbcompression no")
    with redis:
        for number in range(50):
            redis.ask("SET", f"key{number}", "v" * 3000)
        redis.ask("SAVE")
    with redis._config.open("a") as config:
        config.write(
            "key-load-delay 200000\nloading-process-events-interval-bytes 1024\n"
        )

    async def body(watched: Watched) -> None:
        start = asyncio.ensure_future(asyncio.to_thread(redis.start))
        await watched.until(lambda store: "LOADING" in store.error, "the error")
        assert REMEDIES["LOADING"] in watched.store.error
        await asyncio.to_thread(redis.ask, "CONFIG", "SET", "key-load-delay", "0")
        await watched.ready()
        await start

    try:
        watch(body, redis)
    finally:
        redis.stop()


def test_cluster_node_as_single_server_named_at_start(tmp_path: Path) -> None:
    """It stays unavailable, although it has some of the keys itself."""
    with ClusterSetup(tmp_path) as cluster:
        for server in (cluster.servers[0], cluster.servers[3]):
            error = error_of(server)
            assert "MOVED" in error
            assert "set redis_use_cluster and redis_cluster_connection_urls" in error


def test_replica_causes_one_line_and_not_ready_until_promoted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        replica = RedisServer(tmp_path, f"replicaof {LOOPBACK} {free_port()}")
        stack.enter_context(replica)
        program = stack.enter_context(
            Program(
                tmp_path,
                session_store_type="redis",
                redis_connection_url=replica.url,
            )
        )
        line = "session store unavailable:"
        wait_for(lambda: line in program.log(), "the line")
        replica.ask("REPLICAOF", "NO", "ONE")
        wait_for(lambda: "store available again" in program.log(), "the recovery")
        assert program.log().count(line) == 1
        assert "READONLY" in program.log()
        assert "set redis_connection_url to its master" in program.log()


def test_reply_error_without_remedy_is_the_reply() -> None:
    assert str(ReplyError("ERR value is not an integer")) == (
        "redis: ERR value is not an integer"
    )
