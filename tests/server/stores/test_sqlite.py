"""The embedded store: its file, and failures of the file."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from authproxy.server_settings import StoreSettings
from authproxy.stores import sqlite, sqlite_file
from authproxy.stores.base import Store
from authproxy.stores.sqlite import SqliteStore
from authproxy_core.errors import StoreError
from support.scripted import run
from support.stores import RemoteStore, Watched


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the file."""
    return tmp_path / "sessions.db"


def settings(path: Path) -> StoreSettings:
    """Return settings of a store in *path*."""
    return StoreSettings(kind="sqlite", path=str(path))


def with_watched(path: Path, body: Callable[[Watched], Awaitable[None]]) -> None:
    """Run *body* with a started store."""

    async def main() -> None:
        async with Watched(settings(path)) as watched:
            await body(watched)

    run(main(), "uvloop")


async def assert_save_fails(store: Store, text: str) -> None:
    """Check that a write fails with *text*, and does not hang."""
    async with asyncio.timeout(10.0):
        with pytest.raises(StoreError, match=text):
            await store.save("k", b"v" * 50_000, 60.0)


def test_file_is_private(path: Path) -> None:
    """The mode of an existing file is corrected; -wal and -shm are private, too."""
    path.touch(mode=0o644)
    path.chmod(0o644)

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save("k", b"v", 60.0)
        files = sorted(path.parent.iterdir())
        assert [one.name for one in files] == [
            "sessions.db",
            "sessions.db-shm",
            "sessions.db-wal",
        ]
        assert {one.stat().st_mode & 0o777 for one in files} == {0o600}

    with_watched(path, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_rejected(path: Path) -> None:
    path.touch()
    os.chown(path, 12345, 12345)

    async def body(watched: Watched) -> None:
        assert not watched.store.available
        await assert_save_fails(watched.store, "owned by user")
        path.unlink()
        await watched.ready()

    with_watched(path, body)


def test_file_without_database_rejected_and_unchanged(path: Path) -> None:
    path.write_bytes(b"precious" * 1000)

    async def body(watched: Watched) -> None:
        await assert_save_fails(watched.store, "not a database")
        assert not watched.store.available
        assert not watched.store.notifies

    with_watched(path, body)
    assert path.read_bytes() == b"precious" * 1000


def test_later_schema_version_rejected(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with_watched(
        path, lambda watched: assert_save_fails(watched.store, "later version")
    )


def test_wal_mode_required(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.execute("BEGIN EXCLUSIVE")  # prevents the change of the journal mode

    async def body(watched: Watched) -> None:
        assert not watched.store.available
        connection.rollback()
        await watched.ready()

    with_watched(path, body)
    connection.close()


def test_missing_directory_created_later(tmp_path: Path) -> None:
    """The store becomes available once the directory exists."""
    path = tmp_path / "late" / "sessions.db"

    async def body(watched: Watched) -> None:
        assert not watched.store.available
        assert "No such file" in watched.store.error
        with pytest.raises(StoreError):
            await watched.store.load("k")
        path.parent.mkdir()
        store = await watched.ready()
        await store.save("k", b"v", 60.0)
        assert watched.states[-1] == (True, True)

    with_watched(path, body)


def test_saved_values_survive_restart_and_kill(path: Path) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save("saved", b"v", 60.0)
        await store.add("set", b"m", 0.0)
        with RemoteStore(settings(path)) as other:
            for number in range(50):
                await other.do("save", f"n{number}", b"v", 60.0)
            os.kill(other.pid, signal.SIGKILL)

    with_watched(path, body)

    async def after_restart(watched: Watched) -> None:
        store = await watched.ready()
        assert await store.load("saved") == b"v"
        assert await store.members("set") == (b"m",)
        names = tuple(f"n{number}" for number in range(50))
        assert await store.load_all(names) == (b"v",) * 50

    with_watched(path, after_restart)


def test_closing_process_keeps_wal_file_of_others(path: Path) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        for number in range(3):
            await store.save(f"before{number}", b"v", 60.0)
            with RemoteStore(settings(path)) as other:
                assert await other.do("load", f"before{number}") == b"v"
            assert path.with_name("sessions.db-wal").exists()

    with_watched(path, body)


def test_locked_file_fails_writes_but_not_reads(path: Path) -> None:
    """Notifications continue, and the event loop is not blocked."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save("k", b"v", 60.0)
        intruder = sqlite3.connect(path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        await assert_save_fails(store, "locked")
        assert ticks > 10  # the event loop was not blocked
        ticking.cancel()
        assert not store.available
        assert store.notifies
        assert await store.load("k") == b"v"
        with pytest.raises(StoreError):
            await store.acquire_lock("l", 10.0, 0.1, "t")
        intruder.execute("COMMIT")
        intruder.close()
        await watched.until(lambda one: one.available, "the store")
        assert await store.acquire_lock("l", 10.0, 0.1, "t")

    with_watched(path, body)


def test_full_disk_fails_writes_until_space_is_free(path: Path) -> None:

    async def main() -> None:
        with RemoteStore(settings(path)) as other:
            await other.do("save", "k", b"v", 60.0)
            _, hard = resource.prlimit(other.pid, resource.RLIMIT_FSIZE)
            size = sum(one.stat().st_size for one in path.parent.iterdir())
            resource.prlimit(other.pid, resource.RLIMIT_FSIZE, (size, hard))

            async def fill() -> None:
                for number in range(200):
                    await other.do("save", f"n{number}", b"v" * 50_000, 60.0)

            with pytest.raises(AssertionError, match="StoreError"):
                await fill()
            assert await other.do("load", "k") == b"v"
            resource.prlimit(other.pid, resource.RLIMIT_FSIZE, (hard, hard))
            await other.do("save", "k", b"w" * 50_000, 60.0)
            assert await other.do("load", "k") == b"w" * 50_000

    run(main())


def test_removed_file_recreated_and_caches_invalidated(path: Path) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save("k", b"v", 60.0)
        watched.changes.clear()
        began = time.monotonic()
        for one in path.parent.iterdir():
            one.unlink()
        await watched.until(lambda _: path.exists(), "a new file")
        await watched.until(lambda one: one.available and one.notifies, "the store")
        await watched.notified("everything", began)
        assert await store.load("k") is None
        await store.save("k", b"v", 60.0)
        with RemoteStore(settings(path)) as other:
            assert await other.do("load", "k") == b"v"

    with_watched(path, body)


def test_st07_too_long_value_fails_only_its_load(path: Path) -> None:
    """The value is not read into memory."""

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save("good", b"v", 60.0)
        with sqlite3.connect(path) as intruder:
            intruder.execute(
                "INSERT INTO entry VALUES ('huge', zeroblob(50000000), 9e999)"
            )
        intruder.close()
        results = await asyncio.gather(
            *[store.load(name) for name in ("good", "huge", "good")],
            return_exceptions=True,
        )
        assert results[::2] == [b"v", b"v"]
        assert isinstance(results[1], StoreError)
        assert store.available

    with_watched(path, body)


def test_purge_removes_expired_rows_in_batches(path: Path) -> None:
    connection = sqlite_file.open_database(str(path))
    for number in range(1200):
        sqlite_file.save(connection, f"k{number}", b"v", 10.0, 1.0)
        sqlite_file.add(connection, "set", b"%d" % number, 10.0, 1.0)
    sqlite_file.save(connection, "saved", b"v", 100.0, 50.0)
    sqlite_file.acquire_lock(connection, "expired", "t", 10.0, 1.0)
    sqlite_file.acquire_lock(connection, "held", "t", 100.0, 1.0)
    rounds = 1
    while sqlite_file.purge(connection, 62.0):
        rounds += 1
    assert rounds == 5  # 2401 changes, 500 at a time
    counts = {
        table: next(connection.execute(f"SELECT count(*) FROM {table}"))[0]
        for table in ("entry", "member", "lock", "change")
    }
    assert counts == {"entry": 1, "member": 0, "lock": 1, "change": 1}
    connection.close()


def test_running_store_purges_and_touches_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PURGE_INTERVAL", 0.1)

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        await store.save("k", b"v", 0.1)
        os.utime(path, (1.0, 1.0))
        connection = sqlite3.connect(path)
        await watched.until(
            lambda _: not connection.execute("SELECT * FROM entry").fetchall(),
            "the purge",
        )
        connection.close()
        await watched.until(
            lambda _: path.stat().st_mtime > 1.0, "a new modification time"
        )

    with_watched(path, body)


def test_changes_since_purged_or_too_many_returns_none(path: Path) -> None:
    writer = sqlite_file.open_database(str(path))
    reader = sqlite_file.open_database(str(path))
    first = sqlite_file.changes_since(reader, None)
    assert first.keys is None
    assert sqlite_file.changes_since(reader, first).keys == ()
    sqlite_file.save(writer, "a", b"v", 100.0, 1.0)
    sqlite_file.save(writer, "a", b"v", 100.0, 1.0)
    sqlite_file.save(writer, "b", b"v", 100.0, 1.0)
    second = sqlite_file.changes_since(reader, first)
    assert second.keys == ("a", "b")
    sqlite_file.save(writer, "c", b"v", 100.0, 1.0)
    sqlite_file.purge(writer, 90.0)
    third = sqlite_file.changes_since(reader, second)
    assert third.keys is None
    for number in range(sqlite_file.MAX_CHANGES + 1):
        sqlite_file.save(writer, f"k{number}", b"v", 100.0, 90.0)
    fourth = sqlite_file.changes_since(reader, third)
    assert fourth.keys is None
    assert sqlite_file.changes_since(reader, fourth).keys == ()
    for connection in (writer, reader):
        connection.close()


def test_idle_store_uses_little_cpu(path: Path) -> None:

    async def body(watched: Watched) -> None:
        await watched.ready()
        before = time.process_time()
        await asyncio.sleep(2.0)
        share = (time.process_time() - before) / 2.0
        print(f"{share * 100:.2f} % of a CPU")
        assert share < 0.05

    with_watched(path, body)


def test_slow_poll_ends_notifications_without_losing_changes(path: Path) -> None:

    async def body(watched: Watched) -> None:
        store = await watched.ready()
        assert isinstance(store, SqliteStore)
        with RemoteStore(settings(path)) as other:
            await other.do("load", "k")
            blocked = asyncio.ensure_future(
                store._reader.run(lambda _: time.sleep(1.5), 5.0)
            )
            await watched.until(
                lambda one: not one.notifies, "the loss of notifications"
            )
            began = time.monotonic()
            await other.do("save", "k", b"v", 60.0)
            assert not store.notifies
            await blocked
            await watched.notified("k", began)
            await watched.until(lambda one: one.notifies, "notifications")

    with_watched(path, body)
