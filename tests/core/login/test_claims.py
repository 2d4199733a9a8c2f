"""Claims of ID token and userinfo, and access by them."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import Response
from support.harness import (
    Harness,
    event_reasons,
    header,
    settings,
)

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
        (Response(200, (), b'"text"'), "userinfo_invalid"),
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
    assert response.status == 403
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


@pytest.mark.parametrize(
    "value", [["alice@example.com"], ["a@x.y", "b@x.y"], {"work": "a@x.y"}, True]
)
def test_email_claim_of_other_type_rejected(harness: Harness, value: Any) -> None:
    """Its JSON text would be the address of no user, or of several."""
    harness.config.id_token_claims["email"] = value
    response = harness.log_in()
    assert response.status == 403
    assert event_reasons(response) == ["email_invalid"]
    assert "Multivalued" in response.events[0].detail
    assert b"exactly one email address" in response.body
    assert b"_oauth2_proxy" not in harness.jar


def test_email_claim_of_other_type_ends_session_at_refresh() -> None:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    harness.config.id_token_claims["email"] = ["alice@example.com"]
    harness.clock.now += 61
    assert harness.get("/oauth2/auth").status == 401
    assert harness.events[-1].reason == "email_invalid"


def test_email_claim_number_is_its_text() -> None:
    harness = Harness(settings(provider={"email_claim": "number", "type": "oidc"}))
    harness.config.id_token_claims["number"] = 4711
    assert harness.log_in().status == 302
    assert header(harness.get("/oauth2/auth"), b"gap-auth") == b"4711"


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


# -- Keycloak's roles


def roles(harness: Harness) -> list[str]:
    """Return the roles of the session."""
    groups = header(harness.get("/oauth2/auth"), b"x-auth-request-groups").decode()
    return [one for one in groups.split(",") if one.startswith("role:")]


def keycloak_harness(
    access: dict[str, Any], identity: dict[str, Any], **changes: Any
) -> Harness:
    """Return a harness whose tokens have other role claims; None removes one."""
    harness = Harness(settings(**changes))
    none = {"realm_access": None, "resource_access": None}
    harness.config.access_token_claims.update(none | access)
    harness.config.id_token_claims.update(none | identity)
    return harness


REALM_ROLES = {"realm_access": {"roles": ["a"]}}
CLIENT_ROLES = {"resource_access": {"app": {"roles": ["b"]}}}


@pytest.mark.parametrize(
    ("access", "identity", "expected"),
    [
        ({}, REALM_ROLES | CLIENT_ROLES, ["role:a", "role:app:b"]),
        (REALM_ROLES, CLIENT_ROLES, ["role:a", "role:app:b"]),
        (CLIENT_ROLES, REALM_ROLES, ["role:a", "role:app:b"]),
        (REALM_ROLES, {"realm_access": {"roles": ["old"]}}, ["role:a"]),
        (
            CLIENT_ROLES,
            {"resource_access": {"app": {"roles": ["old"]}, "x": {"roles": ["y"]}}},
            ["role:app:b", "role:x:y"],
        ),
        ({"realm_access": {"roles": []}}, REALM_ROLES, []),
        ({}, {"resource_access": ["app"]}, []),
        ({}, {}, []),
    ],
)
def test_roles_of_access_token_completed_by_those_of_id_token(
    access: dict[str, Any], identity: dict[str, Any], expected: list[str]
) -> None:
    harness = keycloak_harness(access, identity)
    assert harness.log_in().status == 302
    assert roles(harness) == expected


def test_roles_withdrawn_in_access_token_end_at_refresh_without_id_token() -> None:
    harness = keycloak_harness(REALM_ROLES, REALM_ROLES, cookie={"refresh": 60.0})
    harness.log_in()
    assert roles(harness) == ["role:a"]
    harness.config.id_token_on_refresh = False
    harness.config.access_token_claims["realm_access"] = {"roles": []}
    harness.clock.now += 61
    assert roles(harness) == []


def test_roles_missing_in_both_tokens_reported_once() -> None:
    harness = keycloak_harness({}, {})
    for _ in range(3):
        assert harness.log_in().status == 302
        harness.clock.now += 60
    [event] = [one for one in harness.events if one.kind == "roles_missing"]
    assert "lightweight" in event.detail
    harness = Harness()
    harness.log_in()
    assert not [one for one in harness.events if one.kind == "roles_missing"]


@pytest.mark.parametrize(
    ("skips", "groups", "cause"),
    [
        (True, None, "skip_claims_from_profile_url skips userinfo"),
        (False, None, "neither the ID token nor userinfo has the claim 'groups'"),
        (False, [], "lightweight"),
        (False, ["staff"], "lightweight"),
    ],
)
def test_denied_login_explains_missing_groups_and_roles(
    skips: bool, groups: Any, cause: str
) -> None:
    provider = {
        "allowed_groups": ("role:admin",),
        "skip_claims_from_profile_url": skips,
    }
    harness = keycloak_harness({}, {"groups": groups}, provider=provider)
    harness.config.userinfo_claims["groups"] = groups
    response = harness.log_in()
    assert response.status == 403
    [event] = response.events
    assert event.reason == "groups"
    assert cause in event.detail
    assert "realm roles and client roles" in event.detail


def test_denied_login_with_all_claims_has_no_explanation() -> None:
    harness = Harness(settings(provider={"allowed_groups": ("other",)}))
    [event] = harness.log_in().events
    assert event.detail.endswith("(allowed_groups, allowed_roles)")
