"""Effects: each has its answer; locks end, and only their holder gives them back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from authproxy.http_client import HttpClient
from authproxy.hub import Perform
from authproxy.perform import Performer
from authproxy.server_settings import ClientSettings
from authproxy_core.effects import (
    Delete,
    Fetch,
    Load,
    Lock,
    Offload,
    ReadBody,
    Save,
    Sleep,
    Unlock,
)
from authproxy_core.errors import BodyTooLarge, ClientGone, FetchError, StoreError


class Body:
    """A body of five bytes."""

    async def read_all(self, limit: int) -> bytes:
        """The body, or the error of one that is too large."""
        if limit < 5:
            raise BodyTooLarge("too large")
        return b"hello"


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main*; nothing may be left waiting."""
    asyncio.run(asyncio.wait_for(main, 10))


def performers(count: int) -> list[Perform]:
    """What performs the effects of so many requests."""
    performer = Performer(HttpClient(ClientSettings()))
    return [performer.bound_to(Body()) for _ in range(count)]


def test_simple_effects() -> None:
    """A body, a nap, work on another thread, and no store."""

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


def test_no_body_outside_a_request() -> None:
    """A background flow that asks for one gets an effect's error."""

    async def main() -> None:
        performer = Performer(HttpClient(ClientSettings()))
        with pytest.raises(ClientGone):
            await performer.perform(ReadBody(5))

    run(main())


def test_late_unlock_takes_nothing_away() -> None:
    """Whose time was over does not give back what somebody else holds by now."""

    async def main() -> None:
        late, holder, third = performers(3)
        assert await late(Lock("k", 0.001, 0.0))
        assert await holder(Lock("k", 60.0, 10.0))  # once the first one's time is over
        await late(Unlock("k"))
        assert not await third(Lock("k", 60.0, 0.0))
        await holder(Unlock("k"))
        await holder(Unlock("k"))
        assert await third(Lock("k", 60.0, 0.0))
        await third(Unlock("k"))

    run(main())


def test_late_unlock_during_the_hand_over() -> None:
    """Nor in the moment between the hand-over and the next holder's first step."""

    async def main() -> None:
        first, second, third = performers(3)
        assert await first(Lock("k", 60.0, 0.0))
        waits = asyncio.ensure_future(second(Lock("k", 60.0, 10.0)))
        await asyncio.sleep(0)
        await first(Unlock("k"))
        await first(Unlock("k"))
        assert not await third(Lock("k", 60.0, 0.0))
        assert await waits
        await second(Unlock("k"))

    run(main())
