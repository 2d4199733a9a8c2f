"""Login: redirect target, callback URL, other processes and providers."""

from __future__ import annotations

import threading
from html import escape
from typing import Any

import pytest

from authproxy_core import Fetch, FetchError, Response, Sleep
from authproxy_core.oidc.jwt import hash_nonce
from support.harness import (
    ALICE,
    BOB,
    HOST,
    ISSUER,
    Harness,
    event_reasons,
    header,
    provider_settings,
    query_params,
    settings,
    with_changes,
)


def test_login_redirects_to_deep_link_with_session(harness: Harness) -> None:
    response = harness.log_in(rd="/deep%3Fx=1%26y=2")
    assert response.status == 302
    assert header(response, b"location") == b"/deep?x=1&y=2"
    assert [event.kind for event in response.events] == ["logged_in"]
    check = harness.get("/oauth2/auth")
    assert check.status == 202
    assert header(check, b"x-auth-request-email") == b"alice@example.com"
    assert header(check, b"x-auth-request-preferred-username") == b"alice"
    assert (
        header(check, b"x-auth-request-groups")
        == b"admins,staff,role:admin,role:app:reader"
    )
    assert header(check, b"authorization").startswith(b"Bearer ey")
    assert header(check, b"gap-auth") == b"alice@example.com"


# -- redirect target and callback URL


@pytest.mark.parametrize("rd", ["//evil.com", "https://evil.com", "/%5Cevil.com"])
def test_or01_unsafe_redirect_target_falls_back_to_root(
    harness: Harness, rd: str
) -> None:
    response = harness.log_in(rd=rd)
    assert header(response, b"location") == b"/"


def test_or40_redirect_target_checked_again_at_callback() -> None:
    harness = Harness(settings(whitelist_domains=(".example.com",)))
    url = harness.start_login("https://other.example.com/x")
    harness.proxy = harness.new_proxy(settings())
    harness.run(harness.proxy.warm_up())
    assert header(harness.finish_login(url), b"location") == b"/"


def test_redirect_target_on_whitelisted_host_allowed() -> None:
    harness = Harness(settings(whitelist_domains=(".example.com",)))
    response = harness.log_in(rd="https://other.example.com/x")
    assert header(response, b"location") == b"https://other.example.com/x"


def test_redirect_target_with_non_ascii_percent_encoded(harness: Harness) -> None:
    response = harness.log_in(rd="/%C3%A9")
    assert header(response, b"location") == b"/%c3%a9"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"redirect_url": "https://sso.example.com/back"},
            "https://sso.example.com/back",
        ),
        (
            {"redirect_url": "https://sso.example.com"},
            "https://sso.example.com/oauth2/callback",
        ),
        ({"redirect_url": "/back"}, "https://app.example.com/back"),
        ({"relative_redirect_url": True}, "/oauth2/callback"),
        ({"relative_redirect_url": True, "redirect_url": "/back"}, "/back"),
        ({"proxy_prefix": "/auth"}, "https://app.example.com/auth/callback"),
        ({"proxy_prefix": ""}, "https://app.example.com/callback"),
    ],
)
def test_lg41_callback_url_from_settings(
    changes: dict[str, Any], expected: str
) -> None:
    harness = Harness(settings(**changes))
    prefix = changes.get("proxy_prefix", "/oauth2")
    response = harness.get(f"{prefix}/start")
    params = query_params(header(response, b"location").decode())
    assert params["redirect_uri"] == expected


def test_redirect_has_a_link_as_body() -> None:
    """Browsers show it if a gateway changes the status."""
    response = Harness().get("/oauth2/sign_out?rd=/a%22%3Cb%3E%26c")
    location = header(response, b"location")
    assert response.status == 302
    assert header(response, b"content-type") == b"text/html; charset=utf-8"
    link = escape(location.decode()).encode()
    assert response.body == b'<a href="' + link + b'">Found</a>.\n'
    assert b"<b>" not in response.body


def test_callback_url_without_secure_cookies_has_request_scheme() -> None:
    harness = Harness(settings(cookie={"secure": False}))
    response = harness.get("/oauth2/start", secure=False)
    params = query_params(header(response, b"location").decode())
    assert params["redirect_uri"] == "http://app.example.com/oauth2/callback"


# -- another process, another provider


def test_fa26_login_completes_in_other_process(harness: Harness) -> None:
    url = harness.start_login("/x")
    harness.proxy = harness.new_proxy(harness.settings)
    harness.run(harness.proxy.warm_up())
    assert header(harness.finish_login(url), b"location") == b"/x"
    harness.proxy = harness.new_proxy(harness.settings)
    assert harness.get("/oauth2/auth").status == 202


def test_callback_before_discovery_waits_for_it(harness: Harness) -> None:
    """The browser may return to a process that has just started."""
    url = harness.start_login("/x")
    harness.proxy = harness.new_proxy(harness.settings)
    assert header(harness.finish_login(url), b"location") == b"/x"
    assert harness.get("/oauth2/auth").status == 202


@pytest.mark.parametrize("difference", [-30, 30])
def test_fa25_clocks_of_processes_differ(harness: Harness, difference: float) -> None:
    """A login that finishes at another process, and its session, are valid in both."""
    url = harness.start_login("/x")
    for _ in range(2):
        harness.clock.now += difference
        harness.proxy = harness.new_proxy(harness.settings)
        harness.run(harness.proxy.warm_up())
        if url:
            assert header(harness.finish_login(url), b"location") == b"/x"
            url = ""
        assert harness.get("/oauth2/auth").status == 202
        difference = -difference


def test_callback_of_removed_provider_fails(harness: Harness) -> None:
    url = harness.start_login()
    other = provider_settings(id="other")
    harness.proxy = harness.new_proxy(
        with_changes(harness.settings, providers=(other,))
    )
    harness.run(harness.proxy.warm_up())
    response = harness.finish_login(url)
    assert response.status == 503
    assert event_reasons(response) == ["not_ready"]


def test_session_of_unknown_provider_rejected(harness: Harness) -> None:
    harness.log_in()
    other = provider_settings(id="other")
    harness.proxy = harness.new_proxy(
        with_changes(harness.settings, providers=(other,))
    )
    assert harness.get("/oauth2/auth").status == 401


def test_start_chooses_provider_by_id() -> None:
    second = provider_settings(id="second", client_id="app2", name="Second")
    harness = Harness(settings(providers=(provider_settings(), second)))
    response = harness.get("/oauth2/start?provider=second")
    assert query_params(header(response, b"location").decode())["client_id"] == "app2"
    response = harness.get("/oauth2/start?provider=unknown")
    assert (
        query_params(header(response, b"location").decode())["client_id"] == "authproxy"
    )


def test_start_before_discovery_shows_error_page(harness: Harness) -> None:
    fresh = Harness(ready=False)

    def unavailable(effect: Fetch) -> Response:
        raise FetchError("connection refused")

    fresh.on_fetch = unavailable
    started_at = fresh.clock.now
    response = fresh.get("/oauth2/start")
    assert response.status == 503
    assert 4.0 < fresh.clock.now - started_at < 7.0
    assert header(response, b"retry-after") == b"5"
    assert b"request-1" in response.body


@pytest.mark.parametrize(
    ("document", "reason", "text"),
    [
        ({"issuer": ISSUER + "/"}, "wrong_issuer", "expected issuer"),
        ({"token_endpoint": None}, "wrong_issuer", "token_endpoint"),
        (404, "wrong_issuer", "check oidc_issuer_url"),
        (503, "not_ready", "not loaded yet"),
    ],
)
def test_start_with_wrong_issuer_shows_error_page(
    document: Any, reason: str, text: str
) -> None:
    """The page does not suggest to wait; the log names the setting to correct."""
    fresh = Harness(ready=False)
    if isinstance(document, int):
        fresh.config.failing["discovery"] = document
    else:
        fresh.config.discovery.update(document)
    for _ in range(2):
        response = fresh.get("/oauth2/start")
        assert (response.status, event_reasons(response)) == (503, [reason])
        assert (b"issuer URL" in response.body) == (reason == "wrong_issuer")
        assert text in response.events[0].detail
    fresh.config.failing.clear()
    fresh.config.discovery.clear()
    fresh.clock.now += 10
    assert fresh.log_in().status == 302


def test_start_during_another_discovery_names_last_error() -> None:
    fresh = Harness(ready=False)
    fresh.config.failing["discovery"] = 404
    fresh.get("/oauth2/start")
    pending = []

    def restart(_: Sleep) -> None:
        """Pass the time; another attempt is under way at each moment."""
        pending.append(fresh.proxy.warm_up())
        assert isinstance(next(pending[-1]), Fetch)

    fresh.on_sleep = restart
    response = fresh.get("/oauth2/start")
    assert pending
    assert event_reasons(response) == ["wrong_issuer"]


def test_start_after_lost_connection_names_no_earlier_error() -> None:
    fresh = Harness(ready=False)
    fresh.config.failing["discovery"] = 404
    fresh.get("/oauth2/start")

    def refuse(_: Fetch) -> Response:
        raise FetchError("connection refused")

    fresh.on_fetch = refuse
    assert event_reasons(fresh.get("/oauth2/start")) == ["not_ready"]


def test_core_runs_in_thread_without_event_loop() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(Harness().log_in().status))
    thread.start()
    thread.join()
    assert results == [302]


def test_harness_hosts_and_names_are_consistent() -> None:
    assert HOST == b"app.example.com"
    assert (ALICE.groups, BOB.groups) == (("admins", "staff"), ("staff",))
    assert len(hash_nonce(b"x")) == 43


@pytest.mark.parametrize(
    ("changes", "wait", "status"),
    [
        ({}, 899.0, 302),
        ({}, 900.0, 403),
        ({"read_oauth2_proxy": False}, 0.0, 403),
    ],
)
def test_login_state_of_oauth2_proxy_consumed(
    changes: dict[str, Any], wait: float, status: int
) -> None:
    """They are accepted until they expire, and only with read_oauth2_proxy."""
    harness = Harness(settings(cookie={"format": "oauth2-proxy", "csrf_expire": 900.0}))
    url = harness.start_login("/deep")
    [cookie] = harness.jar.values()
    assert b"|" in cookie
    harness.proxy = harness.new_proxy(
        settings(cookie={"csrf_expire": 900.0, **changes})
    )
    harness.run(harness.proxy.warm_up())
    harness.clock.now += wait
    assert harness.finish_login(url).status == status
