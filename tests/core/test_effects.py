"""Effects have typed results, and `with_lock` releases its lock."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.drive import drive_sync
from authproxy_core.effects import Effect, Fetch, Flow, Load, Lock, Unlock, with_lock
from authproxy_core.errors import FetchError, StoreError
from authproxy_core.messages import Response


class Performer:
    """Performs effects from a script: a result or an error for each type."""

    def __init__(self, script: dict[type[Effect[Any]], Any]) -> None:
        self.script = script
        self.seen: list[Effect[Any]] = []

    def __call__(self, effect: Effect[Any]) -> Any:
        self.seen.append(effect)
        result = self.script.get(type(effect))
        if isinstance(result, Exception):
            raise result
        return result


def status(url: str) -> Flow[int]:
    response = yield from Fetch("GET", url)
    return response.status


def test_effect_yields_itself_and_returns_result() -> None:
    perform = Performer({Fetch: Response(204)})
    assert drive_sync(status("https://idp.test/"), perform) == 204
    assert perform.seen == [Fetch("GET", "https://idp.test/")]


def test_with_lock_runs_flow_under_lock() -> None:
    perform = Performer({Lock: True, Fetch: Response(200)})
    flow = with_lock("key", status("u"), ttl=15.0, wait=2.0)
    assert drive_sync(flow, perform) == 200
    assert perform.seen == [Lock("key", 15.0, 2.0), Fetch("GET", "u"), Unlock("key")]


def test_with_lock_not_acquired_returns_none() -> None:
    perform = Performer({Lock: False})
    inner = status("u")
    assert drive_sync(with_lock("key", inner, ttl=15.0, wait=2.0), perform) is None
    assert perform.seen == [Lock("key", 15.0, 2.0)]
    with pytest.raises(StopIteration):  # closed, so it cannot run by mistake
        next(inner)


def test_with_lock_released_on_error() -> None:
    perform = Performer({Lock: True, Fetch: FetchError("connection refused")})
    with pytest.raises(FetchError, match="connection refused"):
        drive_sync(with_lock("key", status("u"), ttl=15.0, wait=2.0), perform)
    assert perform.seen[-1] == Unlock("key")


def test_with_lock_store_error_propagates() -> None:
    perform = Performer({Lock: StoreError("unavailable")})
    with pytest.raises(StoreError, match="unavailable"):
        drive_sync(with_lock("key", status("u"), ttl=15.0, wait=2.0), perform)


def test_with_lock_failed_release_keeps_result() -> None:
    perform = Performer(
        {Lock: True, Fetch: Response(200), Unlock: StoreError("unavailable")}
    )
    assert drive_sync(with_lock("key", status("u"), ttl=15.0, wait=2.0), perform) == 200


def test_with_lock_failed_release_keeps_error() -> None:
    perform = Performer(
        {
            Lock: True,
            Fetch: FetchError("connection refused"),
            Unlock: StoreError("unavailable"),
        }
    )
    with pytest.raises(FetchError, match="connection refused"):
        drive_sync(with_lock("key", status("u"), ttl=15.0, wait=2.0), perform)


def test_with_lock_closed_flow_yields_no_effect() -> None:
    flow = with_lock("key", status("u"), ttl=15.0, wait=2.0)
    assert next(flow) == Lock("key", 15.0, 2.0)
    assert flow.send(True) == Fetch("GET", "u")
    flow.close()  # a yield here would raise RuntimeError
    with pytest.raises(StopIteration):
        next(flow)


def test_effects_compare_by_value() -> None:
    assert Load("a") == Load("a") != Load("b")
    with pytest.raises(AttributeError):
        Load("a").key = "b"  # type: ignore[misc]  # must fail
