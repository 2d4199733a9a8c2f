"""Effect performer: results of effects, lock ownership, metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from authproxy.contract import Perform
from authproxy.metrics.exposition import render_totals
from authproxy.metrics.metrics import Metrics
from authproxy.net.idp_client import HttpClient
from authproxy.serve.performer import Performer
from authproxy.server_settings import ClientSettings, StoreSettings
from authproxy_core.effects import (
    Add,
    Delete,
    Fetch,
    Load,
    LoadAll,
    Lock,
    Members,
    Offload,
    ReadBody,
    Remove,
    Save,
    Sleep,
    Unlock,
)
from authproxy_core.errors import BodyTooLarge, ClientGone, FetchError, StoreError
from support.stores import Watched


class Body:
    """A body of five bytes."""

    async def read_all(self, limit: int) -> bytes:
        """Return the body, or raise `BodyTooLarge`."""
        if limit < 5:
            raise BodyTooLarge("too large")
        return b"hello"


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* with a timeout, so that a deadlock fails the test."""
    asyncio.run(asyncio.wait_for(main, 10))


def performers(count: int) -> list[Perform]:
    """Return the effect functions of *count* requests."""
    performer = Performer(HttpClient(ClientSettings()))
    return [performer.bound_to(Body()) for _ in range(count)]


def test_performer_effects_return_results_or_raise() -> None:
    async def main() -> None:
        (perform,) = performers(1)
        assert await perform(ReadBody(5)) == b"hello"
        with pytest.raises(BodyTooLarge):
            await perform(ReadBody(4))
        assert await perform(Sleep(0.0)) is None
        assert await perform(Offload(lambda: 6 * 7)) == 42
        with pytest.raises(ZeroDivisionError):
            await perform(Offload(lambda: 1 // 0))
        for effect in (Load("k"), Save("k", b"v", 1.0), Delete("k")):
            with pytest.raises(StoreError, match="no session store"):
                await perform(effect)
        with pytest.raises(FetchError):
            await perform(Fetch("GET", "http://127.0.0.1:9/"))

    run(main())


def test_performer_read_body_without_request_raises() -> None:
    async def main() -> None:
        performer = Performer(HttpClient(ClientSettings()))
        with pytest.raises(ClientGone):
            await performer.perform(ReadBody(5))

    run(main())


def test_performer_late_unlock_keeps_next_holder() -> None:
    """A release after the lock has expired does not affect the next holder."""

    async def main() -> None:
        late, holder, third = performers(3)
        assert await late(Lock("k", 0.001, 0.0))
        assert await holder(Lock("k", 60.0, 10.0))  # as soon as the first lock expires
        await late(Unlock("k"))
        assert not await third(Lock("k", 60.0, 0.0))
        await holder(Unlock("k"))
        await holder(Unlock("k"))
        assert await third(Lock("k", 60.0, 0.0))
        await third(Unlock("k"))

    run(main())


def test_performer_late_unlock_during_hand_over_keeps_waiter() -> None:
    """A second release does not affect the waiter that got the lock."""

    async def main() -> None:
        first, second, third = performers(3)
        assert await first(Lock("k", 60.0, 0.0))
        waiter = asyncio.ensure_future(second(Lock("k", 60.0, 10.0)))
        await asyncio.sleep(0)
        await first(Unlock("k"))
        await first(Unlock("k"))
        assert not await third(Lock("k", 60.0, 0.0))
        assert await waiter
        await second(Unlock("k"))

    run(main())


def test_performer_counts_store_and_provider_operations(tmp_path: Path) -> None:
    async def main() -> None:
        metrics = Metrics()
        metrics.worker_started()
        path = str(tmp_path / "store.sqlite")
        async with Watched(StoreSettings(kind="sqlite", path=path)) as watched:
            client = HttpClient(ClientSettings())
            perform = Performer(client, watched.store, metrics).bound_to(Body())
            for effect in (
                Save("k", b"v", 9.0), Load("k"), LoadAll(("k",)), Delete("k"),
                Add("s", b"m", 9.0), Members("s"), Remove("s", b"m"),
                Lock("l", 9.0, 0.0), Unlock("l"), Unlock("other"),
            ):  # fmt: skip
                await perform(effect)
        with pytest.raises(StoreError):
            await perform(Load("k"))
        with pytest.raises(FetchError):
            await perform(Fetch("GET", "http://127.0.0.1:9/", purpose="token"))
        text = render_totals(metrics.shared.used_slots())
        counted = re.findall(r"store_operations_total\{(.*)\} 1\n", text)
        assert [one for one in counted if "error" in one] == [
            'operation="load",outcome="error"'
        ]
        assert len(counted) == 10
        assert 'provider_requests_total{purpose="token",outcome="failed"} 1' in text

    run(main())


def test_performer_form_limit_applies_unless_body_is_kept() -> None:
    async def main() -> None:
        client = HttpClient(ClientSettings())
        performer = Performer(client, form_bytes=100)
        limits: list[int] = []

        class Body:
            async def read_all(self, limit: int) -> bytes:
                limits.append(limit)
                return b""

            def unread(self, data: bytes) -> None:
                """Discard the body."""

        perform = performer.bound_to(Body())
        await perform(ReadBody(64 << 10))
        await perform(ReadBody(50))
        await perform(ReadBody(1 << 20, keep=True))
        assert limits == [100, 50, 1 << 20]
        await client.close()

    run(main())
