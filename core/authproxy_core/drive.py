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
    resume: Callable[[Any], Effect[Any]] = flow.send
    result: Any = None
    while True:
        try:
            effect = resume(result)
        except StopIteration as stop:
            return cast(R, stop.value)
        finally:
            del result  # the traceback of an error would refer to itself by this frame
        try:
            resume, result = flow.send, await perform(effect)
        except Exception as error:  # noqa: BLE001 - thrown into the flow
            resume, result = flow.throw, error


def drive_sync(flow: Flow[R], perform: Callable[[Effect[Any]], Any]) -> R:
    """Run *flow* like `drive` with a plain function: for threads, WSGI, scripts."""
    resume: Callable[[Any], Effect[Any]] = flow.send
    result: Any = None
    while True:
        try:
            effect = resume(result)
        except StopIteration as stop:
            return cast(R, stop.value)
        finally:
            del result  # as in `drive`
        try:
            resume, result = flow.send, perform(effect)
        except Exception as error:  # noqa: BLE001 - thrown into the flow
            resume, result = flow.throw, error


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
