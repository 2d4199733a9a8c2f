"""A refresh whose process is killed while it holds the lock in the store."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import SessionSettings
from authproxy_core.sessions.refresh import LOCK_WAIT
from authproxy_core.sessions.refresh_cache import LOCK_TTL
from support.fleet import Fleet, Run
from support.harness import settings

KINDS: dict[str, SessionSettings] = {
    "cookie": SessionSettings(shared=True),
    "ticket": SessionSettings(shared=True, backend="store"),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_killed_holder_of_refresh_lock_delays_one_request(kind: str) -> None:
    values: dict[str, Any] = {"cookie": {"refresh": 60.0}, "sessions": KINDS[kind]}
    fleet = Fleet(settings(**values))
    fleet[0].log_in()
    fleet.store.locks.clear()  # the login lock
    fleet.clock.now += 61
    jar = fleet.harness.jar
    request = fleet.harness.request("/oauth2/auth", jar=jar)
    killed = Run(fleet[0], fleet[0].proxy.handle(request))
    while not fleet.store.locks:
        killed.step()

    def check() -> float:
        """Return how long a request at the other process waits."""
        start = fleet.clock.now
        assert fleet[1].get("/oauth2/auth", jar=jar).status == 202
        return fleet.clock.now - start

    old = dict(jar)
    assert check() >= LOCK_WAIT
    for _ in range(5):
        fleet.clock.now += 2
        assert check() == 0
    assert jar == old
    fleet.clock.now += LOCK_TTL  # the lock expires
    assert check() == 0
    assert fleet.idp.count("token") == 2  # the login and the refresh
