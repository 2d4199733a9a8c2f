"""Redis outages: unavailable, suspended, full, failed over; and the recovery."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import hiredis
import pytest

from authproxy.server_settings import RedisAddress, RedisSettings, StoreSettings
from authproxy.stores.base import MAX_VALUE, Store
from authproxy.stores.redis_cluster import slot_of
from authproxy_core.errors import StoreError
from authproxy_core.settings.root import Secret
from support.certificates import make_certificate
from support.ports import LOOPBACK
from support.programs import find
from support.redis import (
    MASTER_NAME,
    PASSWORD,
    SENTINEL_PASSWORD,
    ClusterSetup,
    RedisServer,
    SentinelSetup,
    wait_for_copy,
    with_socket,
    with_tls_and_user,
)
from support.scripted import Peer, ScriptedServer, run
from support.stores import NAME, RemoteStore, Watched

pytestmark = pytest.mark.skipif(
    find("redis-server") is None, reason="redis-server isn't installed"
)
MAX_OPERATION = 10.0  # seconds; an operation that takes longer hangs
KEY = f"{NAME}-{'0' * 32}"
Body = Callable[[Watched], Awaitable[None]]


def in_redis(*addresses: RedisAddress, **values: object) -> StoreSettings:
    """Return settings of a Redis store."""
    redis = RedisSettings(addresses=addresses, **values)  # type: ignore[arg-type]
    return StoreSettings(kind="redis", redis=redis)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis server."""
    with RedisServer(tmp_path) as running:
        yield running


def with_watched(settings: StoreSettings, body: Body) -> None:
    """Run *body* with a started store."""

    async def main() -> None:
        async with Watched(settings) as watched:
            await body(watched)

    run(main(), "uvloop")


class Load:
    """Continuous loads of a key, and the number of their results."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.expected: bytes | None = b"v"
        self.successes = self.failures = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Run four loads concurrently."""
        tasks = [asyncio.ensure_future(self._one()) for _ in range(4)]
        yield self
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert isinstance(result, asyncio.CancelledError), result

    async def _one(self) -> None:
        while True:
            try:
                async with asyncio.timeout(MAX_OPERATION):
                    assert await self.store.load(KEY) == self.expected
                self.successes += 1
            except StoreError:
                self.failures += 1
            await asyncio.sleep(0.005)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until *condition* holds; fails after `MAX_OPERATION` seconds."""
        deadline = time.monotonic() + MAX_OPERATION
        while not condition():
            assert time.monotonic() < deadline, f"timed out waiting for {what}"
            await asyncio.sleep(0.005)

    async def succeed(self, count: int = 50) -> None:
        """Wait for *count* further successful loads, none of which fails."""
        successes, failures = self.successes + count, self.failures
        await self.until(lambda: self.successes >= successes, "successful loads")
        assert self.failures == failures


def test_start_without_redis_becomes_available_later(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)

    async def body(watched: Watched) -> None:
        store = watched.store
        with pytest.raises(StoreError):
            await store.load(KEY)
        for _ in range(3):
            with pytest.raises(StoreError, match="refused"):
                await store.load(KEY)
        assert (store.available, store.notifies) == (False, False)
        assert str(server.port) in store.error
        await asyncio.to_thread(server.start)
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        assert watched.changes[0][0] is None

    try:
        with_watched(in_redis(server.address), body)
    finally:
        server.stop()


def test_killed_redis_fails_requests_and_recovers(server: RedisServer) -> None:
    """Caches are invalidated once."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        load = Load(store)
        async with load.running():
            await load.succeed()
            watched.changes.clear()
            await asyncio.to_thread(server.kill)
            await watched.until(lambda one: not one.available, "the failure")
            assert not store.notifies
            with pytest.raises(StoreError):
                await store.acquire_lock(f"{KEY}.lock", 5.0, 1.0, "t")
            load.expected = None  # Redis has lost it
            await asyncio.to_thread(server.start)
            await watched.ready()
            assert [key for key, _ in watched.changes] == [None]
            assert load.failures > 0
            await load.succeed()
        assert (True, True) in watched.states[-2:]

    with_watched(in_redis(server.address), body)


def test_lost_connection_fails_no_request(server: RedisServer) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        load = Load(store)
        async with load.running():
            for _ in range(5):
                await load.succeed()
                await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")
            await load.succeed()
        assert load.failures == 0
        await watched.ready()

    with_watched(in_redis(server.address), body)


def test_suspended_redis_fails_requests_and_ends_notifications(
    server: RedisServer,
) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        load = Load(store)
        async with load.running():
            with server.frozen():
                await watched.until(
                    lambda one: not one.notifies, "the loss of notifications"
                )
                await watched.until(lambda one: not one.available, "the failure")
                failures = load.failures
                with pytest.raises(StoreError):
                    await store.save(KEY, b"w", 60.0)
                await load.until(lambda: load.failures > failures, "failures")
            await watched.ready()

    with_watched(in_redis(server.address, response_timeout=1.5), body)


def test_suspended_process_reads_late_replies(server: RedisServer) -> None:
    """Replies that arrived during the suspension are not an outage."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        watched.states.clear()
        loads = [asyncio.ensure_future(store.load(KEY)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.5)
        assert await asyncio.gather(*loads) == [b"v"] * 3
        assert all(available for available, _ in watched.states)

    with_watched(in_redis(server.address, response_timeout=0.3), body)


def test_suspended_redis_at_start_unavailable(server: RedisServer) -> None:

    async def body(watched: Watched) -> None:
        with pytest.raises(StoreError):
            await watched.store.load(KEY)
        await watched.until(lambda one: "no reply" in one.error, "the reason")
        assert not watched.store.available

    with server.frozen():
        with_watched(in_redis(server.address, response_timeout=0.5), body)


def test_lost_tracking_connection_invalidates_caches(server: RedisServer) -> None:

    def kill_tracking() -> None:
        clients = server.ask("CLIENT", "LIST").splitlines()
        [tracking] = [
            line for line in clients if "flags=" in line and "B" in flags(line)
        ]
        server.ask("CLIENT", "KILL", "ID", tracking.split(" ")[0].removeprefix("id="))

    def flags(line: str) -> str:
        return line.split(" flags=")[1].split(" ")[0]

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        watched.changes.clear()
        watched.states.clear()
        await asyncio.to_thread(kill_tracking)
        await watched.until(
            lambda _: len(watched.states) >= 2, "loss and return of notifications"
        )
        assert watched.states == [(True, False), (True, True)]
        assert [key for key, _ in watched.changes] == [None]
        since = time.monotonic()
        await store.save(KEY, b"v", 60.0)
        await watched.notified(KEY, since)

    with_watched(in_redis(server.address), body)


def test_flushall_invalidates_all_keys(server: RedisServer) -> None:

    async def body(watched: Watched) -> None:
        await watched.ready()
        watched.changes.clear()
        since = time.monotonic()
        await asyncio.to_thread(server.ask, "FLUSHALL")
        await watched.notified("everything", since)

    with_watched(in_redis(server.address), body)


def test_rejected_write_makes_store_unavailable(server: RedisServer) -> None:
    """Reads still succeed."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        await asyncio.to_thread(server.ask, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreError, match="OOM"):
            await store.save(KEY, b"w" * 100_000, 60.0)
        assert not store.available
        assert "OOM" in store.error
        assert await store.load(KEY) == b"v"
        await asyncio.to_thread(server.ask, "CONFIG", "SET", "maxmemory", "0")
        await watched.ready()
        await store.save(KEY, b"w" * 100_000, 60.0)

    with_watched(in_redis(server.address), body)


def test_st07_too_long_value_rejected(server: RedisServer) -> None:
    """A reply of 100 MB is not read; one of 2 MB is read and rejected."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        long, huge = f"{NAME}-long", f"{NAME}:huge"
        server.ask("SETRANGE", long, str(2 * MAX_VALUE - 1), "x")
        server.ask("SETRANGE", huge, str(100 * MAX_VALUE - 1), "x")
        with pytest.raises(StoreError, match="got a value of 2097152 bytes"):
            await store.load(long)
        assert store.available
        with pytest.raises(StoreError, match="longer than"):
            await store.load(huge)
        assert await store.load(KEY) == b"v"

    with_watched(in_redis(server.address), body)


def test_value_of_wrong_type_raises(server: RedisServer) -> None:
    """Another program may have written the key."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        server.ask("LPUSH", KEY, "x")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.load(KEY)
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.members(KEY)
        assert store.available

    with_watched(in_redis(server.address), body)


def test_failed_release_deferred_until_redis_replies(server: RedisServer) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        lock = f"{KEY}.lock"
        assert await store.acquire_lock(lock, 60.0, 0.0, "t")
        with server.frozen():
            with pytest.raises(StoreError):
                await store.release_lock(lock, "t")
            with pytest.raises(StoreError):
                await store.acquire_lock(f"{KEY}2.lock", 60.0, 0.0, "u")
        with RemoteStore(in_redis(server.address)) as other:
            assert await other.do("acquire_lock", lock, 60.0, 2.0, "far")
            assert await other.do("acquire_lock", f"{KEY}2.lock", 60.0, 2.0, "far")

    with_watched(in_redis(server.address, response_timeout=0.5), body)


def test_idle_connection_reopened(server: RedisServer) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        before = server.ask("CLIENT", "LIST", "TYPE", "normal")
        await asyncio.sleep(2.5)
        assert await store.load(KEY) is None
        after = server.ask("CLIENT", "LIST", "TYPE", "normal")
        ids = [
            {line.split(" ")[0] for line in text.splitlines() if "name=idler" in line}
            for text in (before, after)
        ]
        assert len(ids[0]) == len(ids[1]) == 1
        assert ids[0] != ids[1]

    with_watched(in_redis(server.address, idle_timeout=0.5, client_name="idler"), body)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "NOAUTH"),
        ({"password": Secret("wrong-secret")}, "WRONGPASS"),
        ({"password": Secret(PASSWORD), "username": "unknown"}, "WRONGPASS"),
    ],
)
def test_wrong_password_reported_without_secret(
    tmp_path: Path, values: dict[str, object], text: str
) -> None:
    server, path = with_socket(tmp_path)

    async def body(watched: Watched) -> None:
        await watched.until(lambda one: text in one.error, "the reason")
        assert not watched.store.available
        assert "secret" not in watched.store.error
        with pytest.raises(StoreError, match=text):
            await watched.store.load(KEY)

    with server:
        with_watched(in_redis(RedisAddress(path=str(path)), **values), body)


def test_unverified_certificate_rejected_before_login(tmp_path: Path) -> None:
    server, ca_file = with_tls_and_user(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", LOOPBACK).cert_file

    async def fails_verification(watched: Watched) -> None:
        await watched.until(lambda one: "certificate" in one.error, "the reason")

    async def reaches_login(watched: Watched) -> None:
        await watched.until(lambda one: "AUTH" in one.error, "the error reply")

    with server:
        with_watched(in_redis(server.address, tls=True), fails_verification)
        with_watched(
            in_redis(server.address, tls=True, ca_file=other), fails_verification
        )
        with_watched(in_redis(server.address, tls=True, ca_file=ca_file), reaches_login)
        with_watched(in_redis(server.address, tls=True, verify=False), reaches_login)


def test_invalid_cluster_slots_make_store_unavailable() -> None:

    async def main() -> None:
        slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*1\r\n+x\r\n"
        for reply, text in (
            (slots, "expected an address"),
            (b"*1\r\n+x\r\n", "expected ranges of slots"),
            (b"*0\r\n", "knows no slots"),
        ):

            async def talk(peer: Peer) -> None:
                while data := await peer.reader.read(1000):
                    is_slots = b"CLUSTER" in data
                    peer.writer.write(reply if is_slots else b"+PONG\r\n")  # noqa: B023

            async with ScriptedServer(talk) as listener:
                settings = in_redis(
                    RedisAddress(host=LOOPBACK, port=listener.port),
                    RedisAddress(host="no..host"),
                    mode="cluster",
                )
                async with Watched(settings) as watched:
                    await watched.until(lambda one: text in one.error, text)  # noqa: B023
                    await asyncio.sleep(0.3)
                    assert not watched.store.available

    run(main())


def test_other_server_rejected() -> None:

    async def main() -> None:
        for greeting, text in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a Redis server"),
            (b"+OK\r\n+OK\r\n", "reply without a command"),
            (b"$500000000\r\n" + b"x" * 9_000_000, "longer than"),
            (b">299999999\r\n", "array of more than"),  # 2 GB, if hiredis read it
            (b"%1\r\n%1\r\n+a\r\n+b\r\n+c\r\n", "not a Redis server"),
        ):

            async def talk(peer: Peer) -> None:
                peer.writer.write(greeting)  # noqa: B023 - one server for each
                await peer.reader.read()

            async with ScriptedServer(talk) as listener:
                settings = in_redis(RedisAddress(host=LOOPBACK, port=listener.port))
                async with Watched(settings) as watched:
                    await watched.until(lambda one: text in one.error, text)  # noqa: B023

    run(main())


@pytest.mark.parametrize("is_late", [False, True])
def test_replies_to_other_commands_make_store_unavailable(is_late: bool) -> None:
    """Replies after a lost or doubled one belong to other commands."""

    async def talk(peer: Peer) -> None:
        commands = hiredis.Reader()
        while data := await peer.reader.read(10_000):
            commands.feed(data)
            while command := commands.gets():
                is_ping = command[0] == b"PING"
                pong = b":7\r\n" if is_late and "loaded" in seen else b"+PONG\r\n"
                peer.writer.write(pong if is_ping else b":1\r\n")

    async def main() -> None:
        async with ScriptedServer(talk) as listener:
            settings = in_redis(RedisAddress(host=LOOPBACK, port=listener.port))
            async with Watched(settings) as watched:
                store = watched.store
                await watched.until(lambda one: one.available, "the store")
                for load in (store.load("k"), store.load_all(("k", "l"))):
                    with pytest.raises(StoreError, match="reply to another command"):
                        await load
                with pytest.raises(StoreError, match="reply to another command"):
                    await store.members("k")
                seen.append("loaded")
                if is_late:
                    text = "reply to another command"
                    await watched.until(lambda one: text in one.error, text)
                    assert not store.available

    seen: list[str] = []
    run(main())


def in_sentinels(setup: SentinelSetup) -> StoreSettings:
    """Return settings of the store at the master that the sentinels name."""
    return in_redis(
        setup.sentinel.address,
        mode="sentinel",
        master_name=MASTER_NAME,
        password=Secret(PASSWORD),
        sentinel_password=Secret(SENTINEL_PASSWORD),
    )


def test_failover_continues_on_replica(tmp_path: Path) -> None:
    """The master is killed under load; the replica has its values."""
    with SentinelSetup(tmp_path) as setup:

        async def body(watched: Watched) -> None:
            store = await watched.ready()
            await store.save(KEY, b"v", 60.0)
            await asyncio.to_thread(wait_for_copy, setup.first, setup.second)
            load = Load(store)
            async with load.running():
                await asyncio.to_thread(setup.first.kill)
                watched.changes.clear()
                await watched.until(lambda one: not one.available, "the failure")
                await watched.ready()
                await store.save(KEY, b"v", 60.0)
                await load.succeed()
            assert None in [key for key, _ in watched.changes]
            assert setup.master() is setup.second

        with_watched(in_sentinels(setup), body)


def test_planned_failover_writes_to_new_master(tmp_path: Path) -> None:
    """The old master becomes a replica and keeps running."""
    with SentinelSetup(tmp_path) as setup:

        async def body(watched: Watched) -> None:
            store = await watched.ready()
            await asyncio.to_thread(
                setup.sentinel.ask, "SENTINEL", "FAILOVER", MASTER_NAME
            )
            deadline = time.monotonic() + MAX_OPERATION
            while await asyncio.to_thread(setup.master) is setup.first:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            moved = time.monotonic()
            while True:
                with contextlib.suppress(StoreError):
                    await store.save(KEY, b"w", 60.0)
                    text = await asyncio.to_thread(setup.second.ask, "GET", KEY)
                    if text.strip() == "w":
                        break
                assert time.monotonic() < moved + MAX_OPERATION
                await asyncio.sleep(0.02)
            await watched.ready()

        with_watched(in_sentinels(setup), body)


def test_unknown_master_name_reported(tmp_path: Path) -> None:
    with SentinelSetup(tmp_path) as setup:
        settings = in_redis(
            setup.sentinel.address,
            mode="sentinel",
            master_name="other",
            sentinel_password=Secret(SENTINEL_PASSWORD),
        )

        async def body(watched: Watched) -> None:
            await watched.until(
                lambda one: "knows no master called 'other'" in one.error, "the reason"
            )

        with_watched(settings, body)


def test_cluster_serves_other_masters_until_failover(tmp_path: Path) -> None:
    """After the failover the keys of the killed master are served, too."""
    with ClusterSetup(tmp_path) as setup:

        async def body(watched: Watched) -> None:
            store = await watched.ready()
            keys = [f"{NAME}-{number:032x}" for number in range(60)]
            await asyncio.gather(*[store.save(key, b"v", 60.0) for key in keys])
            assert await store.load_all(tuple(keys)) == (b"v",) * 60
            first, *_, replica = setup.servers
            await asyncio.to_thread(wait_for_copy, first, replica)
            await asyncio.to_thread(setup.servers[0].kill)
            results = await asyncio.gather(
                *[store.load(key) for key in keys], return_exceptions=True
            )
            assert results.count(b"v") > 20
            assert not any(result is None for result in results)
            await watched.until(lambda one: not one.available, "the failure")
            await watched.until(
                lambda one: one.available and one.notifies, "the replica", 15.0
            )
            assert await store.load_all(tuple(keys)) == (b"v",) * 60
            since = time.monotonic()
            await store.delete(keys[0])
            await watched.notified(keys[0], since)
            await asyncio.to_thread(setup.servers[0].start)
            await asyncio.sleep(1.0)
            assert await store.load_all(tuple(keys[1:])) == (b"v",) * 59

        with_watched(
            in_redis(*[server.address for server in setup.servers[:2]], mode="cluster"),
            body,
        )


def test_cluster_follows_moved_slot(tmp_path: Path) -> None:
    """The key is used before, during (ASK) and after (MOVED) the move."""
    with ClusterSetup(tmp_path) as setup:
        source, target = setup.servers[0], setup.servers[1]
        names = [f"{NAME}-{number:032x}" for number in range(1000)]
        slots = {
            name: int(source.ask("CLUSTER", "KEYSLOT", name)) for name in names[:40]
        }
        assert all(slot_of(name) == slot for name, slot in slots.items())
        for name in ("a{b}c", "{}x", "a{", "a{}b{c}", "foo{{bar}}zap", "}{x}"):
            assert str(slot_of(name)) == source.ask("CLUSTER", "KEYSLOT", name).strip()
        key = next(name for name in slots if slots[name] < 5461)
        slot = str(slots[key])
        ids = [one.ask("CLUSTER", "MYID").strip() for one in (source, target)]

        async def body(watched: Watched) -> None:
            store = await watched.ready()
            await store.save(key, b"v", 60.0)
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            assert await store.load(key) == b"v"
            source.ask("MIGRATE", LOOPBACK, str(target.port), key, "0", "1000")
            assert await store.load(key) == b"v"  # ASK
            await store.save(key, b"w", 60.0)
            for one in (target, source, setup.servers[2]):
                one.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            assert await store.load(key) == b"w"  # MOVED
            since = time.monotonic()
            await store.delete(key)
            await watched.notified(key, since)
            await asyncio.sleep(0.5)
            assert store.available

        with_watched(in_redis(source.address, mode="cluster"), body)


def test_cluster_discovered_after_start(tmp_path: Path) -> None:
    """Until a node replies the store reports that no node does."""
    setup = ClusterSetup(tmp_path)
    addresses = [server.address for server in setup.servers[:3]]

    async def body(watched: Watched) -> None:
        with pytest.raises(StoreError):
            await watched.store.load(KEY)
        await watched.until(
            lambda one: "no node of the cluster replies" in one.error, "the reason"
        )
        assert not watched.store.available
        await asyncio.to_thread(setup.__enter__)
        await watched.ready()
        await watched.store.save(KEY, b"v", 60.0)

    try:
        with_watched(in_redis(*addresses, mode="cluster"), body)
    finally:
        setup.__exit__()


def test_server_without_cluster_mode_reported(server: RedisServer) -> None:

    async def body(watched: Watched) -> None:
        await watched.until(
            lambda one: "cluster support disabled" in one.error, "the reason"
        )

    with_watched(in_redis(server.address, mode="cluster"), body)
