"""Each decision about access says what it was and why; others say nothing."""

from __future__ import annotations

import pytest

from authproxy_core import StoreError, UpstreamSettings
from authproxy_core.effects import Flow, Load
from authproxy_core.messages import Decision
from authproxy_core.pages.outcomes import with_error_handling
from support.world import World, settings

STRICT = settings(provider={"allowed_groups": ("admins",)})
UPSTREAMS = (
    UpstreamSettings(id="app", uri="http://10.0.0.9:8080/"),
    UpstreamSettings(id="fixed", path="/fixed", uri="", static_code=200),
)


def verdict(decision: Decision) -> tuple[str, str]:
    return decision.verdict, decision.reason


@pytest.mark.parametrize("target", ["/oauth2/auth", "/oauth2/userinfo", "/page"])
def test_nobody(world: World, target: str) -> None:
    assert verdict(world.get(target)) == ("unauthenticated", "no_session")


@pytest.mark.parametrize("skips", [False, True])
def test_nobody_is_sent_to_the_login(skips: bool) -> None:
    world = World(settings(skip_provider_button=skips))
    answer = world.get("/page")
    assert answer.status == (302 if skips else 403)
    assert verdict(answer) == ("unauthenticated", "no_session")


def test_a_script_without_session(world: World) -> None:
    answer = world.get("/page", (b"accept", b"application/json"))
    assert verdict(answer) == ("unauthenticated", "no_session")


@pytest.mark.parametrize("target", ["/oauth2/auth", "/page", "/fixed", "/fixed/not"])
def test_a_session(target: str) -> None:
    world = World(settings(upstreams=UPSTREAMS))
    world.log_in()
    assert verdict(world.send(target)) == ("allowed", "session")


@pytest.mark.parametrize("target", ["/oauth2/auth", "/oauth2/userinfo", "/page"])
def test_a_session_that_is_not_let_in(world: World, target: str) -> None:
    world.log_in("bob")
    world.proxy = world.new_proxy(STRICT)
    assert verdict(world.get(target)) == ("denied", "groups")


@pytest.mark.parametrize("target", ["/oauth2/auth", "/page"])
def test_a_demand_of_the_query(world: World, target: str) -> None:
    world.log_in()
    answer = world.get(f"{target}?allowed_groups=none")
    assert verdict(answer) == ("denied", "query")


@pytest.mark.parametrize("target", ["/ping", "/robots.txt", "/oauth2/sign_in"])
def test_what_is_not_about_access(world: World, target: str) -> None:
    assert verdict(world.get(target)) == ("", "")


def test_an_answer_with_cookies_keeps_its_verdict() -> None:
    world = World(settings(cookie={"refresh": 60.0}))
    world.log_in()
    world.clock.now += 61
    answer = world.get("/oauth2/auth")
    assert any(name == b"set-cookie" for name, _ in answer.headers)
    assert verdict(answer) == ("allowed", "session")


def test_a_store_that_is_away(world: World) -> None:
    def flow() -> Flow[Decision]:
        yield from Load("key")
        raise AssertionError

    outer = with_error_handling(flow())
    next(outer)
    with pytest.raises(StopIteration) as end:
        outer.throw(StoreError("away"))
    assert verdict(end.value.value) == ("failed", "store_unavailable")
