"""Redis that is away, slow, full, or somewhere else by now; and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

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
from support.stores import NAME, Elsewhere, Watched

pytestmark = pytest.mark.skipif(
    find("redis-server") is None, reason="redis-server isn't installed"
)
BACK = 1.0  # seconds after which all is as before once Redis is back
KEY = f"{NAME}-{'0' * 32}"
Body = Callable[[Watched], Awaitable[None]]


def in_redis(*addresses: RedisAddress, **values: object) -> StoreSettings:
    """A store in Redis."""
    redis = RedisSettings(addresses=addresses, **values)  # type: ignore[arg-type]
    return StoreSettings(kind="redis", redis=redis)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One server that runs."""
    with RedisServer(tmp_path) as found:
        yield found


def with_watched(settings: StoreSettings, body: Body) -> None:
    """Run *body* with a store that has been started."""

    async def main() -> None:
        async with Watched(settings) as watched:
            await body(watched)

    run(main(), "uvloop")


async def back(watched: Watched, since: float) -> Store:
    """The store, which has come back in time after *since*."""
    store = await watched.ready()
    assert time.monotonic() - since < BACK
    return store


async def threaded(function: Callable[[], object]) -> float:
    """Run something slow; the moment at which it was done."""
    await asyncio.to_thread(function)
    return time.monotonic()


class Load:
    """Requests that never stop while something else happens; what they saw."""

    def __init__(self, store: Store, key: str = KEY, expected: bytes = b"v") -> None:
        self.store, self.key, self.expected = store, key, expected
        self.good = 0
        self.failures: list[float] = []
        self.slowest = 0.0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Four of them at once."""
        tasks = [asyncio.ensure_future(self._one()) for _ in range(4)]
        yield self
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert isinstance(result, asyncio.CancelledError), result

    async def _one(self) -> None:
        while True:
            began = time.monotonic()
            try:
                assert await self.store.load(self.key) == self.expected
                self.good += 1
            except StoreError:
                self.failures.append(time.monotonic())
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0.005)


def test_start_without_redis(tmp_path: Path) -> None:
    """It starts, says what is the matter at once, and is there when Redis is."""
    server = RedisServer(tmp_path)

    async def body(watched: Watched) -> None:
        store = watched.store
        began = time.monotonic()
        with pytest.raises(StoreError):
            await store.load(KEY)
        assert time.monotonic() - began < 0.5
        for _ in range(3):
            with pytest.raises(StoreError, match="refused"):
                await store.load(KEY)
        assert (store.available, store.notifies) == (False, False)
        assert str(server.port) in store.error
        await threaded(server.start)
        store = await back(watched, time.monotonic())
        await store.save(KEY, b"v", 60.0)
        assert watched.changes[0][0] is None

    try:
        with_watched(in_redis(server.address), body)
    finally:
        server.stop()


def test_crash_and_return(server: RedisServer) -> None:
    """Killed under load: quick failures; caches are void; back within a second."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        load = Load(store)
        async with load.running():
            await asyncio.sleep(0.2)
            assert not load.failures
            watched.changes.clear()
            await threaded(server.kill)
            await watched.until(lambda one: not one.available, "the failure", 1.0)
            assert not store.notifies
            with pytest.raises(StoreError):
                await store.acquire_lock(f"{KEY}.lock", 5.0, 1.0, "t")
            load.expected = None  # type: ignore[assignment] # it kept nothing
            await threaded(server.start)
            began = time.monotonic()
            await back(watched, began)
            assert [key for key, _ in watched.changes] == [None]
            failures = len(load.failures)
            await asyncio.sleep(0.3)
            assert len(load.failures) == failures
        assert load.slowest < 1.0
        assert (True, True) in watched.states[-2:]

    with_watched(in_redis(server.address), body)


def test_restart_is_not_noticed(server: RedisServer) -> None:
    """A link that is cut while Redis goes on costs no request."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        load = Load(store)
        async with load.running():
            for _ in range(5):
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.1)
        assert load.failures == []
        await watched.ready()

    with_watched(in_redis(server.address), body)


def test_frozen(server: RedisServer) -> None:
    """It accepts and does not answer: failures in time, no trust in the caches."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        load = Load(store)
        async with load.running():
            with server.frozen():
                began = time.monotonic()
                await watched.until(lambda one: not one.notifies, "doubt")
                assert time.monotonic() - began < 1.0
                await watched.until(lambda one: not one.available, "the failure")
                assert time.monotonic() - began < 2.5
                failures = len(load.failures)
                with pytest.raises(StoreError):
                    await store.save(KEY, b"w", 60.0)
                await asyncio.sleep(1.0)
                assert len(load.failures) > failures
            await back(watched, time.monotonic())
        assert load.slowest < 2.5

    with_watched(in_redis(server.address, answer_timeout=1.5), body)


def test_stopped_ourselves(server: RedisServer) -> None:
    """A process that was stopped for a while finds the answers, and no outage."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        watched.states.clear()
        asked = [asyncio.ensure_future(store.load(KEY)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.5)
        assert await asyncio.gather(*asked) == [b"v"] * 3
        assert all(available for available, _ in watched.states)

    with_watched(in_redis(server.address, answer_timeout=0.3), body)


def test_frozen_at_start(server: RedisServer) -> None:
    """The same when it has never answered."""

    async def body(watched: Watched) -> None:
        with pytest.raises(StoreError):
            await watched.store.load(KEY)
        await watched.until(lambda one: "no reply" in one.error, "the reason")
        assert not watched.store.available

    with server.frozen():
        with_watched(in_redis(server.address, answer_timeout=0.5), body)


def test_news_are_cut(server: RedisServer) -> None:
    """Without its news nothing is trusted; afterwards all caches are void."""

    def cut() -> None:
        clients = server.ask("CLIENT", "LIST").splitlines()
        [news] = [line for line in clients if "flags=" in line and "B" in flags(line)]
        server.ask("CLIENT", "KILL", "ID", news.split(" ")[0].removeprefix("id="))

    def flags(line: str) -> str:
        return line.split(" flags=")[1].split(" ")[0]

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        watched.changes.clear()
        watched.states.clear()
        await threaded(cut)
        await watched.until(lambda _: len(watched.states) >= 2, "doubt and trust")
        assert watched.states == [(True, False), (True, True)]
        assert [key for key, _ in watched.changes] == [None]
        since = time.monotonic()
        await store.save(KEY, b"v", 60.0)
        await watched.told(KEY, since)

    with_watched(in_redis(server.address), body)


def test_emptied(server: RedisServer) -> None:
    """FLUSHALL is a change of everything."""

    async def body(watched: Watched) -> None:
        await watched.ready()
        watched.changes.clear()
        since = time.monotonic()
        await asyncio.to_thread(server.ask, "FLUSHALL")
        await watched.told("everything", since)

    with_watched(in_redis(server.address), body)


def test_no_memory(server: RedisServer) -> None:
    """Redis refuses to write: that is an outage, reads go on."""

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
        await back(watched, time.monotonic())
        await store.save(KEY, b"w" * 100_000, 60.0)

    with_watched(in_redis(server.address), body)


def test_long_values_of_others(server: RedisServer) -> None:
    """ST07: 100 MB are not read; 2 MB are, and refused."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save(KEY, b"v", 60.0)
        long, huge = f"{NAME}:long", f"{NAME}:huge"
        server.ask("SETRANGE", long, str(2 * MAX_VALUE - 1), "x")
        server.ask("SETRANGE", huge, str(100 * MAX_VALUE - 1), "x")
        with pytest.raises(StoreError, match="got a value of 2097152 bytes"):
            await store.load(long)
        assert store.available
        with pytest.raises(StoreError, match="longer than"):
            await store.load(huge)
        assert await store.load(KEY) == b"v"

    with_watched(in_redis(server.address), body)


def test_wrong_kind_of_value(server: RedisServer) -> None:
    """What others have put there under our names is an error, not an answer."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        server.ask("LPUSH", KEY, "x")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.load(KEY)
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.members(KEY)
        assert store.available

    with_watched(in_redis(server.address), body)


def test_locks_during_an_outage(server: RedisServer) -> None:
    """A lock that could not be given back is given back when Redis answers again."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        lock = f"{KEY}.lock"
        assert await store.acquire_lock(lock, 60.0, 0.0, "t")
        with server.frozen():
            with pytest.raises(StoreError):
                await store.release_lock(lock, "t")
            with pytest.raises(StoreError):
                await store.acquire_lock(f"{KEY}2.lock", 60.0, 0.0, "u")
        with Elsewhere(in_redis(server.address)) as other:
            assert await other.do("acquire_lock", lock, 60.0, 2.0, "far")
            assert await other.do("acquire_lock", f"{KEY}2.lock", 60.0, 2.0, "far")

    with_watched(in_redis(server.address, answer_timeout=0.5), body)


def test_idle_links_are_renewed(server: RedisServer) -> None:
    """A link that nobody asks for so long is left; nobody notices."""

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
        ({"password": Secret(PASSWORD), "username": "nobody"}, "WRONGPASS"),
    ],
)
def test_wrong_password(tmp_path: Path, values: dict[str, object], text: str) -> None:
    """What Redis says is told, the password is not."""
    server, path = with_socket(tmp_path)

    async def body(watched: Watched) -> None:
        await watched.until(lambda one: text in one.error, "the reason")
        assert not watched.store.available
        assert "secret" not in watched.store.error
        with pytest.raises(StoreError, match=text):
            await watched.store.load(KEY)

    with server:
        with_watched(in_redis(RedisAddress(path=str(path)), **values), body)


def test_foreign_certificate(tmp_path: Path) -> None:
    """A server that can't prove who it is gets no password."""
    server, authority = with_tls_and_user(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", LOOPBACK).cert_file

    async def refused(watched: Watched) -> None:
        await watched.until(lambda one: "certificate" in one.error, "the reason")

    async def accepted(watched: Watched) -> None:
        await watched.until(lambda one: "AUTH" in one.error, "the answer")

    with server:
        with_watched(in_redis(server.address, tls=True), refused)
        with_watched(in_redis(server.address, tls=True, ca_file=other), refused)
        with_watched(in_redis(server.address, tls=True, ca_file=authority), accepted)
        with_watched(in_redis(server.address, tls=True, verify=False), accepted)


def test_nonsense_from_a_cluster() -> None:
    """Answers of the right kind that mean nothing are an outage, not the end."""

    async def main() -> None:
        slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*1\r\n+x\r\n"
        for answer, text in (
            (slots, "expected an address"),
            (b"*1\r\n+x\r\n", "expected ranges of slots"),
            (b"*0\r\n", "knows no slots"),
        ):

            async def talk(peer: Peer) -> None:
                while data := await peer.reader.read(1000):
                    known = b"CLUSTER" in data
                    peer.writer.write(answer if known else b"+PONG\r\n")  # noqa: B023

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


def test_no_redis() -> None:
    """Something else that listens there, and something that talks too much."""

    async def main() -> None:
        for greeting, text in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a Redis server"),
            (b"+OK\r\n+OK\r\n", "reply without a command"),
            (b"$500000000\r\n" + b"x" * 9_000_000, "longer than"),
        ):

            async def talk(peer: Peer) -> None:
                peer.writer.write(greeting)  # noqa: B023 - one server for each
                await peer.reader.read()

            async with ScriptedServer(talk) as listener:
                settings = in_redis(RedisAddress(host=LOOPBACK, port=listener.port))
                async with Watched(settings) as watched:
                    await watched.until(lambda one: text in one.error, text)  # noqa: B023

    run(main())


# -- sentinels


def in_sentinels(setup: SentinelSetup) -> StoreSettings:
    """The store at the master that they name."""
    return in_redis(
        setup.sentinel.address,
        mode="sentinel",
        master_name=MASTER_NAME,
        password=Secret(PASSWORD),
        sentinel_password=Secret(SENTINEL_PASSWORD),
    )


def test_failover(tmp_path: Path) -> None:
    """The master dies under load: its replica goes on, with all that was kept."""
    with SentinelSetup(tmp_path) as setup:

        async def body(watched: Watched) -> None:
            store = await watched.ready()
            await store.save(KEY, b"v", 60.0)
            await asyncio.to_thread(wait_for_copy, setup.first, setup.second)
            load = Load(store)
            async with load.running():
                killed = await threaded(setup.first.kill)
                watched.changes.clear()
                await watched.until(lambda one: not one.available, "the failure")
                await watched.ready()
                print(f"back after {time.monotonic() - killed:.2f} s")
                assert time.monotonic() - killed < 8.0
                await store.save(KEY, b"v", 60.0)
                since = len(load.failures)
                await asyncio.sleep(0.5)
                assert len(load.failures) == since
            assert None in [key for key, _ in watched.changes]
            assert setup.master() is setup.second

        with_watched(in_sentinels(setup), body)


def test_planned_failover(tmp_path: Path) -> None:
    """The master becomes a replica and lives on: writes go to the new one."""
    with SentinelSetup(tmp_path) as setup:

        async def body(watched: Watched) -> None:
            store = await watched.ready()
            await asyncio.to_thread(
                setup.sentinel.ask, "SENTINEL", "FAILOVER", MASTER_NAME
            )
            deadline = time.monotonic() + 8.0
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
                assert time.monotonic() < moved + 3.0
                await asyncio.sleep(0.02)
            print(f"written to the new one {time.monotonic() - moved:.2f} s later")
            await watched.ready()

        with_watched(in_sentinels(setup), body)


def test_sentinels_without_master(tmp_path: Path) -> None:
    """What they answer is told."""
    with SentinelSetup(tmp_path) as setup:
        settings = in_redis(
            setup.sentinel.address,
            mode="sentinel",
            master_name="other",
            sentinel_password=Secret(SENTINEL_PASSWORD),
        )

        async def body(watched: Watched) -> None:
            await watched.until(
                lambda one: "knows no master called 'other'" in one.error, "it"
            )

        with_watched(settings, body)


# -- a cluster


def test_cluster_loses_a_node(tmp_path: Path) -> None:
    """One master dies: the keys of the others are served, then its replica's too."""
    with ClusterSetup(tmp_path) as setup:

        async def body(watched: Watched) -> None:
            store = await watched.ready()
            keys = [f"{NAME}-{number:032x}" for number in range(60)]
            await asyncio.gather(*[store.save(key, b"v", 60.0) for key in keys])
            assert await store.load_all(tuple(keys)) == (b"v",) * 60
            first, *_, replica = setup.servers
            await asyncio.to_thread(wait_for_copy, first, replica)
            killed = await threaded(setup.servers[0].kill)
            results = await asyncio.gather(
                *[store.load(key) for key in keys], return_exceptions=True
            )
            assert results.count(b"v") > 20
            assert not any(result is None for result in results)
            await watched.until(lambda one: not one.available, "the failure")
            await watched.until(
                lambda one: one.available and one.notifies, "the replica", 15.0
            )
            print(f"back after {time.monotonic() - killed:.2f} s")
            assert await store.load_all(tuple(keys)) == (b"v",) * 60
            since = time.monotonic()
            await store.delete(keys[0])
            await watched.told(keys[0], since)
            await threaded(setup.servers[0].start)
            await asyncio.sleep(1.0)
            assert await store.load_all(tuple(keys[1:])) == (b"v",) * 59

        with_watched(
            in_redis(*[server.address for server in setup.servers[:2]], mode="cluster"),
            body,
        )


def test_cluster_moves_a_slot(tmp_path: Path) -> None:
    """A slot goes from one master to another, while its keys are used."""
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
            await watched.told(key, since)
            await asyncio.sleep(0.5)
            assert store.available

        with_watched(in_redis(source.address, mode="cluster"), body)


def test_cluster_is_away(tmp_path: Path) -> None:
    """No node answers: it says so, and finds the cluster when it is there."""
    setup = ClusterSetup(tmp_path)
    addresses = [server.address for server in setup.servers[:3]]

    async def body(watched: Watched) -> None:
        with pytest.raises(StoreError):
            await watched.store.load(KEY)
        await watched.until(
            lambda one: "no node of the cluster replies" in one.error, "the reason"
        )
        assert not watched.store.available
        await threaded(setup.__enter__)
        await back(watched, time.monotonic())
        await watched.store.save(KEY, b"v", 60.0)

    try:
        with_watched(in_redis(*addresses, mode="cluster"), body)
    finally:
        setup.__exit__()


def test_single_node_that_is_no_cluster(server: RedisServer) -> None:
    """A server without cluster mode is told apart."""

    async def body(watched: Watched) -> None:
        await watched.until(lambda one: "cluster support disabled" in one.error, "it")

    with_watched(in_redis(server.address, mode="cluster"), body)
