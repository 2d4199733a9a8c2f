"""A session's life: the table of the design, one test for each row."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from authproxy_core import Fetch, FetchError, Lock, Respond, Response, Unlock
from authproxy_core.session import Session
from authproxy_core.sessions.lifetimes import SessionDeadlines
from authproxy_core.sessions.session_cache import SessionEntry
from support.world import START, World, header, headers, play, settings


@pytest.fixture
def refreshing() -> World:
    """A session that is refreshed after a minute, just logged in."""
    world = World(settings(cookie={"refresh": 60.0}))
    world.log_in()
    world.idp.seen.clear()
    return world


def stale(world: World) -> Any:
    """The flow of a check with the session gone stale."""
    world.clock.now += 61
    return world.proxy.check(world.request("/oauth2/auth"))


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.events if event.kind != "provider_ready"]


def test_fresh_needs_no_effect(refreshing: World) -> None:
    decision = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert isinstance(decision, Respond)
    assert decision.status == 202
    again = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert again is decision


def test_stale_is_refreshed_under_the_lock(refreshing: World) -> None:
    before = dict(refreshing.jar)
    answer = refreshing.decide(stale(refreshing))
    assert isinstance(answer, Respond)
    assert answer.status == 202
    assert headers(answer, b"set-cookie")
    assert refreshing.jar != before
    assert len(refreshing.locks) == 1
    assert refreshing.idp.count("token") == 1
    assert kinds(refreshing) == ["refreshed"]
    assert refreshing.get("/oauth2/auth").status == 202
    assert refreshing.idp.count("token") == 1


def test_az25_a_sibling_with_the_old_cookie_gets_the_new_session(
    refreshing: World,
) -> None:
    old = dict(refreshing.jar)
    refreshing.decide(stale(refreshing))
    for _ in range(3):
        answer = refreshing.get("/oauth2/auth", jar=old)
        assert answer.status == 202
        assert headers(answer, b"set-cookie")
    assert refreshing.idp.count("token") == 1


def test_a_sibling_that_waited_takes_what_was_made(refreshing: World) -> None:
    waiting = stale(refreshing)
    lock = next(waiting)
    assert isinstance(lock, Lock)
    refreshing.get("/oauth2/auth")
    assert isinstance(waiting.send(True), Unlock)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value.status == 202
    assert refreshing.idp.count("token") == 1


def test_siblings_that_waited_in_vain_do_not_try_again(refreshing: World) -> None:
    waiting = stale(refreshing)
    next(waiting)
    refreshing.config.failing["token"] = 503
    refreshing.get("/oauth2/auth")
    assert isinstance(waiting.send(True), Unlock)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value.status == 202
    assert refreshing.idp.count("token") == 1


def test_stale_survives_an_absent_provider(refreshing: World) -> None:
    answer = play(
        stale(refreshing),
        (Lock, True),
        (Fetch, FetchError("connection refused")),
        (Unlock, None),
    )
    assert answer.status == 202
    assert not headers(answer, b"set-cookie")
    assert kinds(refreshing) == ["refresh_failed"]
    # The provider is left alone for a while.
    assert (
        play(refreshing.proxy.check(refreshing.request("/oauth2/auth"))).status == 202
    )


def test_stale_is_tried_again_after_a_while(refreshing: World) -> None:
    refreshing.config.failing["token"] = 503
    refreshing.decide(stale(refreshing))
    del refreshing.config.failing["token"]
    refreshing.clock.now += 11
    answer = refreshing.get("/oauth2/auth")
    assert headers(answer, b"set-cookie")


def test_stale_without_the_lock_in_time_is_still_good(refreshing: World) -> None:
    answer = play(stale(refreshing), (Lock, False))
    assert answer.status == 202


def test_az23_invalid_grant_ends_the_session(refreshing: World) -> None:
    refreshing.idp.revoke("alice")
    old = dict(refreshing.jar)
    answer = refreshing.decide(stale(refreshing))
    assert isinstance(answer, Respond)
    assert answer.status == 401
    assert b"_oauth2_proxy" not in refreshing.jar
    assert kinds(refreshing) == ["session_ended"]
    # A sibling is told the same without asking again.
    assert refreshing.get("/oauth2/auth", jar=old).status == 401
    assert refreshing.idp.count("token") == 1


def test_a_changed_subject_ends_the_session(refreshing: World) -> None:
    refreshing.config.id_token_claims["sub"] = "somebody-else"
    answer = refreshing.decide(stale(refreshing))
    assert isinstance(answer, Respond)
    assert answer.status == 401
    assert refreshing.events[-1].reason == "subject"


def test_az22_a_refresh_without_id_token_keeps_who_it_is(refreshing: World) -> None:
    refreshing.config.id_token_on_refresh = False
    answer = refreshing.decide(stale(refreshing))
    assert isinstance(answer, Respond)
    assert answer.status == 202
    assert header(answer, b"x-auth-request-email") == b"alice@example.com"
    groups = header(answer, b"x-auth-request-groups").split(b",")
    assert len(groups) == len(set(groups))


def test_a_refresh_token_that_is_not_rotated_is_kept(refreshing: World) -> None:
    refreshing.config.rotate_refresh_tokens = False
    refreshing.config.token_response["refresh_token"] = None
    refreshing.decide(stale(refreshing))
    refreshing.clock.now += 61
    assert refreshing.get("/oauth2/auth").status == 202
    assert refreshing.idp.count("token") == 2


def test_without_a_refresh_token_the_session_ends_with_the_access_token() -> None:
    world = World(settings(cookie={"refresh": 60.0}))
    world.config.issue_refresh_token = False
    world.log_in()
    world.clock.now += 299
    assert world.get("/oauth2/auth").status == 202
    world.clock.now += 2
    assert world.get("/oauth2/auth").status == 401
    assert world.idp.count("token") == 1


def test_expired_is_anonymous(world: World) -> None:
    world.log_in()
    world.clock.now += 168 * 3600
    answer = world.get("/oauth2/auth")
    assert answer.status == 401
    assert b"_oauth2_proxy" not in world.jar


def test_expired_is_noticed_in_the_cache(world: World) -> None:
    world.log_in()
    assert world.get("/oauth2/auth").status == 202
    world.clock.now += 168 * 3600
    assert world.get("/oauth2/auth").status == 401


def test_a_session_without_end_is_a_browser_session() -> None:
    world = World(settings(cookie={"expire": 0.0}))
    answer = world.log_in()
    assert all(
        b"Max-Age=0" in line or b"Max-Age" not in line
        for line in headers(answer, b"set-cookie")
    )
    world.clock.now += 10 * 365 * 86400
    assert world.get("/oauth2/auth").status == 202


@pytest.mark.parametrize("status", [401, 403])
def test_validate_url_can_end_a_refreshed_session(status: int) -> None:
    world = World(
        settings(
            cookie={"refresh": 60.0},
            provider={"validate_url": "https://idp.example.com/validate"},
        )
    )
    world.log_in()
    good = world.on_fetch

    def fetch(effect: Fetch) -> Any:
        if effect.url.endswith("/validate"):
            return Response(status)
        return good(effect)

    world.on_fetch = fetch
    answer = world.decide(stale(world))
    assert isinstance(answer, Respond)
    assert answer.status == 401


def test_validate_url_that_agrees_keeps_it() -> None:
    world = World(
        settings(
            cookie={"refresh": 60.0},
            provider={"validate_url": "https://idp.example.com/validate"},
        )
    )
    world.log_in()
    good = world.on_fetch
    world.on_fetch = lambda effect: (
        Response(200) if effect.url.endswith("/validate") else good(effect)
    )
    answer = world.decide(stale(world))
    assert isinstance(answer, Respond)
    assert answer.status == 202


def test_pages_and_userinfo_refresh_as_well(refreshing: World) -> None:
    refreshing.clock.now += 61
    answer = refreshing.get("/oauth2/userinfo")
    assert answer.status == 200
    assert headers(answer, b"set-cookie")
    refreshing.clock.now += 61
    answer = refreshing.get("/page")
    assert answer.status == 404
    assert headers(answer, b"set-cookie")


def test_identify_refreshes_for_embedders(refreshing: World) -> None:
    request = refreshing.request("/")
    session = refreshing.run(refreshing.proxy.identify(request))
    assert session.email == "alice@example.com"
    refreshing.clock.now += 61
    assert refreshing.run(refreshing.proxy.identify(request)).created_at == START + 61
    refreshing.idp.revoke("alice")
    refreshing.clock.now += 61
    old = refreshing.request("/")
    assert refreshing.run(refreshing.proxy.identify(old)) is None
    anonymous = refreshing.request("/", jar={})
    assert refreshing.proxy.identify(anonymous) is None


def test_memory_of_renewals_and_failures_is_bounded(
    refreshing: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authproxy_core.sessions import refresh_cache

    monkeypatch.setattr(refresh_cache, "MAX_REMEMBERED", 1)
    for _ in range(3):
        refreshing.decide(stale(refreshing))
    refreshing.config.failing["token"] = 503
    for _ in range(3):
        refreshing.clock.now += 11
        refreshing.decide(stale(refreshing))
    assert refreshing.get("/oauth2/auth").status == 202


def test_lo08_sign_out_after_a_refresh_leaves_nothing(refreshing: World) -> None:
    refreshing.decide(stale(refreshing))
    refreshing.get("/oauth2/sign_out")
    assert refreshing.get("/oauth2/auth").status == 401


def test_sessions_show_no_tokens() -> None:
    session = Session(
        user="u", access_token="AT-1", id_token="IT-1", refresh_token="RT-1"
    )
    entry = SessionEntry(
        session, b"sealed-value", SessionDeadlines(1.0, 1.0, 1.0, 2.0), 0.0
    )
    for shown in (repr(session), repr(entry), str(session)):
        assert not {"AT-1", "IT-1", "RT-1", "sealed-value"} & set(shown.split("'"))
    assert "access_token" in repr(session)
    assert session.name == "u"
    assert msgspec.structs.replace(session, email="e").name == "e"
