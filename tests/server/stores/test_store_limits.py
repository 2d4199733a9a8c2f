"""Limits of stores: queues, replies, set members, deferred releases."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

from authproxy.server_settings import RedisAddress
from authproxy.stores import sqlite_file, sqlite_thread
from authproxy.stores.redis_connection import (
    MAX_PENDING_COMMANDS,
    MAX_REPLY,
    ConnectionLostError,
    RedisConnection,
)
from authproxy.stores.sqlite_file import open_database
from authproxy.stores.sqlite_thread import SqliteThread
from authproxy.stores.store_locks import MAX_DEFERRED_RELEASES, StoreLocks
from authproxy_core.errors import StoreError
from support.cycles import cyclic, without_collections
from support.ports import LOOPBACK
from support.scripted import Peer, ScriptedServer, run


def test_sqlite_thread_queue_limit(tmp_path: Path) -> None:
    go = threading.Event()

    async def main() -> None:
        works = SqliteThread(
            str(tmp_path / "s.db"), writes=False, on_state=lambda: None
        )
        first = asyncio.ensure_future(works.run(lambda _: go.wait(20), 20))
        await asyncio.sleep(0)  # it has been taken from the queue
        rest = [
            asyncio.ensure_future(works.run(lambda _: 1, 20))
            for _ in range(sqlite_thread.MAX_QUEUED_JOBS)
        ]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="session store queue full"):
            await works.run(lambda _: 1, 20)
        go.set()
        assert await first
        assert sum(await asyncio.gather(*rest)) == sqlite_thread.MAX_QUEUED_JOBS
        assert await works.run(lambda _: 1, 20) == 1
        await works.close()

    run(main())


async def connect_redis(port: int) -> RedisConnection:
    """Return a connection to a Redis server at *port*."""
    loop = asyncio.get_running_loop()
    address = RedisAddress(host=LOOPBACK, port=port)
    _, link = await loop.create_connection(
        lambda: RedisConnection(address, 20), LOOPBACK, port
    )
    return link


def test_redis_connection_queue_limit() -> None:
    async def silent(peer: Peer) -> None:
        await peer.reader.read()

    async def main() -> None:
        async with ScriptedServer(silent) as played:
            link = await connect_redis(played.port)
            asked = [link.send(("PING",)) for _ in range(MAX_PENDING_COMMANDS)]
            with pytest.raises(StoreError, match="session store queue full"):
                link.send(("PING",))
            link.abort("the end")
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(one) for one in ended} == {ConnectionLostError}

    run(main())


@pytest.mark.parametrize("more", [0, 1])
def test_redis_connection_reply_limit(more: int) -> None:
    """Above the limit an incomplete reply is not buffered."""
    head = b"$%d\r\n" % (MAX_REPLY - 10 + more)
    assert len(head) == 10
    text = head + b"x" * (MAX_REPLY - 10 + more)

    async def long(peer: Peer) -> None:
        await peer.reader.readuntil(b"PING\r\n")
        await peer.send(text + (b"" if more else b"\r\n"))
        await peer.reader.read()

    async def main() -> None:
        async with ScriptedServer(long) as played:
            link = await connect_redis(played.port)
            response = link.send(("PING",))
            if more:
                with pytest.raises(ConnectionLostError, match="longer than"):
                    await link.reply(response)
            else:
                assert len(await link.reply(response)) == MAX_REPLY - 10
            link.abort("the end")

    run(main())


def test_failed_operations_of_stores_are_freed_without_a_collection(
    tmp_path: Path,
) -> None:
    async def closing(peer: Peer) -> None:
        await peer.reader.readuntil(b"PING\r\n")

    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def main() -> None:
        thread = SqliteThread(
            str(tmp_path / "s.db"), writes=False, on_state=lambda: None
        )
        async with ScriptedServer(closing) as played:
            with without_collections():
                for kind in ("call", "ping"):
                    link = await connect_redis(played.port)
                    with pytest.raises(StoreError):
                        await (link.call("PING") if kind == "call" else link.ping(20))
                    await link.close()
                    del link
                with pytest.raises(StoreError, match="disk"):
                    await thread.run(fail, 20)
                assert cyclic() == []
        await thread.close()

    run(main())


def test_sqlite_set_member_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MAX_MEMBERS", 3)
    connection = open_database(str(tmp_path / "s.db"))
    with contextlib.closing(connection):
        for number, found in ((1, 1), (2, 2), (3, 3), (4, 3)):
            sqlite_file.add(connection, "set", b"m%d" % number, 60.0, 1.0)
            assert len(sqlite_file.members(connection, "set", 2.0)) == found


def test_store_locks_deferred_release_limit() -> None:
    async def away() -> None:
        raise StoreError("away")

    async def main() -> list[str]:
        locks = StoreLocks()
        for number in range(MAX_DEFERRED_RELEASES + 1):
            with pytest.raises(StoreError):
                await locks.release(f"k{number}", f"t{number}", away)
        given: list[str] = []

        async def release(key: str, token: str) -> None:
            given.append(key)

        await locks.release_deferred(release)
        return given

    assert run(main()) == [f"k{number}" for number in range(MAX_DEFERRED_RELEASES)]
