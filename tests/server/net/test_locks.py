"""Local locks: order, timeouts, expiry."""

from __future__ import annotations

import asyncio

from authproxy.net.locks import LocalLocks


def test_local_locks_fifo_with_timeouts_and_ttl() -> None:
    async def main() -> None:
        locks = LocalLocks()
        assert await locks.take_lock("a", 60, 0, "t")
        assert await locks.take_lock("b", 60, 0, "t")
        assert not await locks.take_lock("a", 60, 0.001, "t")
        order: list[int] = []

        async def wait(number: int) -> None:
            assert await locks.take_lock("a", 60, 60, "t")
            order.append(number)
            locks.release("a", "t")

        tasks = [asyncio.create_task(wait(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        locks.release("a", "t")
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 2, 3]
        assert await locks.take_lock("a", 0.001, 0, "t")
        assert await locks.take_lock(
            "a", 60, 60, "t"
        )  # the first holder's lock has expired
        locks.release("a", "t")
        locks.release("b", "t")
        locks.release("b", "t")
        assert not locks._held
        assert not locks._waiting

    asyncio.run(main())
