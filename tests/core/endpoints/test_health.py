"""Health checks by path and user agent, and queries with semicolons."""

from __future__ import annotations

import pytest

from authproxy_core.messages import Header
from support.world import World, header, settings

GOOGLE: Header = (b"user-agent", b"GoogleHC/1.0")
OTHER: Header = (b"user-agent", b"probe/1")
PATHS = ("/ping", "/liveness_check", "/readiness_check")


@pytest.mark.parametrize("path", PATHS)
def test_googles_checks_are_answered_by_option(path: str) -> None:
    world = World(settings(gcp_healthchecks=True))
    assert world.get(path, GOOGLE).body == b"OK"
    assert world.get(path, OTHER).status == 403
    assert world.get(path).status == 403


@pytest.mark.parametrize("path", PATHS)
def test_with_a_user_agent_both_are_answered(path: str) -> None:
    world = World(settings(gcp_healthchecks=True, ping_user_agent="probe/1"))
    assert world.get(path, GOOGLE).status == 200
    assert world.get(path, OTHER).status == 200
    assert world.get(path, (b"user-agent", b"probe/10")).status == 403


def test_usually_anybody_may_ask_under_the_usual_path_alone() -> None:
    world = World()
    assert world.get("/ping").body == b"OK"
    assert world.get("/liveness_check", GOOGLE).status == 403
    world = World(settings(ping_path="", gcp_healthchecks=True))
    assert world.get("/ping", GOOGLE).status == 403


def state(world: World, target: str) -> bytes:
    """The path that a login started with *target* returns to."""
    answer = world.get(target)
    callback = world.idp.log_in(header(answer, b"location").decode(), "alice")
    return header(world.get(callback.removeprefix("https://app.example.com")),
                  b"location")  # fmt: skip


def test_semicolons_separate_by_option() -> None:
    assert state(World(), "/oauth2/start?a=1;rd=/deep") == b"/"
    world = World(settings(allow_query_semicolons=True))
    assert state(world, "/oauth2/start?a=1;rd=/deep") == b"/deep"
    assert state(world, "/oauth2/start?rd=/other") == b"/other"
