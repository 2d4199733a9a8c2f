"""Sign-out at the provider: RP-initiated logout, backend_logout_url, revocation."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authproxy_core import (
    Fetch,
    FetchError,
    Respond,
    Response,
)
from authproxy_core.settings.root import LogoutSettings
from support.harness import ISSUER, Harness, header, settings

NAME = b"_oauth2_proxy"


def harness_with_provider_sign_out(**changes: Any) -> Harness:
    logout = LogoutSettings(at_provider=True)
    harness = Harness(settings(logout=logout, **changes))
    harness.log_in()
    return harness


def test_lo05_sign_out_redirects_to_provider() -> None:
    harness = harness_with_provider_sign_out()
    token = harness.proxy._sessions.lookup(harness.request("/").headers)
    assert token is not None
    response = harness.get("/oauth2/sign_out?rd=/bye")
    assert response.status == 302
    location = header(response, b"location").decode()
    assert location.startswith(f"{ISSUER}/")
    params = parse_qs(urlsplit(location).query)
    assert params["id_token_hint"] == [token.session.id_token]
    assert params["client_id"] == ["authproxy"]
    assert params["post_logout_redirect_uri"] == ["https://app.example.com/bye"]
    assert NAME not in harness.jar
    assert header(harness.get("/oauth2/sign_out?rd=/bye"), b"location") == b"/bye"


def test_post_logout_redirect_has_request_scheme() -> None:
    harness = harness_with_provider_sign_out(cookie={"secure": False})
    location = header(harness.get("/oauth2/sign_out", secure=False), b"location")
    assert b"post_logout_redirect_uri=http%3A%2F%2Fapp.example.com%2F" in location


def test_post_logout_redirect_to_whitelisted_host() -> None:
    harness = harness_with_provider_sign_out(whitelist_domains=(".example.com",))
    response = harness.get("/oauth2/sign_out?rd=https://www.example.com/x")
    assert b"uri=https%3A%2F%2Fwww.example.com%2Fx" in header(response, b"location")


def test_sign_out_without_end_session_endpoint_stays_local() -> None:
    logout = LogoutSettings(at_provider=True)
    harness = Harness(settings(logout=logout), ready=False)
    harness.config.discovery["end_session_endpoint"] = None
    harness.run(harness.proxy.warm_up())
    harness.log_in()
    assert header(harness.get("/oauth2/sign_out"), b"location") == b"/"


def sign_out_with_backend_logout(outcome: Any) -> tuple[Harness, list[Fetch], Respond]:
    """Sign out with a backend_logout_url that returns or raises *outcome*."""
    url = "https://idp.example.com/end?token={id_token}"
    harness = Harness(settings(provider={"backend_logout_url": url}))
    harness.log_in()
    asked: list[Fetch] = []

    def fetch(effect: Fetch) -> Any:
        asked.append(effect)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    harness.on_fetch = fetch
    response = harness.get("/oauth2/sign_out?rd=/bye")
    return harness, asked, response


@pytest.mark.parametrize("status", [200, 204])
def test_sign_out_calls_backend_logout_url(status: int) -> None:
    harness, [asked], response = sign_out_with_backend_logout(Response(status))
    assert asked.method == "GET"
    assert asked.url.startswith("https://idp.example.com/end?token=ey")
    assert header(response, b"location") == b"/bye"
    assert [event.kind for event in response.events] == ["logged_out"]
    assert NAME not in harness.jar


@pytest.mark.parametrize("outcome", [Response(500), FetchError("connection refused")])
def test_sign_out_with_failing_backend_logout_revokes_session(outcome: Any) -> None:
    harness, _, response = sign_out_with_backend_logout(outcome)
    assert response.status == 302
    assert [event.kind for event in response.events] == ["logged_out", "logout_failed"]
    assert "ey" not in response.events[1].detail
    assert NAME not in harness.jar


def test_sign_out_without_session_calls_no_backend_logout() -> None:
    url = "https://idp.example.com/end?token={id_token}"
    harness = Harness(settings(provider={"backend_logout_url": url}))
    harness.fetched.clear()
    assert harness.get("/oauth2/sign_out").status == 302
    assert not harness.fetched


REVOKES = LogoutSettings(revokes_tokens=True)


def sign_out_with_revocation(
    outcome: Any, **provider: Any
) -> tuple[list[Fetch], Respond]:
    """Sign out with token revocation, which returns or raises *outcome*."""
    harness = Harness(settings(logout=REVOKES, provider=provider), ready=False)
    harness.config.discovery["revocation_endpoint"] = f"{ISSUER}/revoke"
    harness.run(harness.proxy.warm_up())
    harness.log_in()
    asked: list[Fetch] = []

    def fetch(effect: Fetch) -> Any:
        asked.append(effect)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    harness.on_fetch = fetch
    response = harness.get("/oauth2/sign_out?rd=/bye")
    assert NAME not in harness.jar
    assert header(response, b"location") == b"/bye"
    return asked, response


def test_lo10_sign_out_revokes_refresh_token() -> None:
    [asked], response = sign_out_with_revocation(Response(200))
    assert (asked.method, asked.url) == ("POST", f"{ISSUER}/revoke")
    assert asked.purpose == "revocation"
    assert b"token_type_hint=refresh_token" in asked.body
    assert any(name == b"authorization" for name, _ in asked.headers)
    assert [event.kind for event in response.events] == ["logged_out"]


@pytest.mark.parametrize("outcome", [Response(503), FetchError("connection refused")])
def test_lo10_sign_out_with_failing_revocation_revokes_session(outcome: Any) -> None:
    _, response = sign_out_with_revocation(outcome)
    assert [event.kind for event in response.events] == ["logged_out", "logout_failed"]
    assert response.events[1].reason == "revocation"


def test_lo10_sign_out_without_revocation_endpoint() -> None:
    harness = Harness(settings(logout=REVOKES))
    harness.log_in()
    harness.fetched.clear()
    assert harness.get("/oauth2/sign_out").status == 302
    assert not harness.fetched
