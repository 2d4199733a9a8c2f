"""Run flows: the loops that every driver needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

from .effects import Effect, Flow, Outcome
from .messages import Decision

R = TypeVar("R")


async def drive(flow: Flow[R], perform: Callable[[Effect[Any]], Awaitable[Any]]) -> R:
    """Run *flow*, performing its effects with an async function; return its result.

    An exception of *perform* is thrown into the flow: an `EffectError`, or for `Offload`
    any exception.
    """
    step: Callable[[], Effect[Any]] = lambda: next(flow)  # noqa: E731
    while True:
        try:
            effect = step()
        except StopIteration as stop:
            return cast(R, stop.value)
        step = _next_step(flow, *(await _attempt(effect, perform)))


async def _attempt(
    effect: Effect[Any], perform: Callable[[Effect[Any]], Awaitable[Any]]
) -> tuple[Any, Exception | None]:
    try:
        return await perform(effect), None
    except Exception as error:  # noqa: BLE001 - thrown into the flow
        return None, error


def drive_sync(flow: Flow[R], perform: Callable[[Effect[Any]], Any]) -> R:
    """Run *flow* like `drive` with a plain function: for threads, WSGI, scripts."""
    step: Callable[[], Effect[Any]] = lambda: next(flow)  # noqa: E731
    while True:
        try:
            effect = step()
        except StopIteration as stop:
            return cast(R, stop.value)
        try:
            result, error = perform(effect), None
        except Exception as exc:  # noqa: BLE001 - thrown into the flow
            result, error = None, exc
        step = _next_step(flow, result, error)


def _next_step(
    flow: Flow[Any], result: Any, error: Exception | None
) -> Callable[[], Effect[Any]]:
    if error is not None:
        return lambda: flow.throw(error)
    return lambda: flow.send(result)


async def decide(
    outcome: Outcome, perform: Callable[[Effect[Any]], Awaitable[Any]]
) -> Decision:
    """Return the decision of an outcome; run it if it is a flow (see `drive`)."""
    if isinstance(outcome, Generator):
        return await drive(outcome, perform)
    return outcome


def decide_sync(outcome: Outcome, perform: Callable[[Effect[Any]], Any]) -> Decision:
    """Return the decision of an outcome; run it if it is a flow (see `drive_sync`)."""
    if isinstance(outcome, Generator):
        return drive_sync(outcome, perform)
    return outcome
