"""A session's life: the table of the design, one test for each row."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from authproxy_core import Fetch, FetchError, Lock, Respond, Response, Unlock
from authproxy_core.session import Session
from authproxy_core.sessions.lifetimes import SessionDeadlines
from authproxy_core.sessions.session_cache import SessionEntry
from support.harness import START, Harness, header, headers, run_scripted, settings


@pytest.fixture
def refreshing() -> Harness:
    """A session that is refreshed after a minute, just logged in."""
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    harness.idp.requests.clear()
    return harness


def stale(harness: Harness) -> Any:
    """The flow of a check with the session gone stale."""
    harness.clock.now += 61
    return harness.proxy.check(harness.request("/oauth2/auth"))


def kinds(harness: Harness) -> list[str]:
    return [event.kind for event in harness.events if event.kind != "provider_ready"]


def test_fresh_needs_no_effect(refreshing: Harness) -> None:
    decision = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert isinstance(decision, Respond)
    assert decision.status == 202
    again = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert again is decision


def test_stale_is_refreshed_under_the_lock(refreshing: Harness) -> None:
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
    refreshing: Harness,
) -> None:
    old = dict(refreshing.jar)
    refreshing.decide(stale(refreshing))
    for _ in range(3):
        answer = refreshing.get("/oauth2/auth", jar=old)
        assert answer.status == 202
        assert headers(answer, b"set-cookie")
    assert refreshing.idp.count("token") == 1


def test_a_sibling_that_waited_takes_what_was_made(refreshing: Harness) -> None:
    waiting = stale(refreshing)
    lock = next(waiting)
    assert isinstance(lock, Lock)
    refreshing.get("/oauth2/auth")
    assert isinstance(waiting.send(True), Unlock)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value.status == 202
    assert refreshing.idp.count("token") == 1


def test_siblings_that_waited_in_vain_do_not_try_again(refreshing: Harness) -> None:
    waiting = stale(refreshing)
    next(waiting)
    refreshing.config.failing["token"] = 503
    refreshing.get("/oauth2/auth")
    assert isinstance(waiting.send(True), Unlock)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value.status == 202
    assert refreshing.idp.count("token") == 1


def test_stale_survives_an_absent_provider(refreshing: Harness) -> None:
    answer = run_scripted(
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
        run_scripted(refreshing.proxy.check(refreshing.request("/oauth2/auth"))).status
        == 202
    )


def test_stale_is_tried_again_after_a_while(refreshing: Harness) -> None:
    refreshing.config.failing["token"] = 503
    refreshing.decide(stale(refreshing))
    del refreshing.config.failing["token"]
    refreshing.clock.now += 11
    answer = refreshing.get("/oauth2/auth")
    assert headers(answer, b"set-cookie")


def test_stale_without_the_lock_in_time_is_still_good(refreshing: Harness) -> None:
    answer = run_scripted(stale(refreshing), (Lock, False))
    assert answer.status == 202


def test_az23_invalid_grant_ends_the_session(refreshing: Harness) -> None:
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


def test_a_changed_subject_ends_the_session(refreshing: Harness) -> None:
    refreshing.config.id_token_claims["sub"] = "somebody-else"
    answer = refreshing.decide(stale(refreshing))
    assert isinstance(answer, Respond)
    assert answer.status == 401
    assert refreshing.events[-1].reason == "subject"


def test_az22_a_refresh_without_id_token_keeps_who_it_is(refreshing: Harness) -> None:
    refreshing.config.id_token_on_refresh = False
    answer = refreshing.decide(stale(refreshing))
    assert isinstance(answer, Respond)
    assert answer.status == 202
    assert header(answer, b"x-auth-request-email") == b"alice@example.com"
    groups = header(answer, b"x-auth-request-groups").split(b",")
    assert len(groups) == len(set(groups))


def test_a_refresh_token_that_is_not_rotated_is_kept(refreshing: Harness) -> None:
    refreshing.config.rotate_refresh_tokens = False
    refreshing.config.token_response["refresh_token"] = None
    refreshing.decide(stale(refreshing))
    refreshing.clock.now += 61
    assert refreshing.get("/oauth2/auth").status == 202
    assert refreshing.idp.count("token") == 2


def test_without_a_refresh_token_the_session_ends_with_the_access_token() -> None:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.config.issue_refresh_token = False
    harness.log_in()
    harness.clock.now += 299
    assert harness.get("/oauth2/auth").status == 202
    harness.clock.now += 2
    assert harness.get("/oauth2/auth").status == 401
    assert harness.idp.count("token") == 1


def test_expired_is_anonymous(harness: Harness) -> None:
    harness.log_in()
    harness.clock.now += 168 * 3600
    answer = harness.get("/oauth2/auth")
    assert answer.status == 401
    assert b"_oauth2_proxy" not in harness.jar


def test_expired_is_noticed_in_the_cache(harness: Harness) -> None:
    harness.log_in()
    assert harness.get("/oauth2/auth").status == 202
    harness.clock.now += 168 * 3600
    assert harness.get("/oauth2/auth").status == 401


def test_a_session_without_end_is_a_browser_session() -> None:
    harness = Harness(settings(cookie={"expire": 0.0}))
    answer = harness.log_in()
    assert all(
        b"Max-Age=0" in line or b"Max-Age" not in line
        for line in headers(answer, b"set-cookie")
    )
    harness.clock.now += 10 * 365 * 86400
    assert harness.get("/oauth2/auth").status == 202


@pytest.mark.parametrize("status", [401, 403])
def test_validate_url_can_end_a_refreshed_session(status: int) -> None:
    harness = Harness(
        settings(
            cookie={"refresh": 60.0},
            provider={"validate_url": "https://idp.example.com/validate"},
        )
    )
    harness.log_in()
    good = harness.on_fetch

    def fetch(effect: Fetch) -> Any:
        if effect.url.endswith("/validate"):
            return Response(status)
        return good(effect)

    harness.on_fetch = fetch
    answer = harness.decide(stale(harness))
    assert isinstance(answer, Respond)
    assert answer.status == 401


def test_validate_url_that_agrees_keeps_it() -> None:
    harness = Harness(
        settings(
            cookie={"refresh": 60.0},
            provider={"validate_url": "https://idp.example.com/validate"},
        )
    )
    harness.log_in()
    good = harness.on_fetch
    harness.on_fetch = lambda effect: (
        Response(200) if effect.url.endswith("/validate") else good(effect)
    )
    answer = harness.decide(stale(harness))
    assert isinstance(answer, Respond)
    assert answer.status == 202


def test_pages_and_userinfo_refresh_as_well(refreshing: Harness) -> None:
    refreshing.clock.now += 61
    answer = refreshing.get("/oauth2/userinfo")
    assert answer.status == 200
    assert headers(answer, b"set-cookie")
    refreshing.clock.now += 61
    answer = refreshing.get("/page")
    assert answer.status == 404
    assert headers(answer, b"set-cookie")


def test_identify_refreshes_for_embedders(refreshing: Harness) -> None:
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
    refreshing: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authproxy_core.sessions import refresh_cache

    monkeypatch.setattr(refresh_cache, "MAX_ENTRIES", 1)
    for _ in range(3):
        refreshing.decide(stale(refreshing))
    refreshing.config.failing["token"] = 503
    for _ in range(3):
        refreshing.clock.now += 11
        refreshing.decide(stale(refreshing))
    assert refreshing.get("/oauth2/auth").status == 202


def test_lo08_sign_out_after_a_refresh_leaves_nothing(refreshing: Harness) -> None:
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
