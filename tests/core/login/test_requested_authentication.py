"""``acr_values``, ``max_age`` and ``prompt``: the ID token must show their effect."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.settings.providers import AllowRule, LoginParameter
from support.harness import Harness, event_reasons, header, settings

ACR = LoginParameter("acr_values", ("gold silver",))
ACR_CHOICE = LoginParameter("acr_values", ("silver",), (AllowRule("gold"),))
MAX_AGE = LoginParameter("max_age", ("60",))
MAX_AGE_CHOICE = LoginParameter("max_age", (), (AllowRule("^[0-9]+$", True),))
PROMPT = LoginParameter("prompt", ("login",))


def log_in(
    *parameters: LoginParameter,
    query: str = "",
    cookie: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    """Log in; return the reason code of the failure, "" for success.

    ``auth_time`` is relative to the time of the login.
    """
    harness = Harness(
        settings(cookie=cookie, provider={"login_parameters": parameters})
    )
    if type(claims.get("auth_time")) is int:
        claims["auth_time"] += int(harness.clock.now)
    harness.config.id_token_claims.update(claims)
    started = harness.get(f"/oauth2/start?rd=/{query}")
    harness.clock.now += 5
    response = harness.finish_login(header(started, b"location").decode())
    if response.status == 302:
        assert harness.get("/oauth2/auth").status == 202
        return ""
    assert response.status == 403
    assert b"This application requires" in response.body
    assert harness.get("/oauth2/auth").status == 401
    [reason] = event_reasons(response)
    return reason


FORMATS = [None, {"format": "oauth2-proxy"}]


@pytest.mark.parametrize("cookie", FORMATS)
@pytest.mark.parametrize(
    ("acr", "reason"),
    [
        ("gold", ""),
        ("silver", ""),
        ("bronze", "acr"),
        ("", "acr"),
        ("gold silver", "acr"),
        (["gold"], "acr"),
        (None, "acr"),
    ],
)
def test_acr_compared_with_configured_values(
    cookie: dict[str, Any] | None, acr: Any, reason: str
) -> None:
    assert log_in(ACR, cookie=cookie, acr=acr) == reason


def test_acr_ignored_if_not_requested() -> None:
    assert log_in(acr="anything") == ""


@pytest.mark.parametrize(
    ("query", "acr", "reason"),
    [
        ("&acr_values=gold", "gold", ""),
        ("&acr_values=gold", "silver", "acr"),
        ("&acr_values=bronze", "bronze", "acr"),  # not allowed, so silver is requested
        ("", "silver", ""),
        ("", "gold", "acr"),
    ],
)
def test_acr_compared_with_value_of_login_request(
    query: str, acr: str, reason: str
) -> None:
    assert log_in(ACR_CHOICE, query=query, acr=acr) == reason


def test_acr_of_unknown_login_request_not_compared() -> None:
    """A cookie in oauth2-proxy's format does not hold the request's choice."""
    cookie = {"format": "oauth2-proxy"}
    assert log_in(ACR_CHOICE, cookie=cookie, query="&acr_values=gold", acr="x") == ""


@pytest.mark.parametrize("cookie", FORMATS)
@pytest.mark.parametrize(
    ("auth_time", "reason"),
    [
        (0, ""),
        (-80, ""),  # within max_age and the leeway
        (-86, "auth_time"),
        (-(10**6), "auth_time"),
        (None, "auth_time"),
        ("now", "auth_time"),
        (True, "auth_time"),
    ],
)
def test_auth_time_within_max_age(
    cookie: dict[str, Any] | None, auth_time: Any, reason: str
) -> None:
    assert log_in(MAX_AGE, cookie=cookie, auth_time=auth_time) == reason


def test_auth_time_within_max_age_of_login_request() -> None:
    assert log_in(MAX_AGE_CHOICE, query="&max_age=0", auth_time=-36) == "auth_time"
    assert log_in(MAX_AGE_CHOICE, query="&max_age=0", auth_time=0) == ""
    assert log_in(MAX_AGE_CHOICE, query="&max_age=0", auth_time=None) == "auth_time"
    assert log_in(MAX_AGE_CHOICE, auth_time=-1000) == ""
    assert log_in(MAX_AGE_CHOICE, query="&max_age=9999999999999999", auth_time=0) == ""


@pytest.mark.parametrize(
    ("auth_time", "reason"),
    [(0, ""), (-30, ""), (-31, "auth_time"), (None, ""), ("now", "auth_time")],
)
def test_prompt_login_requires_new_authentication(auth_time: Any, reason: str) -> None:
    assert log_in(PROMPT, auth_time=auth_time) == reason


def test_prompt_of_other_value_not_checked() -> None:
    assert log_in(LoginParameter("prompt", ("consent",)), auth_time=-1000) == ""
    assert log_in(LoginParameter("max_age", ("soon",)), auth_time=-1000) == ""


def test_refresh_does_not_require_new_authentication() -> None:
    parameters = (ACR, MAX_AGE)
    harness = Harness(
        settings(cookie={"refresh": 60.0}, provider={"login_parameters": parameters})
    )
    assert harness.log_in().status == 302
    harness.config.id_token_claims["acr"] = None
    harness.clock.now += 200
    assert harness.get("/oauth2/auth").status == 202
    assert harness.events[-1].kind == "refreshed"
