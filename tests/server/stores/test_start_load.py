"""Reads without a task: results, errors, and when `load_all` has to be called."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from authproxy.contract import Loaded
from authproxy.metrics.exposition import render_totals
from authproxy.metrics.metrics import Metrics
from authproxy.net.idp_client import HttpClient
from authproxy.serve.performer import Performer
from authproxy.server_settings import ClientSettings, RedisSettings, StoreSettings
from authproxy.stores.base import MAX_VALUE
from authproxy_core.effects import Load, LoadAll
from authproxy_core.errors import StoreError
from support.programs import find
from support.redis import RedisServer
from support.scripted import run
from support.stores import Watched

pytestmark = pytest.mark.skipif(
    find("redis-server") is None, reason="redis-server is not installed"
)
SOON = 20.0  # seconds; for slow machines


async def loaded(performer: Performer, *keys: str) -> Loaded:
    """Return what the callback gets."""
    result: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
    assert performer.start_load(LoadAll(keys), result.set_result)
    assert not result.done()  # the caller may still set up what the callback needs
    return await asyncio.wait_for(result, SOON)


def test_redis_start_load_returns_values_errors_or_none(tmp_path: Path) -> None:
    async def main(redis: RedisServer) -> None:
        settings = RedisSettings(addresses=(redis.address,))
        metrics = Metrics(enabled=True)
        metrics.worker_started()
        async with Watched(StoreSettings(kind="redis", redis=settings)) as watched:
            store = await watched.ready()
            client = HttpClient(ClientSettings())
            performer = Performer(client, store, metrics)
            assert not performer.start_load(Load("_oauth2_proxy-a"), print)
            await store.save("_oauth2_proxy-a", b"1", 60.0)
            found = await loaded(performer, "_oauth2_proxy-a", "_oauth2_proxy-b")
            assert found == (b"1", None)
            redis.ask("SETRANGE", "_oauth2_proxy-c", str(MAX_VALUE), "x")
            assert isinstance(await loaded(performer, "_oauth2_proxy-c"), StoreError)
            redis.ask("ACL", "SETUSER", "default", "-mget")
            assert await loaded(performer, "_oauth2_proxy-a") is None
            assert await store.load_all(("_oauth2_proxy-a",)) == (b"1",)
            # It has learned that the user may not run MGET.
            assert not performer.start_load(LoadAll(("_oauth2_proxy-a",)), print)
        text = render_totals(metrics.shared.used_slots())
        counted = re.findall(r'operations_total\{operation="load_all",(.*)\} 1\n', text)
        assert counted == ['outcome="ok"', 'outcome="error"']

    with RedisServer(tmp_path) as redis:
        run(main(redis))


def test_redis_start_load_after_lost_connection_asks_for_a_retry(
    tmp_path: Path,
) -> None:
    async def main(redis: RedisServer) -> None:
        settings = RedisSettings(addresses=(redis.address,))
        async with Watched(StoreSettings(kind="redis", redis=settings)) as watched:
            performer = Performer(HttpClient(ClientSettings()), await watched.ready())
            redis.kill()
            assert await loaded(performer, "_oauth2_proxy-a") is None
            await watched.until(lambda store: not store.available, "the end")
            assert not performer.start_load(LoadAll(("_oauth2_proxy-a",)), print)

    with RedisServer(tmp_path) as redis:
        run(main(redis))
