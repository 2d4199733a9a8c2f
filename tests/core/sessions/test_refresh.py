"""Refresh and expiry of sessions in one process."""

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
    """A new session that is refreshed after a minute."""
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    harness.idp.requests.clear()
    harness.locks.clear()
    harness.events.clear()
    return harness


def stale(harness: Harness) -> Any:
    """Return the flow of a check after the session has become stale."""
    harness.clock.now += 61
    return harness.proxy.check(harness.request("/oauth2/auth"))


def kinds(harness: Harness) -> list[str]:
    return [event.kind for event in harness.events if event.kind != "provider_ready"]


def test_fresh_session_needs_no_effect(refreshing: Harness) -> None:
    decision = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert isinstance(decision, Respond)
    assert decision.status == 202
    again = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert again is decision


def test_stale_session_refreshed_with_lock(refreshing: Harness) -> None:
    before = dict(refreshing.jar)
    response = refreshing.decide(stale(refreshing))
    assert isinstance(response, Respond)
    assert response.status == 202
    assert headers(response, b"set-cookie")
    assert refreshing.jar != before
    assert len(refreshing.locks) == 1
    assert refreshing.idp.count("token") == 1
    assert kinds(refreshing) == ["refreshed"]
    assert refreshing.get("/oauth2/auth").status == 202
    assert refreshing.idp.count("token") == 1


def test_az25_request_with_old_cookie_gets_new_session(
    refreshing: Harness,
) -> None:
    old = dict(refreshing.jar)
    refreshing.decide(stale(refreshing))
    for _ in range(3):
        response = refreshing.get("/oauth2/auth", jar=old)
        assert response.status == 202
        assert headers(response, b"set-cookie")
    assert refreshing.idp.count("token") == 1


def test_waiter_uses_concurrent_result(refreshing: Harness) -> None:
    waiting = stale(refreshing)
    lock = next(waiting)
    assert isinstance(lock, Lock)
    refreshing.get("/oauth2/auth")
    assert isinstance(waiting.send(True), Unlock)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value.status == 202
    assert refreshing.idp.count("token") == 1


def test_waiter_after_failed_refresh_does_not_retry(refreshing: Harness) -> None:
    waiting = stale(refreshing)
    next(waiting)
    refreshing.config.failing["token"] = 503
    refreshing.get("/oauth2/auth")
    assert isinstance(waiting.send(True), Unlock)
    with pytest.raises(StopIteration) as stop:
        waiting.send(None)
    assert stop.value.value.status == 202
    assert refreshing.idp.count("token") == 1


def test_stale_session_survives_unavailable_provider(refreshing: Harness) -> None:
    response = run_scripted(
        stale(refreshing),
        (Lock, True),
        (Fetch, FetchError("connection refused")),
        (Unlock, None),
    )
    assert response.status == 202
    assert not headers(response, b"set-cookie")
    assert kinds(refreshing) == ["refresh_failed"]
    # The next attempt is delayed.
    assert (
        run_scripted(refreshing.proxy.check(refreshing.request("/oauth2/auth"))).status
        == 202
    )


def test_failed_refresh_retried_after_delay(refreshing: Harness) -> None:
    refreshing.config.failing["token"] = 503
    refreshing.decide(stale(refreshing))
    del refreshing.config.failing["token"]
    refreshing.clock.now += 11
    response = refreshing.get("/oauth2/auth")
    assert headers(response, b"set-cookie")


def test_stale_session_without_lock_still_valid(refreshing: Harness) -> None:
    response = run_scripted(stale(refreshing), (Lock, False))
    assert response.status == 202


def test_az23_invalid_grant_ends_session(refreshing: Harness) -> None:
    refreshing.idp.revoke("alice")
    old = dict(refreshing.jar)
    response = refreshing.decide(stale(refreshing))
    assert isinstance(response, Respond)
    assert response.status == 401
    assert b"_oauth2_proxy" not in refreshing.jar
    assert kinds(refreshing) == ["session_ended"]
    # A request with the old cookie gets the same result without a token request.
    assert refreshing.get("/oauth2/auth", jar=old).status == 401
    assert refreshing.idp.count("token") == 1


def test_refresh_with_other_subject_ends_session(refreshing: Harness) -> None:
    refreshing.config.id_token_claims["sub"] = "another-subject"
    response = refreshing.decide(stale(refreshing))
    assert isinstance(response, Respond)
    assert response.status == 401
    assert refreshing.events[-1].reason == "subject"


def test_az22_refresh_without_id_token_keeps_identity(refreshing: Harness) -> None:
    refreshing.config.id_token_on_refresh = False
    response = refreshing.decide(stale(refreshing))
    assert isinstance(response, Respond)
    assert response.status == 202
    assert header(response, b"x-auth-request-email") == b"alice@example.com"
    groups = header(response, b"x-auth-request-groups").split(b",")
    assert len(groups) == len(set(groups))


def test_refresh_token_without_rotation_kept(refreshing: Harness) -> None:
    refreshing.config.rotate_refresh_tokens = False
    refreshing.config.token_response["refresh_token"] = None
    refreshing.decide(stale(refreshing))
    refreshing.clock.now += 61
    assert refreshing.get("/oauth2/auth").status == 202
    assert refreshing.idp.count("token") == 2


def test_session_without_refresh_token_expires_with_access_token() -> None:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.config.issue_refresh_token = False
    harness.log_in()
    harness.clock.now += 299
    assert harness.get("/oauth2/auth").status == 202
    harness.clock.now += 2
    assert harness.get("/oauth2/auth").status == 401
    assert harness.idp.count("token") == 1


def test_expired_session_unauthenticated(harness: Harness) -> None:
    harness.log_in()
    harness.clock.now += 168 * 3600
    response = harness.get("/oauth2/auth")
    assert response.status == 401
    assert b"_oauth2_proxy" not in harness.jar


def test_expired_session_in_cache_rejected(harness: Harness) -> None:
    harness.log_in()
    assert harness.get("/oauth2/auth").status == 202
    harness.clock.now += 168 * 3600
    assert harness.get("/oauth2/auth").status == 401


def test_session_without_expiry_has_no_max_age() -> None:
    harness = Harness(settings(cookie={"expire": 0.0}))
    response = harness.log_in()
    assert all(
        b"Max-Age=0" in line or b"Max-Age" not in line
        for line in headers(response, b"set-cookie")
    )
    harness.clock.now += 10 * 365 * 86400
    assert harness.get("/oauth2/auth").status == 202


@pytest.mark.parametrize("status", [401, 403])
def test_validate_url_ends_refreshed_session(status: int) -> None:
    harness = Harness(
        settings(
            cookie={"refresh": 60.0},
            provider={"validate_url": "https://idp.example.com/validate"},
        )
    )
    harness.log_in()
    fetch_from_idp = harness.on_fetch

    def fetch(effect: Fetch) -> Any:
        if effect.url.endswith("/validate"):
            return Response(status)
        return fetch_from_idp(effect)

    harness.on_fetch = fetch
    response = harness.decide(stale(harness))
    assert isinstance(response, Respond)
    assert response.status == 401


def test_validate_url_success_keeps_refreshed_session() -> None:
    harness = Harness(
        settings(
            cookie={"refresh": 60.0},
            provider={"validate_url": "https://idp.example.com/validate"},
        )
    )
    harness.log_in()
    fetch_from_idp = harness.on_fetch
    harness.on_fetch = lambda effect: (
        Response(200) if effect.url.endswith("/validate") else fetch_from_idp(effect)
    )
    response = harness.decide(stale(harness))
    assert isinstance(response, Respond)
    assert response.status == 202


def test_userinfo_and_pages_refresh_session(refreshing: Harness) -> None:
    refreshing.clock.now += 61
    response = refreshing.get("/oauth2/userinfo")
    assert response.status == 200
    assert headers(response, b"set-cookie")
    refreshing.clock.now += 61
    response = refreshing.get("/page")
    assert response.status == 404
    assert headers(response, b"set-cookie")


def test_identify_refreshes_session(refreshing: Harness) -> None:
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


def test_refresh_cache_bounded(
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


def test_lo08_sign_out_after_refresh_ends_session(refreshing: Harness) -> None:
    refreshing.decide(stale(refreshing))
    refreshing.get("/oauth2/sign_out")
    assert refreshing.get("/oauth2/auth").status == 401


def test_session_repr_contains_no_tokens() -> None:
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
