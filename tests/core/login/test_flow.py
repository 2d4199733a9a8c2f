"""Login with the development provider: OIDC Core §3.1, RFC 9207, RFC 9700."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from authproxy_core import Fetch, FetchError, Respond, Response
from authproxy_core.oidc.jwt import hash_nonce
from support.harness import (
    ALICE,
    BOB,
    HOST,
    ISSUER,
    START,
    UNUSABLE_KEYS,
    Harness,
    header,
    headers,
    provider_settings,
    settings,
    target_of,
    with_changes,
)


def query_params(url: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}


def event_reasons(response: Respond) -> list[str]:
    return [event.reason for event in response.events]


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


def test_authorization_request_has_state_nonce_and_pkce(harness: Harness) -> None:
    params = query_params(harness.start_login("/"))
    assert params["response_type"] == "code"
    assert params["client_id"] == "authproxy"
    assert params["redirect_uri"] == "https://app.example.com/oauth2/callback"
    assert params["scope"] == "openid email profile"
    assert params["code_challenge_method"] == "S256"
    assert len(params["code_challenge"]) == 43
    assert len(params["state"]) == 43
    assert len(params["nonce"]) == 43


def test_lg32_parameters_of_start_request_not_sent_to_provider(
    harness: Harness,
) -> None:
    response = harness.get(
        "/oauth2/start?prompt=none&client_id=evil&redirect_uri=//evil&scope=x&request=y"
        "&acr_values=z&rd=/"
    )
    params = query_params(header(response, b"location").decode())
    assert params["client_id"] == "authproxy"
    assert params["redirect_uri"] == "https://app.example.com/oauth2/callback"
    assert {"prompt", "request", "acr_values"}.isdisjoint(params)


def test_lg26_lg31_logins_have_distinct_random_values(harness: Harness) -> None:
    seen: set[str] = set()
    for _ in range(200):
        harness.jar.clear()
        params = query_params(harness.start_login("/"))
        seen |= {params["state"], params["nonce"], params["code_challenge"]}
    assert len(seen) == 600


def test_lg35_login_cookie_has_protective_attributes(harness: Harness) -> None:
    response = harness.get("/oauth2/start")
    cookie = header(response, b"set-cookie").decode()
    assert cookie.startswith("_oauth2_proxy_")
    assert "; HttpOnly" in cookie
    assert "; Secure" in cookie
    assert "Max-Age=900" in cookie
    state = query_params(header(response, b"location").decode())["state"]
    assert state[:8] in cookie.partition("=")[0]


def test_pkce_not_offered_by_provider_is_omitted(harness: Harness) -> None:
    harness.config.discovery["code_challenge_methods_supported"] = None
    fresh = Harness(harness.settings, ready=False)
    fresh.config.discovery["code_challenge_methods_supported"] = None
    fresh.run(fresh.proxy.warm_up())
    assert "code_challenge" not in query_params(fresh.start_login())
    assert fresh.log_in().status == 302


@pytest.mark.parametrize(
    ("method", "expected"), [("plain", "plain"), ("S256", "S256"), ("none", None)]
)
def test_pkce_method_configured_is_used(method: str, expected: str | None) -> None:
    harness = Harness(settings(provider={"code_challenge_method": method}))
    harness.config.discovery["code_challenge_methods_supported"] = ["S256", "plain"]
    assert query_params(harness.start_login()).get("code_challenge_method") == expected


def test_nonce_disabled_is_not_sent() -> None:
    harness = Harness(settings(provider={"skip_nonce": True}))
    assert "nonce" not in query_params(harness.start_login())
    assert harness.log_in().status == 302


def test_login_parameters_configured_do_not_override_protocol_parameters() -> None:
    from authproxy_core.settings.root import LoginParameter

    harness = Harness(
        settings(
            provider={
                "login_parameters": (
                    LoginParameter("acr_values", ("loa2",)),
                    LoginParameter("state", ("fixed",)),
                ),
                "response_mode": "query",
                "scope": "openid email",
                "allowed_groups": ("staff",),
            }
        )
    )
    params = query_params(harness.start_login())
    assert params["acr_values"] == "loa2"
    assert params["state"] != "fixed"
    assert params["response_mode"] == "query"
    assert params["scope"] == "openid email"


@pytest.mark.parametrize(
    ("groups", "scope"),
    [
        ((), "openid email profile"),
        (("role:admin",), "openid email profile"),
        (("staff",), "openid email profile groups"),
    ],
)
def test_scope_contains_groups_if_allowed_groups_need_it(
    groups: tuple[str, ...], scope: str
) -> None:
    harness = Harness(settings(provider={"allowed_groups": groups}))
    assert query_params(harness.start_login())["scope"] == scope


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
    assert response.status == 500
    assert event_reasons(response) == ["issuer"]
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
    assert response.status == 500
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
        (Response(200, (), b'{"error": "invalid_grant"}'), "invalid_grant"),
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


def test_invalid_client_names_client_secret() -> None:
    from authproxy_core import Secret

    harness = Harness(settings(provider={"client_secret": Secret(b"wrong")}))
    response = harness.log_in()
    assert response.status == 500
    assert b"credentials" in response.body
    assert "client_secret" in response.events[0].detail
    assert "wrong" not in response.events[0].detail


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


# -- ID token


def test_audience_missing_explains_keycloak_mapper(harness: Harness) -> None:
    harness.config.id_token_claims["aud"] = "account"
    response = harness.log_in()
    assert response.status == 500
    assert b"audience" in response.body
    detail = response.events[0].detail
    assert "expected audience 'authproxy' in the claim aud, got 'account'" in detail
    assert "Client scopes -> authproxy-dedicated" in detail
    assert "Included Client Audience: authproxy" in detail


def test_audience_missing_names_option_for_other_providers() -> None:
    harness = Harness(settings(provider={"type": "oidc"}))
    harness.config.id_token_claims["aud"] = "account"
    assert "oidc_extra_audiences" in harness.log_in().events[0].detail


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": [ISSUER]}, "issuer"),
        ({"aud": None}, "audience"),
        ({"aud": 7}, "audience"),
        ({"aud": {"authproxy": 1}}, "audience"),
        ({"aud": [7, None]}, "audience"),
        ({"aud": ["authproxy", "other"], "azp": None}, "authorized_party"),
        ({"azp": "other"}, "authorized_party"),
        ({"azp": 7}, "authorized_party"),
        ({"exp": START - 31}, "expired"),
        ({"exp": None}, "malformed"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"iat": START + 31}, "clock_skew"),
        ({"iat": None}, "malformed"),
        ({"iat": 1e300}, "clock_skew"),
        ({"nbf": START + 31}, "clock_skew"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": 7}, "subject"),
        ({"sub": "a\r\nb"}, "subject"),
        ({"sub": "x" * 10_000}, "subject"),
        ({"nonce": None}, "nonce"),
        ({"nonce": "other"}, "nonce"),
        ({"nonce": 7}, "nonce"),
        ({"at_hash": "AAAA"}, "at_hash"),
        ({"at_hash": 7}, "at_hash"),
        ({"events": {}}, "type"),
    ],
)
def test_jw16_to_jw37_lg29_invalid_claims_fail_login(
    harness: Harness, claims: dict[str, Any], reason: str
) -> None:
    harness.config.id_token_claims.update(claims)
    response = harness.log_in()
    assert response.status == 500
    assert event_reasons(response) == [reason]
    assert b"_oauth2_proxy" not in harness.jar


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["authproxy", "account"], "azp": "authproxy"},
        {"aud": ["authproxy"], "azp": None},
        {"exp": START - 29},
        {"iat": START + 29},
        {"nbf": START + 29},
        {"nbf": START - 5},
        {"at_hash": None},
    ],
)
def test_valid_claims_accepted(harness: Harness, claims: dict[str, Any]) -> None:
    harness.config.id_token_claims.update(claims)
    assert harness.log_in().status == 302


def test_extra_audiences_and_audience_claims_accepted() -> None:
    harness = Harness(
        settings(
            provider={"audience_claims": ("x", "aud"), "extra_audiences": ("account",)}
        )
    )
    harness.config.id_token_claims["aud"] = ["account", "authproxy"]
    assert harness.log_in().status == 302
    harness.config.id_token_claims["x"] = "other"
    assert event_reasons(harness.log_in()) == ["audience"]


def test_issuer_check_disabled_accepts_other_issuer() -> None:
    harness = Harness(settings(provider={"skip_issuer_verification": True}))
    harness.config.id_token_claims["iss"] = "https://other.test"
    assert harness.log_in().status == 302


def test_clock_skew_shows_error_page(harness: Harness) -> None:
    harness.config.clock_offset = 3600.0
    response = harness.log_in()
    assert event_reasons(response) == ["clock_skew"]
    assert b"clocks" in response.body
    assert "3600 s in the future" in response.events[0].detail
    assert "clock_skew" in response.events[0].detail


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_id_token_with_common_algorithm_accepted(alg: str) -> None:
    harness = Harness(ready=False)
    harness.config.signing_alg = alg  # type: ignore[assignment]
    harness.run(harness.proxy.warm_up())
    assert harness.log_in().status == 302


def test_jwks_unusable_keys_skipped() -> None:
    harness = Harness(ready=False)
    harness.config.jwks_before = UNUSABLE_KEYS
    harness.run(harness.proxy.warm_up())
    assert harness.log_in().status == 302


def test_jw29_rotated_keys_fetched_once(harness: Harness) -> None:
    harness.clock.now += 60
    harness.idp.rotate_keys(keep_old=False)
    before = harness.idp.count("jwks")
    assert harness.log_in().status == 302
    assert harness.log_in("bob").status == 302
    assert harness.idp.count("jwks") == before + 1


def test_jw10_jw11_unknown_keys_limit_fetches(harness: Harness) -> None:
    harness.clock.now += 60
    harness.config.id_token_header["kid"] = "unknown"
    before = harness.idp.count("jwks")
    for _ in range(20):
        assert event_reasons(harness.log_in()) == ["unknown_key"]
    assert harness.idp.count("jwks") == before + 1


def test_jw28_jwks_failure_keeps_old_keys(harness: Harness) -> None:
    harness.clock.now += 4000
    harness.config.failing["jwks"] = 500
    assert harness.log_in().status == 302


def test_jwks_fetched_while_waiting_not_fetched_again(harness: Harness) -> None:
    """While one login waits for the lock, another may fetch the keys."""
    harness.clock.now += 60
    harness.idp.rotate_keys(keep_old=False)
    url = harness.idp.log_in(harness.start_login(), "alice")
    provider = harness.proxy._providers["keycloak"]
    done = []

    original = harness.perform

    def perform(effect: Any) -> Any:
        if type(effect).__name__ == "Lock" and not done:
            done.append(1)
            harness.run(provider._keys.fetch(f"{ISSUER}/jwks"))
        return original(effect)

    harness.perform = perform  # type: ignore[method-assign]
    assert harness.get(target_of(url)).status == 302


def test_jw01_to_jw08_forged_tokens_rejected(harness: Harness) -> None:
    def broken(token: str) -> list[str]:
        head, body, signature = token.split(".")
        return [
            "",
            "x",
            token + "x",
            token[:-4],
            f"{head}.{body}.",
            f"{head}.{body}",
            f"{head}.{body}.{signature}.{signature}",
            f"{head}.{body}.{signature}.{signature}.{signature}",
            f"{head}=.{body}.{signature}",
            f"{head}.{body} .{signature}",
            "eyJhbGciOiJub25lIn0.e30.AAAA",
            "eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
            "e30.e30.AAAA",
            "W10.e30.AAAA",
            "bnVsbA.e30.AAAA",
            "AAAA.e30.AAAA",
            "x" * 100_000,
            "\u00e9.e30.AAAA",
        ]

    for number in range(len(broken("a.b.c"))):
        harness.jar.clear()
        harness.config.id_token_filter = lambda token, number=number: broken(token)[
            number
        ]
        response = harness.log_in()
        assert response.status == 500, number
        assert b"_oauth2_proxy" not in harness.jar


@pytest.mark.parametrize(
    ("header_change", "reason"),
    [
        ({"alg": "RS512"}, "algorithm"),
        ({"alg": ["RS256"]}, "algorithm"),
        ({"alg": None}, "algorithm"),
        ({"kid": 7}, "malformed"),
        ({"crit": ["x"]}, "malformed"),
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": "at+jwt"}, "type"),
    ],
)
def test_jw04_invalid_jose_headers_rejected(
    harness: Harness, header_change: dict[str, Any], reason: str
) -> None:
    harness.config.id_token_filter = lambda token: with_header(token, header_change)
    assert event_reasons(harness.log_in()) == [reason]


def with_header(token: str, changes: dict[str, Any]) -> str:
    from authproxy_core.encoding import b64url, b64url_decode

    head, body, signature = token.split(".")
    decoded = msgspec.json.decode(b64url_decode(head.encode()) or b"")
    fields = {k: v for k, v in (decoded | changes).items() if v is not None}
    return f"{b64url(msgspec.json.encode(fields)).decode()}.{body}.{signature}"


def test_jw14_keys_in_jose_header_not_fetched(harness: Harness) -> None:
    harness.config.id_token_header.update(
        {"jku": "https://evil.test/jwks", "x5u": "https://evil.test/x"}
    )
    harness.log_in()
    assert all(effect.url.startswith(ISSUER) for effect in harness.fetched)


def test_id_token_without_key_id_verified_with_all_keys(harness: Harness) -> None:
    harness.idp.rotate_keys()
    harness.config.id_token_header["kid"] = None
    harness.clock.now += 60
    assert harness.log_in().status == 302


# -- claims and userinfo


def test_claims_missing_in_id_token_read_from_userinfo(harness: Harness) -> None:
    harness.config.id_token_claims.update({"email": None, "groups": None})
    assert harness.log_in().status == 302
    assert harness.idp.count("userinfo") == 1
    check = harness.get("/oauth2/auth")
    assert header(check, b"x-auth-request-email") == b"alice@example.com"
    assert header(check, b"x-auth-request-groups").startswith(b"admins,staff")


def test_userinfo_not_fetched_if_claims_complete(harness: Harness) -> None:
    harness.log_in()
    assert harness.idp.count("userinfo") == 0


def test_jw34_userinfo_of_other_subject_fails_login(harness: Harness) -> None:
    harness.config.id_token_claims["email"] = None
    harness.config.userinfo_claims["sub"] = "other"
    assert event_reasons(harness.log_in()) == ["userinfo_subject"]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(403, (), b"{}"), "userinfo_failed"),
        (Response(200, (), b"[]"), "userinfo_invalid"),
        (Response(200, (), b"<html>"), "userinfo_invalid"),
        (
            Response(200, ((b"content-type", b"application/jwt"),), b"a.b.c"),
            "userinfo_invalid",
        ),
    ],
)
def test_jw35_az19_userinfo_failure_fails_login(
    harness: Harness, response: Response, reason: str
) -> None:
    harness.config.id_token_claims["groups"] = None
    harness.on_fetch = lambda effect: (
        response if effect.url.endswith("/userinfo") else harness.idp.fetch(effect)
    )
    assert event_reasons(harness.log_in()) == [reason]


def test_userinfo_disabled_is_not_fetched() -> None:
    harness = Harness(settings(provider={"skip_claims_from_profile_url": True}))
    harness.config.id_token_claims["email"] = None
    response = harness.log_in()
    assert event_reasons(response) == ["email_missing"]
    assert "oidc_email_claim" in response.events[0].detail
    assert harness.idp.count("userinfo") == 0


@pytest.mark.parametrize("verified", [False, "false", 0, "no"])
def test_az07_unverified_email_denied(harness: Harness, verified: Any) -> None:
    harness.config.id_token_claims["email_verified"] = verified
    response = harness.log_in()
    assert event_reasons(response) == ["email_unverified"]


def test_az07_unverified_email_allowed_by_option() -> None:
    harness = Harness(settings(provider={"allow_unverified_email": True}))
    harness.config.id_token_claims["email_verified"] = False
    assert harness.log_in().status == 302


def test_az07_email_verified_missing_is_allowed() -> None:
    harness = Harness(settings(provider={"skip_claims_from_profile_url": True}))
    harness.config.id_token_claims["email_verified"] = None
    assert harness.log_in().status == 302


def test_email_claim_configured_is_used() -> None:
    harness = Harness(settings(provider={"email_claim": "upn", "type": "oidc"}))
    harness.config.id_token_claims.update(
        {"upn": "a@b.example", "email_verified": False}
    )
    harness.log_in()
    check = harness.get("/oauth2/auth")
    assert header(check, b"gap-auth") == b"a@b.example"


def test_extra_claims_injected_by_path() -> None:
    from support.harness import rule

    harness = Harness(
        settings(
            inject_response_headers=(
                rule("X-Department", "org.department"),
                rule("X-Nothing", "absent"),
            )
        )
    )
    harness.config.id_token_claims["org"] = {"department": ["a", 7, None, {"b": "<"}]}
    harness.log_in()
    check = harness.get("/oauth2/auth")
    assert header(check, b"x-department") == b'a,7,{"b":"<"}'
    assert header(check, b"x-nothing") == b""


def test_az14_group_with_role_prefix_dropped(harness: Harness) -> None:
    harness.config.id_token_claims["groups"] = ["staff", "role:admin", "role:x:y"]
    harness.log_in("bob")
    assert header(harness.get("/oauth2/auth"), b"x-auth-request-groups") == b"staff"


@pytest.mark.parametrize(
    "access",
    [
        {"realm_access": None, "resource_access": None},
        {"realm_access": {"roles": None}, "resource_access": {"app": None}},
        {"realm_access": [], "resource_access": []},
        {"realm_access": {"roles": [7, ""]}, "resource_access": {"app": {"roles": {}}}},
    ],
)
def test_roles_malformed_are_skipped(harness: Harness, access: dict[str, Any]) -> None:
    harness.config.access_token_claims.update(access)
    harness.log_in()
    groups = header(harness.get("/oauth2/auth"), b"x-auth-request-groups")
    assert groups == b"admins,staff"


def test_hs11_comma_in_group_does_not_split_it(harness: Harness) -> None:
    harness.config.id_token_claims["groups"] = ["a,admins"]
    harness.log_in("bob")
    groups = header(harness.get("/oauth2/auth"), b"x-auth-request-groups")
    assert groups == b"a%2Cadmins"


def test_hs10_crlf_in_claims_encoded_in_headers(harness: Harness) -> None:
    harness.config.id_token_claims["preferred_username"] = "a\r\nX-Evil: 1\0"
    harness.log_in()
    name = header(harness.get("/oauth2/auth"), b"x-auth-request-preferred-username")
    assert name == b"a%0D%0AX-Evil: 1%00"


# -- access


def test_login_without_allowed_group_denied() -> None:
    harness = Harness(settings(provider={"allowed_groups": ("role:admin",)}))
    response = harness.log_in("bob")
    assert response.status == 403
    assert [event.kind for event in response.events] == ["login_denied"]
    assert event_reasons(response) == ["groups"]
    assert b"_oauth2_proxy" not in harness.jar
    assert harness.log_in("alice").status == 302


def test_login_of_other_email_domain_denied() -> None:
    harness = Harness(settings(email_domains=("company.example",)))
    assert event_reasons(harness.log_in()) == ["email"]


def test_ck29_session_too_large_for_cookies_shows_error_page() -> None:
    harness = Harness(settings(cookie={"max_parts": 2}))
    harness.config.padding = 20_000
    response = harness.log_in()
    assert response.status == 500
    assert event_reasons(response) == ["session_too_large"]
    assert "session_cookie_max_parts" in response.events[0].detail


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
