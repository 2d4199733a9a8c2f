"""Fair queue: one callback per iteration of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from authproxy.loop.fair_queue import ITERATION_BUDGET, FairQueue


def record(steps: int, script: Callable[[FairQueue, list[str]], None]) -> list[str]:
    """Return what happens in *steps* iterations, whose ends are marked by "|"."""

    async def main() -> list[str]:
        seen: list[str] = []
        script(FairQueue(), seen)
        for _ in range(steps):
            await asyncio.sleep(0)
            seen.append("|")
        return seen

    return asyncio.run(main())


def test_fair_queue_calls_one_callback_per_iteration() -> None:
    def script(queue: FairQueue, seen: list[str]) -> None:
        for name in "abc":
            queue.add(lambda name=name: seen.append(name))  # type: ignore[misc]

    assert "".join(record(4, script)) == "a|b|c||"


def test_fair_queue_callback_added_again_waits_for_others() -> None:
    def script(queue: FairQueue, seen: list[str]) -> None:
        def work() -> None:
            seen.append("a")
            if seen.count("a") < 3:
                queue.add(work)

        queue.add(work)
        queue.add(lambda: seen.append("b"))

    assert "".join(record(4, script)) == "a|b|a|a|"


def test_fair_queue_cheap_callbacks_share_an_iteration() -> None:
    def script(queue: FairQueue, seen: list[str]) -> None:
        for name in "abcde":
            queue.add(lambda name=name: seen.append(name), ITERATION_BUDGET // 2)  # type: ignore[misc]

    assert "".join(record(4, script)) == "ab|cd|e||"


def test_fair_queue_spend_waits_beyond_the_budget() -> None:
    """No iteration does more than two budgets of work: its own, and that of its turns."""

    async def main() -> list[str]:
        queue, seen = FairQueue(), []

        async def work() -> None:
            for _ in range(10):
                await queue.spend(ITERATION_BUDGET // 2)
                seen.append("w")

        tasks = [asyncio.create_task(work()) for _ in range(4)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            seen.append("|")
        return seen

    iterations = "".join(asyncio.run(main())).strip("|").split("|")
    assert "".join(iterations) == "w" * 40
    assert iterations[0] == "ww"
    assert max(map(len, iterations)) <= 4


def test_fair_queue_failed_callback_does_not_stop_others() -> None:
    failures: list[object] = []

    def script(queue: FairQueue, seen: list[str]) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: failures.append(context["exception"])
        )
        queue.add(lambda: [].pop())
        queue.add(lambda: seen.append("b"))

    assert "".join(record(2, script)) == "|b|"
    assert isinstance(failures[0], IndexError)


def test_fair_queue_cancelled_wait_is_skipped() -> None:
    async def main() -> list[str]:
        queue, seen = FairQueue(), []

        async def wait(name: str) -> None:
            await queue.wait_turn()
            seen.append(name)

        tasks = [asyncio.create_task(wait(name)) for name in "ab"]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        return seen

    assert asyncio.run(main()) == ["b"]


def test_shared_callbacks_take_one_turn_of_a_round() -> None:
    """Of much work that no client waits for, another one waits for one callback."""

    async def main() -> list[str]:
        queue, order = FairQueue(), []

        def again(left: int) -> None:
            order.append("shared")
            if left:
                queue.add_shared(lambda: again(left - 1))

        for _ in range(5):
            queue.add_shared(lambda: again(2))
        done = asyncio.Event()
        for name in ("first", "second"):
            queue.add(lambda name=name: order.append(name))
        while len(order) < 17:
            queue.add(done.set)
            await done.wait()
            done.clear()
        return order

    order = asyncio.run(main())
    assert order[:3] == ["shared", "first", "second"]
    assert order.count("shared") == 15
