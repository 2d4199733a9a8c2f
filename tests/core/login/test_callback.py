"""Callback: login state, and the response of the provider (RFC 6749, RFC 9207)."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from authproxy_core import Fetch, FetchError, Response
from support.cycles import cyclic, without_collections
from support.harness import (
    ISSUER,
    Harness,
    event_reasons,
    header,
    headers,
    query_params,
    settings,
    target_of,
)

# -- callback: state


def test_lg01_callback_without_login_cookie_does_not_redeem(harness: Harness) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    before = harness.idp.count("token")
    response = harness.get(target_of(url), jar={})
    assert response.status == 403
    assert event_reasons(response) == ["login_state_lost"]
    assert b"request-1" in response.body
    assert harness.idp.count("token") == before


def test_lg02_callback_with_wrong_state_does_not_redeem(
    harness: Harness,
) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    params = query_params(url)
    forged = params["state"][:8] + "A" * 35
    response = harness.get(f"/oauth2/callback?code={params['code']}&state={forged}")
    assert response.status == 403
    assert harness.idp.count("token") == 0
    assert harness.get(target_of(url)).status == 302


def test_lg04_lg05_callback_repeated_is_rejected(harness: Harness) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    jar = dict(harness.jar)
    assert harness.get(target_of(url), jar=jar).status == 302
    again = harness.get(target_of(url), jar=jar)
    assert again.status == 403
    assert harness.idp.count("token") == 1


def test_lg07_login_and_session_cookies_are_not_interchangeable(
    harness: Harness,
) -> None:
    harness.start_login()
    [(_, login)] = harness.jar.items()
    assert harness.get("/oauth2/auth", jar={b"_oauth2_proxy": login}).status == 401
    harness.log_in()
    session = harness.jar[b"_oauth2_proxy"]
    url = harness.start_login()
    state = query_params(url)["state"]
    name = f"_oauth2_proxy_{state[:8]}_csrf".encode()
    response = harness.get(
        f"/oauth2/callback?code=x&state={state}", jar={name: session}
    )
    assert response.status == 403


@pytest.mark.parametrize(
    "state",
    ["", "x", "A" * 100_000, "A" * 43, "*" * 43, ":", "a:b:c", "%00", "%C3%A9" * 43],
)
def test_lg10_callback_with_malformed_state_rejected(
    harness: Harness, state: str
) -> None:
    harness.start_login()
    response = harness.get(f"/oauth2/callback?code=x&state={state}")
    assert response.status in (400, 403)
    assert harness.idp.count("token") == 0


def test_lg10_callback_without_state_rejected(harness: Harness) -> None:
    assert harness.get("/oauth2/callback").status == 403


@pytest.mark.parametrize("name", ["code", "state", "iss"])
def test_lg11_callback_with_duplicate_parameter_rejected(
    harness: Harness, name: str
) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    value = query_params(url)[name]
    response = harness.get(f"{target_of(url)}&{name}={value}")
    assert response.status == 400
    assert harness.idp.count("token") == 0


def test_lg13_form_post_callback_requires_login_cookie(harness: Harness) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    harness.body = urlsplit(url).query.encode()
    form = (b"content-type", b"application/x-www-form-urlencoded")
    without_cookie = harness.get("/oauth2/callback", form, method=b"POST", jar={})
    assert without_cookie.status == 403
    response = harness.get("/oauth2/callback", form, method=b"POST")
    assert response.status == 302


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_lg14_callback_with_other_method_does_not_redeem(
    harness: Harness, method: bytes
) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    response = harness.get(target_of(url), method=method)
    assert response.status == 405
    assert header(response, b"allow") == b"GET, POST"
    assert harness.idp.count("token") == 0


def test_lg08_callback_with_empty_post_rejected(harness: Harness) -> None:
    for path in ("callback", "start", "sign_in", "sign_out"):
        response = harness.get(f"/oauth2/{path}", method=b"POST")
        assert response.status in (200, 302, 403)
        assert harness.idp.count("token") == 0
    assert harness.get("/oauth2/auth").status == 401


def test_lg34_logins_of_two_tabs_complete_in_reverse_order(harness: Harness) -> None:
    first, second = harness.start_login("/first"), harness.start_login("/second")
    assert header(harness.finish_login(second, "bob"), b"location") == b"/second"
    assert header(harness.finish_login(first), b"location") == b"/first"


def test_login_above_slot_limit_clears_oldest_login() -> None:
    harness = Harness(settings(cookie={"csrf_slots": 3}))
    urls = []
    for number in range(5):
        harness.clock.now += 1
        urls.append(harness.start_login(f"/{number}"))
        assert len(harness.jar) <= 3
    assert harness.finish_login(urls[0]).status == 403
    assert header(harness.finish_login(urls[4]), b"location") == b"/4"


def test_login_above_slot_limit_clears_broken_cookie_first() -> None:
    harness = Harness(settings(cookie={"csrf_slots": 2}))
    url = harness.start_login("/first")
    harness.jar[b"_oauth2_proxy_AAAAAAAA_csrf"] = b"broken"
    harness.start_login("/new")
    assert b"_oauth2_proxy_AAAAAAAA_csrf" not in harness.jar
    assert header(harness.finish_login(url), b"location") == b"/first"


def test_callback_after_login_expiry_rejected(harness: Harness) -> None:
    url = harness.start_login()
    harness.clock.now += 901
    assert harness.finish_login(url).status == 403


def test_used_logins_are_bounded(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authproxy_core.login import state

    monkeypatch.setattr(state, "MAX_USED_STATES", 2)
    for _ in range(4):
        assert harness.log_in().status == 302


# -- callback: response of the provider


@pytest.mark.parametrize(
    "code", ["access_denied", "temporarily_unavailable", "odd_one"]
)
def test_lg17_callback_with_error_shows_error_page(harness: Harness, code: str) -> None:
    harness.config.authorization_error = code
    response = harness.log_in()
    assert response.status == 403
    assert event_reasons(response) == [code]
    assert b"request-1" in response.body
    assert len(headers(response, b"set-cookie")) == 1  # clears the login cookie


def test_lg19_callback_with_hostile_error_does_not_echo_it(harness: Harness) -> None:
    state = query_params(harness.start_login())["state"]
    response = harness.get(
        f"/oauth2/callback?state={state}&iss={ISSUER}"
        "&error=%3Cscript%3Ealert(1)%3C/script%3E&error_description=a%0d%0aSet-Cookie:x"
    )
    assert response.status == 403
    assert b"<script>alert" not in response.body
    assert b"Set-Cookie:x" not in response.body
    assert "script" not in response.events[0].detail


def test_lg20_callback_with_error_and_code_fails(harness: Harness) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    response = harness.get(f"{target_of(url)}&error=access_denied")
    assert response.status == 403
    assert harness.idp.count("token") == 0


@pytest.mark.parametrize(
    "issuer", [None, "https://other.test", ISSUER + "/", ISSUER.upper()]
)
def test_lg22_lg23_lg25_callback_with_other_issuer_rejected(
    harness: Harness, issuer: str | None
) -> None:
    harness.config.authorization_response["iss"] = issuer
    response = harness.log_in()
    assert response.status == 403
    assert event_reasons(response) == ["callback_issuer"]
    assert harness.idp.count("token") == 0


def test_callback_without_unannounced_issuer_accepted(harness: Harness) -> None:
    fresh = Harness(ready=False)
    fresh.config.discovery["authorization_response_iss_parameter_supported"] = None
    fresh.config.authorization_response["iss"] = None
    fresh.run(fresh.proxy.warm_up())
    assert fresh.log_in().status == 302


def test_callback_without_code_fails(harness: Harness) -> None:
    state = query_params(harness.start_login())["state"]
    response = harness.get(f"/oauth2/callback?state={state}&iss={ISSUER}")
    assert response.status == 400
    assert event_reasons(response) == ["no_code"]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(500, (), b"<html>"), "token_endpoint_failed"),
        (Response(200, (), b"<html>"), "token_endpoint_invalid"),
        (Response(200, (), b"[]"), "token_endpoint_invalid"),
        (Response(200, (), b"{}"), "token_endpoint_invalid"),
        (Response(200, (), b'{"access_token": ""}'), "token_endpoint_invalid"),
        (Response(200, (), b'{"access_token": "x"}'), "no_id_token"),
        (Response(302, (), b""), "token_endpoint_failed"),
        (Response(400, (), b'{"error": "<b>"}'), "invalid error code"),
        (FetchError("timed out after 10 s"), "provider_unreachable"),
    ],
)
def test_lg16_token_endpoint_failure_creates_no_session(
    harness: Harness, response: Response | Exception, reason: str
) -> None:
    def fetch(effect: Fetch) -> Response:
        if "/token" not in effect.url:
            return harness.idp.fetch(effect)
        if isinstance(response, Exception):
            raise response
        return response

    harness.on_fetch = fetch
    page = harness.log_in()
    assert page.status in (500, 502)
    assert event_reasons(page) == [reason]
    assert b"_oauth2_proxy" not in harness.jar


@pytest.mark.parametrize("code", ["invalid_grant", "bad_verification_code"])
def test_callback_with_foreign_code_is_forbidden(harness: Harness, code: str) -> None:
    """A client alone can cause it, so it is no server error."""
    url = harness.idp.log_in(harness.start_login(), "alice")
    body = f'{{"error": "{code}"}}'.encode()
    harness.on_fetch = lambda _fetch: Response(400, (), body)
    page = harness.get(target_of(url))
    assert page.status == 403
    assert b"expired or was already used" in page.body
    assert event_reasons(page) == [code]
    assert b"_oauth2_proxy" not in harness.jar


def test_invalid_client_names_client_secret() -> None:
    from authproxy_core import Secret

    harness = Harness(settings(provider={"client_secret": Secret(b"not-that-one")}))
    response = harness.log_in()
    assert response.status == 500
    assert b"credentials" in response.body
    assert "client_secret" in response.events[0].detail
    assert "not-that-one" not in response.events[0].detail
    with without_collections():
        assert harness.log_in().status == 500
        assert cyclic() == []


def test_client_authentication_retries_in_body(
    harness: Harness,
) -> None:
    def fetch(effect: Fetch) -> Response:
        basic = any(name == b"authorization" for name, _ in effect.headers)
        if effect.url.endswith("/token") and basic:
            return Response(401, (), b'{"error": "invalid_client"}')
        return harness.idp.fetch(effect)

    harness.on_fetch = fetch
    assert harness.log_in().status == 302
    assert harness.log_in().status == 302
    assert sum(effect.url.endswith("/token") for effect in harness.fetched) == 3


def test_client_authentication_uses_metadata() -> None:
    harness = Harness(ready=False)
    harness.config.discovery["token_endpoint_auth_methods_supported"] = [
        "client_secret_post"
    ]
    harness.run(harness.proxy.warm_up())
    assert harness.log_in().status == 302
    [token] = [effect for effect in harness.fetched if effect.url.endswith("/token")]
    assert b"client_secret=" in token.body
