"""Drivers: run flows with and without await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from authproxy_core.drive import decide, decide_sync, drive, drive_sync
from authproxy_core.effects import Effect, Flow, Load, Offload, Sleep
from authproxy_core.errors import StoreError
from authproxy_core.messages import Decision, Respond

Perform = Callable[[Effect[Any]], Any]
Runner = Callable[[Flow[Any], Perform], Any]
Decider = Callable[[Any, Perform], Decision]


def awaited(perform: Perform) -> Callable[[Effect[Any]], Any]:
    async def later(effect: Effect[Any]) -> Any:
        await asyncio.sleep(0)
        return perform(effect)

    return later


def run_async(flow: Flow[Any], perform: Perform) -> Any:
    return asyncio.run(drive(flow, awaited(perform)))


def decide_async(outcome: Any, perform: Perform) -> Decision:
    return asyncio.run(decide(outcome, awaited(perform)))


both = pytest.mark.parametrize("run", [drive_sync, run_async])


def perform(effect: Effect[Any]) -> Any:
    match effect:
        case Load("unavailable"):
            raise StoreError("unavailable")
        case Load(key):
            return key.encode()
        case Offload(function):
            return function()
        case _:
            return None


def two_loads() -> Flow[bytes]:
    first = yield from Load("a")
    yield from Sleep(0.0)
    second = yield from Load("b")
    return (first or b"") + (second or b"")


def recovers() -> Flow[str]:
    try:
        yield from Load("unavailable")
    except StoreError as error:
        value = yield from Load("c")
        return f"{error} {value!r}"
    return "not reached"


def immediate() -> Flow[int]:
    return 7
    yield  # makes this function a generator


def fails() -> Flow[None]:
    yield from Load("unavailable")


def offloads(function: Callable[[], Any]) -> Flow[Any]:
    return (yield from Offload(function))


def decision_flow() -> Flow[Decision]:
    yield from Load("a")
    return Respond(204)


@both
def test_drive_sends_results_into_flow(run: Runner) -> None:
    assert run(two_loads(), perform) == b"ab"


@both
def test_drive_throws_errors_into_flow(run: Runner) -> None:
    assert run(recovers(), perform) == "unavailable b'c'"


@both
def test_drive_flow_without_effects_returns(run: Runner) -> None:
    assert run(immediate(), perform) == 7


@both
def test_drive_uncaught_error_propagates(run: Runner) -> None:
    with pytest.raises(StoreError, match="unavailable"):
        run(fails(), perform)


@both
def test_drive_offload_error_thrown_into_flow(run: Runner) -> None:
    assert run(offloads(lambda: 3), perform) == 3
    with pytest.raises(ZeroDivisionError):
        run(offloads(lambda: 1 // 0), perform)


@both
def test_drive_stop_iteration_of_effect_does_not_end_flow(run: Runner) -> None:
    with pytest.raises(RuntimeError):
        run(offloads(lambda: next(iter(()))), perform)


@pytest.mark.parametrize("decide", [decide_sync, decide_async])
def test_decide_accepts_decision_and_flow(decide: Decider) -> None:
    assert decide(Respond(202), perform) == Respond(202)
    assert decide(decision_flow(), perform) == Respond(204)


def test_drive_cancellation_closes_flow() -> None:
    closed: list[bool] = []

    def flow() -> Flow[None]:
        try:
            yield from Sleep(3600.0)
        except GeneratorExit:
            closed.append(True)
            raise

    async def forever(effect: Effect[Any]) -> Any:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(drive(flow(), forever))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert closed == [True]
