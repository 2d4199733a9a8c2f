"""Regression tests for defects that a code review found."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import (
    Fetch,
    FetchError,
    Lock,
    Respond,
    Response,
    SettingsError,
    Sleep,
    Unlock,
)
from authproxy_core.access.membership import EmailRule
from authproxy_core.oidc.jwt import parse_key_set
from authproxy_core.sessions import refresh_cache
from authproxy_core.sessions.session_resolver import session_of_request
from support.harness import (
    Harness,
    header,
    headers,
    provider_settings,
    rule,
    run_scripted,
    settings,
)


@pytest.fixture
def refreshing() -> Harness:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    return harness


def test_page_clears_session_ended_by_provider(
    refreshing: Harness,
) -> None:
    refreshing.idp.revoke("alice")
    refreshing.clock.now += 61
    page = refreshing.get("/page")
    assert page.status == 403
    assert headers(page, b"set-cookie")
    assert b"_oauth2_proxy" not in refreshing.jar


def test_refresh_keeps_new_tokens_when_later_step_fails(refreshing: Harness) -> None:
    refreshing.config.id_token_claims["groups"] = None  # so that userinfo is needed
    refreshing.config.failing["userinfo"] = 503
    refreshing.clock.now += 61
    before = refreshing.idp.count("token")
    assert refreshing.get("/oauth2/auth").status == 202
    del refreshing.config.failing["userinfo"]
    refreshing.clock.now += 11
    response = refreshing.get("/oauth2/auth")
    assert response.status == 202
    assert headers(response, b"set-cookie")
    assert refreshing.idp.count("token") == before + 1
    refreshing.clock.now += 61
    assert headers(refreshing.get("/oauth2/auth"), b"set-cookie")


def test_pending_tokens_bounded(
    refreshing: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh_cache, "MAX_ENTRIES", 1)
    refreshing.config.id_token_claims["groups"] = None
    refreshing.config.failing["userinfo"] = 503
    jars = [dict(refreshing.jar)]
    refreshing.jar.clear()
    del refreshing.config.failing["userinfo"]
    refreshing.log_in("bob")
    jars.append(dict(refreshing.jar))
    refreshing.config.failing["userinfo"] = 503
    refreshing.clock.now += 61
    for jar in jars:
        assert refreshing.get("/oauth2/auth", jar=jar).status == 202
    assert len(refreshing.proxy._sessions.refresh_cache._tokens) == 1


def test_refresh_userinfo_of_other_subject_ends_session(
    refreshing: Harness,
) -> None:
    refreshing.config.id_token_claims["groups"] = None
    refreshing.config.userinfo_claims["sub"] = "another-subject"
    refreshing.clock.now += 61
    assert refreshing.get("/oauth2/auth").status == 401


def test_session_expired_during_refresh_rejected(
    refreshing: Harness,
) -> None:
    refreshing.clock.now += 168 * 3600 - 5
    flow = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert isinstance(next(flow), Lock)  # type: ignore[arg-type]
    assert isinstance(flow.send(True), Fetch)  # type: ignore[union-attr]
    refreshing.clock.now += 10
    assert isinstance(flow.throw(FetchError("timed out")), Unlock)  # type: ignore[union-attr]
    with pytest.raises(StopIteration) as stop:
        flow.send(None)  # type: ignore[union-attr]
    assert stop.value.value.status == 401
    assert headers(stop.value.value, b"set-cookie")


def test_old_cookie_after_sign_out_rejected(
    refreshing: Harness,
) -> None:
    old = dict(refreshing.jar)
    refreshing.clock.now += 61
    refreshing.get("/oauth2/auth")
    refreshing.get("/oauth2/sign_out")
    response = refreshing.get("/oauth2/auth", jar=old)
    assert response.status == 401
    assert b"_oauth2_proxy" not in refreshing.jar


def test_sign_out_keeps_refresh_results_of_other_sessions(refreshing: Harness) -> None:
    old = dict(refreshing.jar)
    refreshing.clock.now += 61
    refreshing.get("/oauth2/auth")
    refreshing.jar.clear()
    refreshing.log_in("bob")
    refreshing.get("/oauth2/sign_out")
    assert refreshing.get("/oauth2/auth", jar=old).status == 202


def test_refresh_results_of_several_users_kept_apart(refreshing: Harness) -> None:
    jars = [dict(refreshing.jar)]
    refreshing.jar.clear()
    refreshing.log_in("bob")
    jars.append(dict(refreshing.jar))
    refreshing.clock.now += 61
    for jar in jars * 2:
        response = refreshing.get("/oauth2/auth", jar=jar)
        assert headers(response, b"set-cookie")
    assert refreshing.idp.count("token") == 4  # two logins, two refreshes


def test_refresh_results_expire(refreshing: Harness) -> None:
    for _ in range(5):
        refreshing.clock.now += 61
        refreshing.get("/oauth2/auth")
    assert len(refreshing.proxy._sessions.refresh_cache._results) == 1


@pytest.mark.parametrize("format", ["authproxy", "oauth2-proxy"])
@pytest.mark.parametrize(
    ("level", "shown"),
    [(2**64, b"18446744073709551616"), (-(2**70), str(-(2**70)).encode()), (7, b"7")],
)
def test_claim_numbers_of_any_size_round_trip(
    format: str, level: int, shown: bytes
) -> None:
    harness = Harness(
        settings(
            cookie={"format": format},
            inject_response_headers=(rule("X-Level", "level"),),
        )
    )
    harness.config.id_token_claims["level"] = [level]
    assert harness.log_in().status == 302
    assert header(harness.get("/oauth2/auth"), b"x-level") == shown
    assert harness.get("/oauth2/userinfo").status == 200


def test_login_claims_nested_too_deep_rejected() -> None:
    harness = Harness(settings(inject_response_headers=(rule("X-Level", "level"),)))
    value: Any = "x"
    for _ in range(20):
        value = {"a": [value]}
    harness.config.id_token_claims["level"] = value
    response = harness.log_in()
    assert response.status == 500
    assert [event.reason for event in response.events] == ["claims_too_deep"]


def test_login_states_with_long_targets_bounded(harness: Harness) -> None:
    for number in range(20):
        harness.clock.now += 1
        harness.start_login(f"/{number}%3F" + "x" * 7000)
    assert len(harness.jar) <= 8
    assert sum(map(len, harness.jar.values())) < 40_000
    for target in ("/x%3F", "/"):
        rejected = harness.get(f"/oauth2/start?rd={target}" + "y" * 17_000)
        assert rejected.status == 414
    target = "/x%3F" + "y" * 7000
    location = header(harness.finish_login(harness.start_login(target)), b"location")
    assert location == b"/x?" + b"y" * 7000


def test_warm_up_unavailable_provider_does_not_block_others() -> None:
    harness = Harness(
        settings(
            providers=(
                provider_settings(id="a", issuer="https://down.example"),
                provider_settings(id="b"),
            )
        ),
        ready=False,
    )
    original = harness.idp.fetch

    def fetch(effect: Fetch) -> Response:
        if "down" in effect.url:
            raise FetchError("connection refused")
        return original(effect)

    flow = harness.proxy.warm_up()
    effect: Any = next(flow)
    harness.on_fetch = fetch
    while not isinstance(effect, Sleep):
        try:
            response = harness.perform(effect)
        except FetchError as error:
            effect = flow.throw(error)
        else:
            effect = flow.send(response)
    harness.on_fetch = original
    assert not harness.proxy.ready
    assert harness.get("/oauth2/start?provider=b").status == 302
    assert harness.get("/oauth2/start?provider=a").status == 503


@pytest.mark.parametrize("domain", ["*example.com", "**", "*x*"])
def test_email_domains_invalid_pattern_rejected(domain: str) -> None:
    with pytest.raises(SettingsError, match="email_domains"):
        Harness(settings(email_domains=(domain,)))


def test_email_with_kelvin_sign_rejected() -> None:
    listed = settings(authenticated_emails=frozenset({"kim@example.com"}))
    rules = EmailRule(settings(email_domains=()))
    assert not rules.permits("kim@example.com")
    rules = EmailRule(
        settings(
            email_domains=("other.example",),
            authenticated_emails=listed.authenticated_emails,
        )
    )
    assert rules.permits("KIM@example.com")
    assert not rules.permits("\u212aim@example.com")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ping_path": "/oauth2/auth"}, "ping_path"),
        ({"ready_path": "/oauth2/x"}, "ready_path"),
        ({"cookie": {"name": "x" * 241}}, "cookie_name"),
        ({"provider": {"skip_discovery": True}}, "login_url"),
        (
            {
                "providers": (provider_settings(), provider_settings(id="b")),
                "cookie": {"format": "oauth2-proxy"},
            },
            "cookie_format",
        ),
    ],
)
def test_check_conflicting_settings_rejected(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        Harness(settings(**changes))


def test_parse_key_set_key_with_invalid_algorithm_ignored() -> None:
    body = b'{"keys": [{"kty": "RSA", "alg": []}, {"kty": "RSA", "alg": {}}]}'
    assert parse_key_set(body).unusable == 2


def test_session_of_request_fresh_session_needs_no_effect(refreshing: Harness) -> None:
    response = run_scripted(
        session_of_request(refreshing.proxy._context, refreshing.request("/"))
    )
    assert response[0].email == "alice@example.com"
    assert isinstance(refreshing.get("/oauth2/auth"), Respond)
