"""Sessions in use that must not become idle, in whatever process they were used."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from authproxy_core import Fetch, Lock, SessionSettings
from support.fleet import Fleet, Run
from support.harness import settings

IDLE = 600.0  # seconds
KINDS: dict[str, SessionSettings] = {
    "cookie": SessionSettings(idle_timeout=IDLE),
    "shared": SessionSettings(shared=True, idle_timeout=IDLE),
    "ticket": SessionSettings(shared=True, backend="store", idle_timeout=IDLE),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def fleet_of(kind: str, **cookie: Any) -> Fleet:
    fleet = Fleet(settings(sessions=KINDS[kind], cookie=cookie))
    assert fleet[0].log_in().status == 302
    fleet.store.locks.clear()  # the login lock
    return fleet


def statuses(fleet: Fleet) -> list[int]:
    """Return the status of a check in each process, with the same cookies."""
    jar = fleet.harness.jar
    return [one.get("/oauth2/auth", jar=dict(jar)).status for one in fleet.processes]


def test_session_used_in_another_process_does_not_end_in_this_one() -> None:
    fleet = fleet_of("ticket")
    assert statuses(fleet) == [202, 202]  # cached in both
    for _ in range(3):
        fleet.clock.now += IDLE / 2
        assert fleet[1].get("/oauth2/auth").status == 202
    assert fleet[0].get("/oauth2/auth").status == 202
    assert fleet.harness.jar
    fleet.clock.now += IDLE + 1
    assert statuses(fleet) == [401, 401]


@kinds
def test_session_that_waits_for_a_refresh_beyond_its_end_is_refreshed(
    kind: str,
) -> None:
    fleet = fleet_of(kind, refresh=60.0)
    fleet.clock.now += IDLE - 1
    jar = fleet.harness.jar
    request = fleet.harness.request("/oauth2/auth", jar=jar)
    first, waiting = (Run(fleet[0], fleet[0].proxy.handle(request)) for _ in range(2))
    while not isinstance(first.effect, Fetch):
        first.step()
    while not isinstance(waiting.effect, Lock):
        waiting.step()
    fleet.clock.now += 2  # the old session would have ended
    fleet.finish(first, waiting)
    assert (first.result.status, waiting.result.status) == (202, 202)


@kinds
def test_session_that_waits_in_vain_beyond_its_end_has_ended(kind: str) -> None:
    fleet = fleet_of(kind, refresh=60.0)
    fleet.clock.now += IDLE - 1
    request = fleet.harness.request("/oauth2/auth", jar=fleet.harness.jar)
    waiting = Run(fleet[0], fleet[0].proxy.handle(request))
    while not isinstance(waiting.effect, Lock):
        waiting.step()
    fleet.idp.requests.clear()
    fleet.clock.now += 2
    fleet.finish(waiting)
    assert waiting.result.status == 401
    assert not fleet.idp.count("token")


@kinds
def test_session_in_use_stays_while_the_provider_is_unavailable(kind: str) -> None:
    fleet = fleet_of(kind, refresh=60.0)
    fleet.harness.config.failing["token"] = 503
    for _ in range(4):
        fleet.clock.now += IDLE / 2
        assert fleet[0].get("/oauth2/auth").status == 202
        assert fleet[0].get("/oauth2/auth").status == 202  # the next refresh is delayed
    del fleet.harness.config.failing["token"]
    fleet.clock.now += 11
    assert fleet[0].get("/oauth2/auth").status == 202
    fleet.harness.config.failing["token"] = 503
    fleet.clock.now += IDLE + 1
    assert fleet[0].get("/oauth2/auth").status == 401


@pytest.mark.parametrize("kind", ["shared", "ticket"])
def test_touch_does_not_replace_the_cookie_of_a_concurrent_refresh(kind: str) -> None:
    fleet = fleet_of(kind, refresh=60.0)
    fleet.clock.now += 61
    jar = fleet.harness.jar
    request = fleet.harness.request("/oauth2/auth", jar=jar)
    refreshing = Run(fleet[0], fleet[0].proxy.handle(request))
    while not isinstance(refreshing.effect, Fetch):
        refreshing.step()
    before = dict(jar)
    assert fleet[1].get("/oauth2/auth", jar=jar).status == 202
    assert jar == before
    fleet.finish(refreshing)
    assert refreshing.result.status == 202


def test_session_in_use_reaches_its_longest_lifetime() -> None:
    life = msgspec.structs.replace(KINDS["ticket"], max_lifetime=3 * IDLE)
    fleet = Fleet(settings(sessions=life))
    fleet[0].log_in()
    for _ in range(5):
        assert statuses(fleet) == [202, 202]
        fleet.clock.now += IDLE / 2
    fleet.clock.now += IDLE
    assert statuses(fleet) == [401, 401]
