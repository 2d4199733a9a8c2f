"""Restart of lost logins, and detection of login loops."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import Respond
from authproxy_core.login.loop_guard import (
    COUNTER_TTL,
    LOOP_THRESHOLD,
    MAX_USERS,
    REPEAT_WINDOW,
    SIGNED_IN_WINDOW,
    LoginLoopDetector,
)
from support.harness import (
    Clock,
    Harness,
    header,
    headers,
    run_scripted,
    settings,
    target_of,
)

PAGE = (
    (b"accept", b"text/html"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
)
COOKIE = b"_oauth2_proxy_loop_csrf"


def detector() -> LoginLoopDetector:
    """Return a detector without a store."""
    harness = Harness(ready=False)
    sessions = harness.proxy._sessions
    return LoginLoopDetector(settings(), sessions, Clock())


def follow_callback(
    harness: Harness, url: str, *fields: Any, **changes: Any
) -> Respond:
    """Return the response to the browser's callback after login at the provider."""
    return harness.get(target_of(harness.idp.log_in(url, "alice")), *fields, **changes)


# -- lost states


def test_lost_login_restarts_once(harness: Harness) -> None:
    url = harness.start_login("/deep")
    harness.jar.clear()
    again = follow_callback(harness, url, *PAGE)
    assert again.status == 302
    location = header(again, b"location").decode()
    assert location.startswith("https://idp.example.com/realms/main/authorize?")
    assert harness.idp.count("token") == 0  # LG01: the code is discarded
    # The browser keeps the cookie of the restarted login.
    assert follow_callback(harness, location, *PAGE).status == 302
    assert harness.get("/oauth2/auth").status == 202


def test_lost_login_without_restart_option_shows_page() -> None:
    harness = Harness(settings(restart_lost_logins=False))
    url = harness.start_login("/deep")
    harness.jar.clear()
    page = follow_callback(harness, url, *PAGE)
    assert page.status == 403
    assert harness.idp.count("token") == 0


def test_lost_login_without_cookies_shows_page(harness: Harness) -> None:
    again = follow_callback(harness, harness.start_login(), *PAGE, jar={})
    location = header(again, b"location").decode()
    page = follow_callback(harness, location, *PAGE, jar={})
    assert page.status == 403
    assert page.events[0].reason == "login_state_lost"
    assert b"allow cookies" in page.body
    assert harness.idp.count("token") == 0


def test_expired_login_restarts(harness: Harness) -> None:
    url = harness.start_login()
    harness.clock.now += 3600
    assert follow_callback(harness, url, *PAGE).status == 302
    assert not harness.idp.count("token")


def test_lg04_reloaded_callback_not_redeemed_twice(harness: Harness) -> None:
    target = target_of(harness.idp.log_in(harness.start_login(), "alice"))
    jar = dict(harness.jar)
    assert harness.get(target, *PAGE).status == 302
    assert harness.get(target, *PAGE, jar=jar).status == 302
    assert harness.idp.count("token") == 1


def test_lost_login_of_oauth2_proxy_keeps_redirect_target() -> None:
    original = Harness(settings(cookie={"format": "oauth2-proxy"}))
    url = original.start_login("/deep%3Fx=1")
    harness = Harness()
    for rd, end in (
        ("/deep%3Fx=1", b"/deep?x=1"),  # before 7.15.6
        ("%252Fdeep%253Fx%253D1", b"/deep?x=1"),
        ("//evil.example", b"/"),
        ("%252F%252Fevil.example", b"/"),
    ):
        target = target_of(original.idp.log_in(url, "alice"))
        assert "%252Fdeep%253Fx%253D1" in target
        target = target.replace("%252Fdeep%253Fx%253D1", rd)
        again = harness.get(target, *PAGE, jar={})
        assert again.status == 302
        location = header(again, b"location").decode()
        for name, value in again.headers:
            if name == b"set-cookie":
                cookie, _, text = value.partition(b";")[0].partition(b"=")
                harness.jar[cookie] = text
        back = follow_callback(harness, location, *PAGE)
        assert header(back, b"location") == end


@pytest.mark.parametrize(
    ("target", "fields", "method"),
    [
        ("?code=x&state=" + "a" * 43, (), b"GET"),  # not a browser
        (
            "?code=x&state=" + "a" * 43,
            (*PAGE[:1], (b"sec-fetch-mode", b"cors")),
            b"GET",
        ),
        ("?code=x&state=" + "a" * 43, PAGE, b"POST"),
        ("?code=x&state=" + "a" * 43 + ".again", PAGE, b"GET"),
        ("?state=" + "a" * 43, PAGE, b"GET"),
        ("?error=access_denied&state=" + "a" * 43, PAGE, b"GET"),
        ("?code=x&state=", PAGE, b"GET"),
        ("?code=x", PAGE, b"GET"),
        ("?code=x&state=" + "a" * 42, PAGE, b"GET"),
        ("?code=x&state=" + "a" * 20_000, PAGE, b"GET"),
    ],
)
def test_lg01_lg10_other_callbacks_do_not_restart(
    harness: Harness, target: str, fields: Any, method: bytes
) -> None:
    response = harness.get(f"/oauth2/callback{target}", *fields, method=method)
    assert response.status == 403
    assert not harness.idp.count("token")


def test_lost_login_in_oauth2_proxy_format_does_not_restart() -> None:
    harness = Harness(settings(cookie={"format": "oauth2-proxy"}))
    url = harness.start_login()
    assert follow_callback(harness, url, *PAGE, jar={}).status == 403


def test_lost_login_without_provider_shows_page() -> None:
    harness = Harness(ready=False)
    response = harness.get(f"/oauth2/callback?code=x&state={'a' * 43}", *PAGE)
    assert response.status == 403


# -- loops


def drop_session_cookie(harness: Harness) -> None:
    """Drop the session cookie, as a browser that rejects it."""
    for name in [*harness.jar]:
        if name == b"_oauth2_proxy" or name.startswith(b"_oauth2_proxy_0"):
            del harness.jar[name]


def test_login_loop_shows_page(harness: Harness) -> None:
    logins = 0
    while (response := harness.get("/oauth2/start?rd=/deep")).status == 302:
        back = follow_callback(harness, header(response, b"location").decode())
        assert back.status == 302
        drop_session_cookie(harness)
        harness.clock.now += 1
        logins += 1
        assert logins < 5  # a browser gives up after 20 redirects
    assert logins == LOOP_THRESHOLD
    assert response.status == 429  # a gateway may turn 403 into another login
    assert b"did not keep the session" in response.body
    assert b"/oauth2/sign_in?rd=%2Fdeep" in response.body
    [event] = response.events
    assert event.reason == "login_loop"
    assert "cookie_domains" in event.detail
    # The next login starts a new count.
    assert COOKIE not in harness.jar
    assert harness.get("/oauth2/start").status == 302


def test_ordinary_login_sets_no_counter(harness: Harness) -> None:
    for _ in range(6):
        assert harness.log_in().status == 302  # the browser sends the session
        harness.clock.now += SIGNED_IN_WINDOW + 1
        assert COOKIE not in harness.jar
    harness.jar.clear()
    harness.clock.now += REPEAT_WINDOW + 1
    assert harness.log_in().status == 302
    assert COOKIE not in harness.jar


def test_login_with_session_is_no_loop(harness: Harness) -> None:
    harness.log_in()
    harness.jar[COOKIE] = b"9"
    assert harness.get("/oauth2/start").status == 302


def test_counter_cookie_is_session_cookie(harness: Harness) -> None:
    for _ in range(2):
        harness.log_in()
        drop_session_cookie(harness)
    assert harness.jar[COOKIE] == b"2"
    assert harness.proxy._sessions.is_session_cookie(COOKIE)
    # It does not occupy a login slot.
    for _ in range(20):
        harness.get("/oauth2/start")
    assert COOKIE in harness.jar


def test_login_times_are_bounded() -> None:
    loops = detector()

    def record(user: str) -> Any:
        return run_scripted(
            loops.record_login((), user, "192.0.2.7", "app.example.com")
        )

    for number in range(MAX_USERS + 5):
        assert not record(f"u{number}")
    assert len(loops._logged_in_at) == MAX_USERS
    assert not record("u0")
    [line] = headers(Respond(200, record("u0")), b"set-cookie")
    assert line.startswith(COOKIE + b"=2; ")
    assert b"Max-Age=%d" % COUNTER_TTL in line


DETECTOR = detector()


@given(st.binary(max_size=6))
def test_counter_cookie_with_any_value_parsed(value: bytes) -> None:
    loops = DETECTOR
    cookie = ((b"cookie", COOKIE + b"=" + value),)
    assert 0 <= loops.login_count(cookie) <= 9


# -- denied logins behind a gateway that turns 403 into the sign-in page


def denied_callback(harness: Harness, user: str = "alice", **changes: Any) -> Respond:
    """Return the callback of a login; the gateway drops the cookies of a 403."""
    url = harness.start_login("/deep")
    target = target_of(harness.idp.log_in(url, user))
    return harness.get(target, *PAGE, jar=dict(harness.jar), **changes)


def test_denied_login_loop_ends_at_status_that_gateways_pass() -> None:
    harness = Harness(settings(email_domains=("other.example",)))
    for number in range(1, 6):
        response = denied_callback(harness)
        harness.clock.now += 1
        assert response.status == (403 if number < LOOP_THRESHOLD else 429)
        assert b"does not have access" in response.body
        assert response.verdict == "denied"
        [event] = response.events
        assert (event.kind, event.reason) == ("login_denied", "email")
        assert ("logins in a row" in event.detail) == (number >= LOOP_THRESHOLD)
    # Another user, another client, and a later login are counted for themselves.
    assert denied_callback(harness, "bob").status == 403
    assert denied_callback(harness, peer="192.0.2.8").status == 403
    harness.clock.now += REPEAT_WINDOW + 1
    assert denied_callback(harness).status == 403


def test_denied_login_loop_other_failures_count_too(harness: Harness) -> None:
    statuses = []
    for _ in range(LOOP_THRESHOLD):
        url = harness.start_login()
        target = target_of(harness.idp.log_in(url, "alice"))
        # Without the login cookie; the mark of a restarted login ends the restarts.
        [state] = parse_qs(urlsplit(target).query)["state"]
        target = target.replace(state, f"{state}.again")
        statuses.append(harness.get(target, *PAGE, jar={}).status)
        assert harness.get(target, jar={}).status == 403  # not a browser
    assert statuses == [403] * (LOOP_THRESHOLD - 1) + [429]


def test_denied_session_loop_ends_in_page(harness: Harness) -> None:
    """The auth endpoint's constraint denies the session; the login succeeds."""
    harness.log_in("bob")
    logins = 0
    while (response := harness.get("/oauth2/start?rd=/deep")).status == 302:
        back = harness.finish_login(header(response, b"location").decode(), "bob")
        assert back.status == 302
        assert harness.get("/oauth2/auth?allowed_groups=admins").status == 403
        harness.clock.now += 0.1
        logins += 1
        assert logins < 10
    assert response.status == 429
    assert b"does not have access" in response.body
    [event] = response.events
    assert event.reason == "login_loop"


def test_login_loop_with_invalid_session_cookie_does_not_blame_browser() -> None:
    harness = Harness(settings(cookie={"domains": ("example.com",)}))
    session = b"_oauth2_proxy"
    harness.jar[COOKIE] = b"3"
    harness.jar[session] = b"left-by-another-instance"
    response = harness.get("/oauth2/start?rd=/deep")
    assert response.status == 429
    assert b"did not keep" not in response.body
    assert b"older session cookie" in response.body
    [event] = response.events
    assert "another secret" in event.detail
    cleared = [
        line
        for line in headers(response, b"set-cookie")
        if line.startswith(session + b"=")
    ]
    assert [b"Domain=example.com" in line for line in cleared] == [False, True]


def test_failed_logins_are_counted_within_bounds() -> None:
    loops = detector()
    client = "192.0.2.7"
    for number in range(MAX_USERS + 5):
        assert run_scripted(loops.count_denied(f"u{number}", client)) == 1
    assert len(loops._repeated) == MAX_USERS
    assert run_scripted(loops.count_denied("u0", client)) == 1
    assert run_scripted(loops.count_signed_in("u0", client)) == 1
    assert run_scripted(loops.count_denied("u0", client)) == 2
