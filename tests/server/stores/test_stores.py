"""All kinds of stores, with real servers and from two processes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authproxy.server_settings import RedisAddress, RedisSettings, StoreSettings
from authproxy.stores.base import MAX_VALUE, Store
from authproxy_core.errors import StoreError
from authproxy_core.settings.root import Secret
from support.ports import LOOPBACK, free_port
from support.programs import find
from support.redis import (
    MASTER_NAME,
    PASSWORD,
    SENTINEL_PASSWORD,
    USER,
    ClusterSetup,
    RedisServer,
    SentinelSetup,
    with_socket,
    with_tls_and_user,
)
from support.scripted import run
from support.stores import NAME, RemoteStore, Watched

KINDS = ("sqlite", "redis", "redis-tls-user", "redis-socket", "sentinel", "cluster")
MAX_NOTIFY_DELAY = 1.0  # seconds; bench/revocation.py measures the usual delay
Body = Callable[[Store], Awaitable[None]]


class Backend(NamedTuple):
    """A kind of store, and the settings of one that runs."""

    kind: str
    settings: StoreSettings


@pytest.fixture(params=KINDS, scope="module")
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """A store of each kind."""
    if request.param != "sqlite" and find("redis-server") is None:
        pytest.skip("redis-server isn't installed")
    directory = tmp_path_factory.mktemp("store")
    yield from BACKENDS[request.param](directory)


def sqlite_backend(directory: Path) -> Iterator[Backend]:
    """A SQLite file."""
    yield Backend("sqlite", StoreSettings(kind="sqlite", path=str(directory / "s.db")))


def redis_settings(**values: Any) -> StoreSettings:
    """Return settings of a Redis store."""
    return StoreSettings(kind="redis", redis=RedisSettings(**values))


def redis_backend(directory: Path) -> Iterator[Backend]:
    """One server, database 3."""
    with RedisServer(directory) as server:
        yield Backend("redis", redis_settings(addresses=(server.address,), db=3))


def secured_backend(directory: Path) -> Iterator[Backend]:
    """TLS with a private CA; a user with the minimum of permissions."""
    server, ca_file = with_tls_and_user(directory)
    with server:
        given = redis_settings(
            addresses=(server.address,),
            username=USER,
            password=Secret(PASSWORD),
            tls=True,
            ca_file=ca_file,
            client_name="proxy",
        )
        yield Backend("redis-tls-user", given)


def socket_backend(directory: Path) -> Iterator[Backend]:
    """A unix socket; a password without a user."""
    server, path = with_socket(directory)
    with server:
        given = redis_settings(
            addresses=(RedisAddress(path=str(path)),), password=Secret(PASSWORD)
        )
        yield Backend("redis-socket", given)


def sentinel_backend(directory: Path) -> Iterator[Backend]:
    """A master found by a sentinel; nothing listens on the first address."""
    with SentinelSetup(directory) as setup:
        closed = RedisAddress(host=LOOPBACK, port=free_port())
        given = redis_settings(
            mode="sentinel",
            addresses=(closed, setup.sentinel.address),
            master_name=MASTER_NAME,
            password=Secret(PASSWORD),
            sentinel_password=Secret(SENTINEL_PASSWORD),
        )
        yield Backend("sentinel", given)


def cluster_backend(directory: Path) -> Iterator[Backend]:
    """Three masters; the settings list one, and an address without a listener."""
    with ClusterSetup(directory) as setup:
        closed = RedisAddress(host=LOOPBACK, port=free_port())
        given = redis_settings(
            mode="cluster", addresses=(closed, setup.servers[1].address)
        )
        yield Backend("cluster", given)


BACKENDS: dict[str, Callable[[Path], Iterator[Backend]]] = {
    "sqlite": sqlite_backend,
    "redis": redis_backend,
    "redis-tls-user": secured_backend,
    "redis-socket": socket_backend,
    "sentinel": sentinel_backend,
    "cluster": cluster_backend,
}


def with_store(backend: Backend, body: Body) -> None:
    """Run *body* with a ready store."""

    async def main() -> None:
        async with Watched(backend.settings) as watched:
            await body(await watched.ready())

    run(main(), "uvloop")


def key(name: str) -> str:
    """Return a key in the core's format."""
    return f"{NAME}-{name}"


def test_values_saved_loaded_and_deleted(backend: Backend) -> None:

    async def body(store: Store) -> None:
        assert await store.load(key("none")) is None
        await store.save(key("a"), b"one", 60.0)
        await store.save(key("b"), b"", 0.0)
        assert await store.load(key("a")) == b"one"
        found = await store.load_all((key("b"), key("none"), key("a")))
        assert found == (b"", None, b"one")
        assert await store.load_all(()) == ()
        await store.save(key("a"), b"two", 60.0)
        assert await store.load(key("a")) == b"two"
        await store.delete(key("a"))
        await store.delete(key("a"))
        assert await store.load(key("a")) is None
        await store.delete(key("b"))

    with_store(backend, body)


def test_save_only_if_present_value_is_expected(backend: Backend) -> None:
    """Compare and swap: of several writers with one expectation, one succeeds."""

    async def body(store: Store) -> None:
        assert await store.save(key("cas"), b"one", 60.0, b"")
        assert not await store.save(key("cas"), b"two", 60.0, b"")
        assert not await store.save(key("cas"), b"two", 60.0, b"other")
        assert await store.load(key("cas")) == b"one"
        saves = [store.save(key("cas"), b"%d" % n, 60.0, b"one") for n in range(9)]
        results = await asyncio.gather(*saves)
        assert sorted(results) == [False] * 8 + [True]
        assert await store.load(key("cas")) == b"%d" % results.index(True)
        assert await store.save(key("cas"), b"last", 0.0)
        assert await store.save(key("cas"), b"short", 0.3, b"last")
        await asyncio.sleep(0.35)
        assert not await store.save(key("cas"), b"late", 60.0, b"short")
        assert await store.save(key("cas"), b"first", 0.0, b"")
        assert await store.save(key("cas"), b"binary\x00\xff", 0.0, b"first")
        assert await store.load(key("cas")) == b"binary\x00\xff"

    with_store(backend, body)


def test_value_absent_after_ttl(backend: Backend) -> None:
    """A new value resets the TTL."""

    async def body(store: Store) -> None:
        await store.save(key("short"), b"v", 0.3)
        await store.save(key("renewed"), b"v", 0.3)
        await store.save(key("renewed"), b"w", 60.0)
        await store.save(key("always"), b"v", 0.3)
        await store.save(key("always"), b"w", 0.0)
        assert await store.load(key("short")) == b"v"
        await asyncio.sleep(0.35)
        names = ("short", "renewed", "always")
        found = await store.load_all(tuple(map(key, names)))
        assert found == (None, b"w", b"w")

    with_store(backend, body)


def test_set_members_expire_separately(backend: Backend) -> None:

    async def body(store: Store) -> None:
        assert await store.members(key("set")) == ()
        await store.add(key("set"), b"short", 0.3)
        await store.add(key("set"), b"long", 60.0)
        await store.add(key("set"), b"renewed", 0.3)
        await store.add(key("set"), b"renewed", 60.0)
        await store.add(key("set"), b"\x00\xff\r\n", 0.0)
        assert set(await store.members(key("set"))) == {
            b"short",
            b"long",
            b"renewed",
            b"\x00\xff\r\n",
        }
        await asyncio.sleep(0.35)
        found = set(await store.members(key("set")))
        assert found == {b"long", b"renewed", b"\x00\xff\r\n"}
        await store.remove(key("set"), b"long")
        await store.remove(key("set"), b"long")
        await store.remove(key("nothing"), b"long")
        found = set(await store.members(key("set")))
        assert found == {b"renewed", b"\x00\xff\r\n"}
        await store.delete(key("set"))
        assert await store.members(key("set")) == ()

    with_store(backend, body)


def test_st07_value_above_limit_rejected(backend: Backend) -> None:

    async def body(store: Store) -> None:
        longest = bytes(range(256)) * (MAX_VALUE // 256)
        await store.save(key("long"), longest, 60.0)
        assert await store.load(key("long")) == longest
        with pytest.raises(StoreError, match="expected at most"):
            await store.save(key("long"), longest + b"x", 60.0)
        assert await store.load(key("long")) == longest
        await store.delete(key("long"))

    with_store(backend, body)


PRINTABLE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=200
)


def test_st01_any_key_and_value_round_trips(backend: Backend) -> None:

    async def body(store: Store) -> None:
        loop = asyncio.get_running_loop()

        @given(PRINTABLE, st.binary(max_size=300), st.binary(max_size=50))
        @hypothesis_settings(
            max_examples=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        def examples(name: str, value: bytes, member: bytes) -> None:
            asyncio.run_coroutine_threadsafe(one(name, value, member), loop).result(5)

        async def one(name: str, value: bytes, member: bytes) -> None:
            value_key, set_key = f"{NAME}-{name}", f"{NAME}-set:{name}"
            await store.save(value_key, value, 60.0)
            await store.add(set_key, member, 60.0)
            assert await store.load(value_key) == value
            assert await store.members(set_key) == (member,)
            assert await store.acquire_lock(f"{value_key}.lock", 5.0, 0.0, "t")
            await store.release_lock(f"{value_key}.lock", "t")
            await store.delete(value_key)
            await store.delete(set_key)
            assert await store.load(value_key) is None

        await asyncio.to_thread(examples)

    with_store(backend, body)


def test_invalid_key_fails_only_its_operation(backend: Backend) -> None:

    async def body(store: Store) -> None:
        results = await asyncio.gather(
            store.save(key("before"), b"v", 60.0),
            store.load("\ud800"),
            return_exceptions=True,
        )
        assert isinstance(results[1], StoreError)
        with pytest.raises(StoreError):
            await store.save("\ud800", b"v", 60.0)
        await store.save(key("after"), b"w", 60.0)
        assert await store.load(key("after")) == b"w"
        assert await store.load(key("before")) in (b"v", None)

    with_store(backend, body)


def test_concurrent_operations_get_their_results(backend: Backend) -> None:

    async def body(store: Store) -> None:
        names = [key(f"many:{number}") for number in range(300)]
        await asyncio.gather(*[store.save(one, one.encode(), 60.0) for one in names])
        found = await asyncio.gather(*[store.load(one) for one in names])
        assert found == [one.encode() for one in names]
        assert await store.load_all(tuple(names)) == tuple(found)
        await asyncio.gather(*[store.delete(one) for one in names])

    with_store(backend, body)


def test_lock_passes_to_waiter_on_release(backend: Backend) -> None:
    """Only the token of the holder releases the lock."""

    async def body(store: Store) -> None:
        name = key("lock")
        assert await store.acquire_lock(name, 60.0, 0.0, "a")
        assert not await store.acquire_lock(name, 60.0, 0.05, "b")
        await store.release_lock(name, "b")
        assert not await store.acquire_lock(name, 60.0, 0.0, "b")
        waits = asyncio.ensure_future(store.acquire_lock(name, 60.0, 10.0, "b"))
        await asyncio.sleep(0.02)
        assert not waits.done()
        await store.release_lock(name, "a")
        assert await waits
        await store.release_lock(name, "a")
        assert not await store.acquire_lock(name, 60.0, 0.0, "c")
        await store.release_lock(name, "b")
        assert await store.acquire_lock(name, 60.0, 0.0, "c")
        await store.release_lock(name, "c")

    with_store(backend, body)


def test_lock_passes_between_processes(backend: Backend) -> None:
    """A release with another token does not take the lock from its holder."""

    async def body(store: Store) -> None:
        name = key("far")
        with RemoteStore(backend.settings) as other:
            assert await other.do("acquire_lock", name, 60.0, 0.0, "far")
            assert not await store.acquire_lock(name, 60.0, 0.1, "near")
            await store.release_lock(name, "near")
            assert not await store.acquire_lock(name, 60.0, 0.0, "near")
            waits = asyncio.ensure_future(store.acquire_lock(name, 60.0, 10.0, "near"))
            queued = asyncio.ensure_future(store.acquire_lock(name, 60.0, 10.0, "next"))
            await asyncio.sleep(0.05)
            assert not waits.done()
            await other.do("release_lock", name, "far")
            assert await waits
            await other.do("release_lock", name, "far")
            assert not await other.do("acquire_lock", name, 60.0, 0.0, "far")
            await store.release_lock(name, "near")
            assert await queued
            await store.release_lock(name, "next")
            assert await other.do("acquire_lock", name, 60.0, 1.0, "far")
            await other.do("release_lock", name, "far")

    with_store(backend, body)


def test_st08_lock_of_exited_holder_expires(backend: Backend) -> None:

    async def body(store: Store) -> None:
        name = key("dies")
        with RemoteStore(backend.settings) as other:
            assert await other.do("acquire_lock", name, 0.4, 0.0, "exited")
            assert not await store.acquire_lock(name, 60.0, 0.0, "next")
            assert await store.acquire_lock(name, 0.3, 5.0, "next")
            # The lock expired, so its old holder cannot release it.
            await other.do("release_lock", name, "exited")
            assert not await other.do("acquire_lock", name, 60.0, 0.0, "third")
            # The same within one process.
            assert await store.acquire_lock(name, 60.0, 5.0, "fourth")
            await store.release_lock(name, "next")
            assert not await other.do("acquire_lock", name, 60.0, 0.0, "third")
            await store.release_lock(name, "fourth")

    with_store(backend, body)


def test_canceled_waiter_leaves_lock_to_next(backend: Backend) -> None:

    async def body(store: Store) -> None:
        name = key("left")
        with RemoteStore(backend.settings) as other:
            assert await other.do("acquire_lock", name, 60.0, 0.0, "far")
            first = asyncio.ensure_future(store.acquire_lock(name, 60.0, 10.0, "1"))
            second = asyncio.ensure_future(store.acquire_lock(name, 60.0, 10.0, "2"))
            await asyncio.sleep(0.03)
            first.cancel()
            await asyncio.sleep(0.03)
            await other.do("release_lock", name, "far")
            assert await second
            await store.release_lock(name, "2")

    with_store(backend, body)


def test_st11_changes_notified_within_100_ms(backend: Backend) -> None:
    """Changes by the same process are notified, too."""

    async def main() -> None:
        async with Watched(backend.settings) as watched:
            store = await watched.ready()
            with RemoteStore(backend.settings) as other:
                delays = []
                for number in range(10):
                    one = f"{NAME}-{number:032x}"
                    for method, *arguments in (
                        ("save", one, b"v", 60.0),
                        ("save", one, b"w", 60.0),
                        ("delete", one),
                        ("add", key(f"set{number}"), b"m", 60.0),
                        ("remove", key(f"set{number}"), b"m"),
                    ):
                        since = time.monotonic()
                        _, at = await other.timed(method, *arguments)
                        notified = await watched.notified(str(arguments[0]), since)
                        delays.append(notified - at)
                print(f"median {statistics.median(delays) * 1000:.1f} ms")
                assert statistics.median(delays) < MAX_NOTIFY_DELAY
            since = time.monotonic()
            await store.save(key("local"), b"v", 60.0)
            await watched.notified(key("local"), since)

    run(main(), "uvloop")


def test_reads_and_void_deletes_not_notified(backend: Backend) -> None:

    async def main() -> None:
        async with Watched(backend.settings) as watched:
            store = await watched.ready()
            since = time.monotonic()
            await store.save(key("quiet"), b"v", 60.0)
            await watched.notified(key("quiet"), since)
            watched.changes.clear()
            await store.load(key("quiet"))
            await store.delete(key("absent"))
            since = time.monotonic()
            await store.save(key("marker"), b"v", 60.0)
            await watched.notified(key("marker"), since)
            changed = {changed for changed, _ in watched.changes}
            assert not changed & {key("quiet"), key("absent"), None}
            await store.delete(key("quiet"))

    run(main(), "uvloop")
