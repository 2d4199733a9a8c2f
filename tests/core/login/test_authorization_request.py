"""Authorization request: scope, state, nonce, PKCE and login parameters."""

from __future__ import annotations

import pytest

from support.harness import (
    Harness,
    header,
    query_params,
    settings,
)


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
