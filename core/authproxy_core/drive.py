"""The loops that every embedder needs: run a flow to its result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

from .effects import Effect, Flow, Outcome
from .messages import Decision

R = TypeVar("R")


async def drive(flow: Flow[R], perform: Callable[[Effect[Any]], Awaitable[Any]]) -> R:
    """Run *flow*, performing its effects with an async function; returns its result.

    An `EffectError` (or, for `Offload`, any exception) that *perform* raises is thrown
    into the flow.
    """
    step: Callable[[], Effect[Any]] = lambda: next(flow)  # noqa: E731
    while True:
        try:
            effect = step()
        except StopIteration as stop:
            return cast(R, stop.value)
        step = _answer(flow, *(await _attempt(effect, perform)))


async def _attempt(
    effect: Effect[Any], perform: Callable[[Effect[Any]], Awaitable[Any]]
) -> tuple[Any, Exception | None]:
    try:
        return await perform(effect), None
    except Exception as error:  # noqa: BLE001 - it goes on inside the flow
        return None, error


def drive_sync(flow: Flow[R], perform: Callable[[Effect[Any]], Any]) -> R:
    """The same as `drive` for a plain function: threads, WSGI, scripts."""
    step: Callable[[], Effect[Any]] = lambda: next(flow)  # noqa: E731
    while True:
        try:
            effect = step()
        except StopIteration as stop:
            return cast(R, stop.value)
        try:
            answer, error = perform(effect), None
        except Exception as exc:  # noqa: BLE001 - it goes on inside the flow
            answer, error = None, exc
        step = _answer(flow, answer, error)


def _answer(
    flow: Flow[Any], answer: Any, error: Exception | None
) -> Callable[[], Effect[Any]]:
    if error is not None:
        return lambda: flow.throw(error)
    return lambda: flow.send(answer)


async def decide(
    outcome: Outcome, perform: Callable[[Effect[Any]], Awaitable[Any]]
) -> Decision:
    """The decision of either kind of outcome."""
    if isinstance(outcome, Generator):
        return await drive(outcome, perform)
    return outcome


def decide_sync(outcome: Outcome, perform: Callable[[Effect[Any]], Any]) -> Decision:
    """The same as `decide` for a plain function."""
    if isinstance(outcome, Generator):
        return drive_sync(outcome, perform)
    return outcome
