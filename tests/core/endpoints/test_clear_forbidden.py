"""Clearing of sessions that are not authorized (``forbidden_session = "clear"``)."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import Secret, SessionSettings, Settings
from authproxy_core.settings.credentials import CredentialSettings
from support.fleet import Fleet
from support.harness import Harness, headers, settings, with_changes

IN_STORE = SessionSettings(shared=True, backend="store")
NAVIGATION = (
    (b"accept", b"text/html"),
    (b"sec-fetch-mode", b"navigate"),
)


def strict(**changes: Any) -> Settings:
    """Settings that allow admins only and clear the sessions of other users."""
    provider = {"allowed_groups": ("admins",)} | changes.pop("provider", {})
    return settings(provider=provider, forbidden_session="clear", **changes)


def harness_with(
    user: str = "bob", given: Settings | None = None, **before: Any
) -> Harness:
    """A harness in which *user* logged in while every user was allowed."""
    harness = Harness(settings(**before))
    harness.log_in(user)
    harness.proxy = harness.new_proxy(given or strict())
    harness.run(harness.proxy.warm_up())
    return harness


@pytest.mark.parametrize(
    "target", ["/oauth2/auth", "/oauth2/userinfo", "/oauth2/auth%3F"]
)
def test_auth_endpoints_forbidden_session_clear_returns_401(target: str) -> None:
    harness = harness_with()
    response = harness.get(target)
    assert (response.status, response.body) == (401, b"Unauthorized\n")
    assert (response.verdict, response.reason) == ("denied", "groups")
    assert not harness.jar
    assert harness.get(target).reason == "no_session"


@pytest.mark.parametrize("as_json", [False, True])
def test_page_forbidden_session_denied_and_cleared(as_json: bool) -> None:
    harness = harness_with(given=strict(force_json_errors=as_json))
    response = harness.get("/page")
    assert (response.status, response.reason) == (403, "groups")
    assert (response.body == b"{}") == as_json
    assert not harness.jar
    assert harness.get("/page").reason == "no_session"


def test_forward_auth_forbidden_session_denied_and_cleared() -> None:
    for target in ("/oauth2/forward_auth", "/oauth2/forward_auth/deep"):
        harness = harness_with()
        response = harness.get(target, *NAVIGATION)
        assert (response.status, response.reason) == (403, "groups")
        assert not harness.jar
        assert harness.get(target, *NAVIGATION).status == 302


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_sign_in_page_clears_forbidden_session(method: bytes) -> None:
    harness = harness_with()
    response = harness.get("/oauth2/sign_in", method=method)
    assert (response.status, response.verdict) == (200, "")
    assert not harness.jar


def test_sign_in_redirect_to_provider_keeps_forbidden_session() -> None:
    harness = harness_with(given=strict(skip_provider_button=True))
    before = dict(harness.jar)
    assert harness.get("/oauth2/sign_in").status == 302
    assert before.items() <= harness.jar.items()


def test_sign_in_page_keeps_authorized_session() -> None:
    harness = harness_with("alice")
    before = dict(harness.jar)
    assert harness.get("/oauth2/sign_in").status == 200
    assert harness.get("/oauth2/auth").status == 202
    assert harness.get("/oauth2/sign_in", jar={}).status == 200
    assert harness.jar == before


@pytest.mark.parametrize(
    "target", ["/oauth2/auth?allowed_groups=nobody", "/page?allowed_groups=nobody"]
)
def test_query_constraint_keeps_session(target: str) -> None:
    harness = harness_with("alice")
    before = dict(harness.jar)
    assert harness.get(target).status == 403
    assert harness.jar == before


@pytest.mark.parametrize(("target", "status"), [("/oauth2/auth", 401), ("/page", 403)])
def test_forbidden_session_cleared_regardless_of_query(
    target: str, status: int
) -> None:
    harness = harness_with()
    assert harness.get(f"{target}?allowed_groups=nobody").status == status
    assert not harness.jar


def test_other_responses_unchanged() -> None:
    harness = harness_with("alice")
    request = harness.request("/oauth2/auth")
    assert harness.get("/oauth2/auth").status == 202
    assert harness.proxy.handle(request) is harness.proxy.handle(request)
    assert harness.get("/ping").status == 200
    assert harness.get("/oauth2/userinfo").status == 200


def test_cleared_session_sets_no_refreshed_cookies() -> None:
    harness = harness_with(
        given=strict(cookie={"refresh": 60.0}), cookie={"refresh": 60.0}
    )
    harness.clock.now += 61
    response = harness.get("/oauth2/auth")
    assert response.status == 401
    assert all(b"=;" in value for value in headers(response, b"set-cookie"))
    assert not harness.jar


def test_forbidden_bearer_token_clears_no_cookie() -> None:
    given = strict(credentials=CredentialSettings(jwt_bearer_tokens=True))
    harness = harness_with("alice", given)
    token = b"Bearer " + harness.token().encode()
    response = harness.get("/oauth2/auth", (b"authorization", token), jar={})
    assert (response.status, response.reason) == (401, "groups")
    assert not headers(response, b"set-cookie")


def test_password_login_replaces_forbidden_session() -> None:
    users = {"carol": Secret(b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")}
    given = strict(credentials=CredentialSettings(users=users))
    harness = harness_with(given=given)
    harness.body = b"username=carol&password=secret"
    form = (b"content-type", b"application/x-www-form-urlencoded")
    assert harness.get("/oauth2/sign_in", form, method=b"POST").status == 302
    assert harness.jar


def test_sign_in_page_keeps_session_of_another_host() -> None:
    bound = settings().providers[0]
    providers = (
        with_changes(bound, hosts=("app.example.com",), allowed_groups=("admins",)),
        with_changes(bound, id="other", name="Other", hosts=("other.example.com",)),
    )
    given = settings(providers=providers, forbidden_session="clear")
    harness = harness_with(given=given)
    elsewhere = (b"host", b"other.example.com")
    assert harness.get("/oauth2/sign_in", elsewhere).status == 200
    assert harness.jar
    assert harness.get("/oauth2/sign_in").status == 200
    assert not harness.jar


# -- in a store


def fleet_of(user: str = "bob") -> Fleet:
    fleet = Fleet(settings(sessions=IN_STORE))
    fleet[0].log_in(user)
    fleet.join(strict(sessions=IN_STORE))
    return fleet


@pytest.mark.parametrize("target", ["/oauth2/auth", "/page", "/oauth2/sign_in"])
def test_forbidden_stored_session_deleted(target: str) -> None:
    fleet = fleet_of()
    old = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth").status == 202
    assert fleet.store.tickets()
    fleet[2].get(target)
    assert not fleet.store.tickets()
    assert not fleet.harness.jar
    assert fleet[0].get("/oauth2/auth", jar=old).status == 401


def test_sign_in_page_loads_and_keeps_authorized_stored_session() -> None:
    fleet = fleet_of("alice")
    assert fleet[2].get("/oauth2/sign_in").status == 200
    assert fleet[0].get("/oauth2/auth").status == 202


def test_sign_in_page_clears_cookie_of_ended_stored_session() -> None:
    fleet = fleet_of("alice")
    fleet.store.values.clear()
    assert fleet[2].get("/oauth2/sign_in").status == 200
    assert not fleet.harness.jar


def test_forbidden_session_denied_without_store() -> None:
    fleet = fleet_of()
    fleet.store.failing = lambda effect: type(effect).__name__ != "LoadAll"
    assert fleet[2].get("/oauth2/auth").status == 401
    assert not fleet.harness.jar


def test_sign_in_page_shown_without_store() -> None:
    fleet = fleet_of()
    fleet.store.away = True
    assert fleet[2].get("/oauth2/sign_in").status == 200
    assert fleet.harness.jar
