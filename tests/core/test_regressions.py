"""Defects that a careful read found once; each is here so that it stays away."""

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


def test_an_ended_session_is_cleared_by_the_page_and_stays_ended(
    refreshing: Harness,
) -> None:
    refreshing.idp.revoke("alice")
    refreshing.clock.now += 61
    page = refreshing.get("/page")
    assert page.status == 403
    assert headers(page, b"set-cookie")
    assert b"_oauth2_proxy" not in refreshing.jar


def test_new_tokens_are_not_lost_when_a_later_step_fails(refreshing: Harness) -> None:
    refreshing.config.id_token_claims["groups"] = None  # so that userinfo is needed
    refreshing.config.failing["userinfo"] = 503
    refreshing.clock.now += 61
    before = refreshing.idp.count("token")
    assert refreshing.get("/oauth2/auth").status == 202
    del refreshing.config.failing["userinfo"]
    refreshing.clock.now += 11
    answer = refreshing.get("/oauth2/auth")
    assert answer.status == 202
    assert headers(answer, b"set-cookie")
    assert refreshing.idp.count("token") == before + 1
    refreshing.clock.now += 61
    assert headers(refreshing.get("/oauth2/auth"), b"set-cookie")


def test_tokens_kept_for_a_retry_are_bounded(
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


def test_userinfo_of_somebody_else_ends_a_refreshed_session(
    refreshing: Harness,
) -> None:
    refreshing.config.id_token_claims["groups"] = None
    refreshing.config.userinfo_claims["sub"] = "somebody-else"
    refreshing.clock.now += 61
    assert refreshing.get("/oauth2/auth").status == 401


def test_a_session_that_expired_while_waiting_is_not_accepted(
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


def test_a_sibling_does_not_bring_a_signed_out_session_back(
    refreshing: Harness,
) -> None:
    old = dict(refreshing.jar)
    refreshing.clock.now += 61
    refreshing.get("/oauth2/auth")
    refreshing.get("/oauth2/sign_out")
    answer = refreshing.get("/oauth2/auth", jar=old)
    assert answer.status == 401
    assert b"_oauth2_proxy" not in refreshing.jar


def test_signing_out_leaves_the_renewals_of_others(refreshing: Harness) -> None:
    old = dict(refreshing.jar)
    refreshing.clock.now += 61
    refreshing.get("/oauth2/auth")
    refreshing.jar.clear()
    refreshing.log_in("bob")
    refreshing.get("/oauth2/sign_out")
    assert refreshing.get("/oauth2/auth", jar=old).status == 202


def test_renewals_of_several_users_stand_side_by_side(refreshing: Harness) -> None:
    jars = [dict(refreshing.jar)]
    refreshing.jar.clear()
    refreshing.log_in("bob")
    jars.append(dict(refreshing.jar))
    refreshing.clock.now += 61
    for jar in jars * 2:
        answer = refreshing.get("/oauth2/auth", jar=jar)
        assert headers(answer, b"set-cookie")
    assert refreshing.idp.count("token") == 4  # two logins, two refreshes


def test_renewals_are_forgotten_in_time(refreshing: Harness) -> None:
    for _ in range(5):
        refreshing.clock.now += 61
        refreshing.get("/oauth2/auth")
    assert len(refreshing.proxy._sessions.refresh_cache._results) == 1


@pytest.mark.parametrize("format", ["authproxy", "oauth2-proxy"])
@pytest.mark.parametrize(
    ("level", "shown"),
    [(2**64, b"18446744073709551616"), (-(2**70), str(-(2**70)).encode()), (7, b"7")],
)
def test_numbers_of_any_size_are_kept(format: str, level: int, shown: bytes) -> None:
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


def test_claims_nested_too_deep_end_the_login_with_a_page() -> None:
    harness = Harness(settings(inject_response_headers=(rule("X-Level", "level"),)))
    value: Any = "x"
    for _ in range(20):
        value = {"a": [value]}
    harness.config.id_token_claims["level"] = value
    answer = harness.log_in()
    assert answer.status == 500
    assert [event.reason for event in answer.events] == ["claims_too_deep"]


def test_long_deep_links_do_not_fill_the_cookie_header(harness: Harness) -> None:
    for number in range(20):
        harness.clock.now += 1
        harness.start_login(f"/{number}%3F" + "x" * 7000)
    assert len(harness.jar) <= 8
    assert sum(map(len, harness.jar.values())) < 40_000
    assert (
        header(
            harness.finish_login(harness.start_login("/x%3F" + "y" * 7000)), b"location"
        )
        == b"/x"
    )
    assert (
        header(harness.finish_login(harness.start_login("/" + "y" * 7000)), b"location")
        == b"/"
    )
    kept = "/x%3F" + "y" * 2000
    location = header(harness.finish_login(harness.start_login(kept)), b"location")
    assert location == b"/x?" + b"y" * 2000


def test_one_absent_provider_does_not_block_the_others() -> None:
    harness = Harness(
        settings(
            providers=(
                provider_settings(id="a", issuer="https://away.example"),
                provider_settings(id="b"),
            )
        ),
        ready=False,
    )
    original = harness.idp.fetch

    def fetch(effect: Fetch) -> Response:
        if "away" in effect.url:
            raise FetchError("connection refused")
        return original(effect)

    flow = harness.proxy.warm_up()
    effect: Any = next(flow)
    while isinstance(effect, Fetch):
        try:
            answer = fetch(effect)
        except FetchError as error:
            effect = flow.throw(error)
        else:
            effect = flow.send(answer)
    assert not harness.proxy.ready
    assert harness.get("/oauth2/start?provider=b").status == 302
    assert harness.get("/oauth2/start?provider=a").status == 503


@pytest.mark.parametrize("domain", ["*example.com", "**", "*x*"])
def test_email_domains_of_another_form_are_refused(domain: str) -> None:
    with pytest.raises(SettingsError, match="email_domains"):
        Harness(settings(email_domains=(domain,)))


def test_letters_that_become_others_in_lower_case() -> None:
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
def test_settings_that_would_go_wrong_are_refused(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        Harness(settings(**changes))


def test_a_key_with_an_odd_algorithm_is_ignored() -> None:
    body = b'{"keys": [{"kty": "RSA", "alg": []}, {"kty": "RSA", "alg": {}}]}'
    assert parse_key_set(body).unusable == 2


def test_a_refresh_that_is_not_needed_asks_nobody(refreshing: Harness) -> None:
    answer = run_scripted(
        session_of_request(refreshing.proxy._context, refreshing.request("/"))
    )
    assert answer[0].email == "alice@example.com"
    assert isinstance(refreshing.get("/oauth2/auth"), Respond)
