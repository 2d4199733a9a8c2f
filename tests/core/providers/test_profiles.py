"""Providers without ID tokens, with the responses that they document."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.errors import FetchError
from authproxy_core.messages import Response
from authproxy_core.providers.registry import (
    OPENID_PROVIDERS,
    PROFILE_READERS,
    create_provider,
)
from authproxy_core.settings.provider_types import PROVIDER_TYPES
from support.endpoints import (
    FORM_TYPE,
    challenge_of,
    field,
    form,
    json,
    query,
    status,
)
from support.profiles import (
    IDP,
    KEYCLOAK_USER,
    LINKEDIN_EMAIL,
    TYPES,
    endpoints,
    profile_of,
)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_login_reads_identity(kind: str) -> None:
    idp = endpoints(kind)
    response = idp.log_in()
    assert response.status == 302
    assert idp.identity() == TYPES[kind][2]
    [redeemed] = idp.requests("token")
    assert form(redeemed) == {
        "grant_type": "authorization_code",
        "code": "code-1",
        "redirect_uri": "https://app.example.com/oauth2/callback",
        "client_id": "web",
        "client_secret": "hush",
    }
    for fetch in idp.requests("profile") + idp.requests("validate"):
        assert field(fetch, b"authorization") == b"Bearer access-1"
        assert field(fetch, b"accept") == b"application/json"
        assert "access-1" not in fetch.url


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        ("digitalocean", "read"),
        ("facebook", "public_profile email"),
        ("linkedin", "r_emailaddress r_liteprofile"),
        ("bitbucket", "email"),
        ("sourcehut", "meta.sr.ht/PROFILE:RO"),
        ("keycloak", "api"),
    ],
)
def test_authorization_request_by_provider_type(kind: str, scope: str) -> None:
    params = endpoints(kind).start_login()
    assert params.pop("state")
    assert params == {
        "client_id": "web",
        "redirect_uri": "https://app.example.com/oauth2/callback",
        "response_type": "code",
        "scope": scope,
    }


def test_registry_has_adapter_per_type() -> None:
    assert {*OPENID_PROVIDERS, *PROFILE_READERS} == set(PROVIDER_TYPES)
    assert not {*OPENID_PROVIDERS} & {*PROFILE_READERS}


def test_profile_provider_is_ready_without_fetch() -> None:
    idp = endpoints("facebook", ready=False)
    assert idp.harness.proxy.ready
    [configured] = idp.harness.settings.providers
    provider = create_provider(
        configured, clock=lambda: 0.0, leeway=0.0, extra_claims=()
    )
    assert list(provider.prepare()) == []


def test_authorization_request_without_scope_omits_it() -> None:
    assert "scope" not in endpoints("nextcloud").start_login()


def test_pkce_method_configured_is_used() -> None:
    idp = endpoints("facebook", code_challenge_method="S256")
    params = idp.start_login()
    idp.finish(params)
    [redeemed] = idp.requests("token")
    verifier = form(redeemed)["code_verifier"]
    assert params["code_challenge"] == challenge_of(verifier)


def test_resource_sent_to_token_endpoint() -> None:
    idp = endpoints("keycloak", resource="https://api.example.com")
    assert idp.log_in().status == 302
    assert form(idp.requests("token")[0])["resource"] == "https://api.example.com"


def test_profile_queries_of_facebook_and_linkedin() -> None:
    idp = endpoints("facebook")
    idp.log_in()
    assert query(idp.requests("profile")[0]) == {"fields": "name,email"}
    idp = endpoints("linkedin")
    idp.log_in()
    [asked] = idp.requests("profile")
    assert asked.url.endswith("?q=members&projection=(elements*(handle~))")
    assert field(asked, b"x-li-format") == b"json"
    idp = endpoints(
        "linkedin",
        {f"GET {IDP}/email": LINKEDIN_EMAIL},
        profile_url=f"{IDP}/email?version=2",
    )
    idp.log_in()
    assert "?version=2&q=members&projection=" in idp.requests("profile")[0].url


def test_sourcehut_profile_read_by_graphql() -> None:
    idp = endpoints("sourcehut")
    idp.log_in()
    [asked] = idp.requests("profile")
    assert asked.body == b'{"query":"{ me { username, email } }"}'
    assert field(asked, b"content-type") == b"application/json"


@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize(
    "response",
    [
        {},
        [],
        None,
        "text",
        {"account": 7, "elements": 7, "values": 7, "ocs": 7, "data": 7},
        {"ocs": {"data": []}, "data": {"me": []}, "account": [], "elements": [7]},
    ],
)
def test_malformed_profile_fails_login(kind: str, response: Any) -> None:
    reason = endpoints(kind, {profile_of(kind): json(response)}).failure()
    assert reason in ("email_missing", "profile_invalid")


@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (status(401), "validation"),
        (status(404), "validation"),
        (status(500), "profile_failed"),
        (status(429), "profile_failed"),
        (Response(200, (), b"<html>"), "profile_invalid"),
        (Response(200, (), b"\xff\xfe"), "profile_invalid"),
        (FetchError("connection refused"), "provider_unreachable"),
    ],
)
def test_profile_failure_fails_login(kind: str, response: Any, reason: str) -> None:
    assert endpoints(kind, {profile_of(kind): response}).failure() == reason


def test_profile_failure_page_names_provider() -> None:
    response = endpoints("facebook", {profile_of("facebook"): status(503)}).log_in()
    assert response.status == 502
    assert b"could not be loaded from the identity provider" in response.body
    assert b"Try again in a minute" in response.body


def test_profile_without_email_shows_page() -> None:
    idp = endpoints("facebook", {profile_of("facebook"): {"name": "Alice", "id": "1"}})
    response = idp.log_in()
    assert response.status == 403
    assert b"has no email address" in response.body


@pytest.mark.parametrize("kind", ["digitalocean", "keycloak", "bitbucket"])
def test_unverified_email_denied_unless_allowed(kind: str) -> None:
    unverified: dict[str, Any] = {
        "digitalocean": {
            "account": {"email": "a@example.com", "email_verified": False}
        },
        "keycloak": {"email": "a@example.com", "email_verified": "false", "user": "a"},
        "bitbucket": {
            "values": [
                {"email": "a@example.com", "is_primary": True, "is_confirmed": False}
            ]
        },
    }[kind]
    responses = {profile_of(kind): unverified}
    assert endpoints(kind, responses).failure() == "email_unverified"
    idp = endpoints(kind, responses, allow_unverified_email=True)
    assert idp.log_in().status == 302
    assert idp.identity()[1] == "a@example.com"


def test_profile_without_username_fails_login() -> None:
    responses = {"POST https://meta.sr.ht/query": {"data": {"me": {"email": "a@b.c"}}}}
    assert endpoints("sourcehut", responses).failure() == "profile_invalid"
    responses = {f"GET {IDP}/me": {"ocs": {"data": {"email": "a@b.c"}}}}
    assert endpoints("nextcloud", responses).failure() == "profile_invalid"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (json({"error": "invalid_grant"}, 400), "invalid_grant"),
        (json({"error": "bad_verification_code"}), "bad_verification_code"),
        (json({"token_type": "bearer"}), "token_endpoint_invalid"),
        (json([]), "token_endpoint_invalid"),
        (status(500), "token_endpoint_failed"),
        (Response(200, FORM_TYPE, b"\xff\xfe"), "token_endpoint_invalid"),
        (Response(200, FORM_TYPE, b"error=denied"), "denied"),
        (Response(200, (), b"access_token=a"), "token_endpoint_invalid"),
        (FetchError("timeout"), "provider_unreachable"),
    ],
)
def test_token_endpoint_failure_fails_login(response: Any, reason: str) -> None:
    assert endpoints("keycloak", {f"POST {IDP}/token": response}).failure() == reason


def test_form_encoded_token_response_parsed() -> None:
    body = b"access_token=access-1&scope=user%3Aemail&token_type=bearer"
    idp = endpoints("keycloak", {f"POST {IDP}/token": Response(200, FORM_TYPE, body)})
    assert idp.log_in().status == 302


def test_callback_issuer_of_provider_without_issuer_accepted() -> None:
    idp = endpoints("keycloak")
    assert idp.finish(idp.start_login(), iss="https://any.example.com").status == 302


@pytest.mark.parametrize(
    ("changes", "status_"),
    [
        ({"keycloak_groups": ("staff",)}, 302),
        ({"keycloak_groups": ("other",)}, 403),
        # keycloak_groups takes precedence, as in oauth2-proxy.
        ({"keycloak_groups": ("staff",), "allowed_groups": ("other",)}, 302),
        # Without it allowed_groups applies; oauth2-proxy ignores that.
        ({"allowed_groups": ("other",)}, 403),
        ({"allowed_groups": ("staff",)}, 302),
    ],
)
def test_keycloak_oauth_group_restriction(
    changes: dict[str, Any], status_: int
) -> None:
    assert endpoints("keycloak", **changes).log_in().status == status_


def test_nextcloud_groups_read() -> None:
    assert endpoints("nextcloud", allowed_groups=("admin",)).log_in().status == 302
    assert endpoints("nextcloud", allowed_groups=("root",)).log_in().status == 403


# -- refresh


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_refresh_with_valid_token_keeps_session(kind: str) -> None:
    idp = endpoints(kind, cookie={"refresh": 60.0})
    idp.log_in()
    idp.asked.clear()
    assert idp.later(30).status == 202
    assert idp.asked == []
    response = idp.later(31)
    assert response.status == 202
    assert idp.asked
    assert idp.requests("token") == []
    assert idp.identity() == TYPES[kind][2]
    idp.asked.clear()
    assert idp.later(59).status == 202
    assert idp.asked == []


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_refresh_with_rejected_token_ends_session(kind: str) -> None:
    idp = endpoints(kind, cookie={"refresh": 60.0})
    idp.log_in()
    idp.responses[profile_of(kind)] = status(401)
    assert idp.later(61).status == 401
    assert idp.harness.events[-1].kind == "session_ended"
    idp.responses[profile_of(kind)] = TYPES[kind][1][profile_of(kind)]
    assert idp.auth_check().status == 401


@pytest.mark.parametrize(
    "failure", [status(503), status(429), FetchError("connection refused")]
)
def test_refresh_with_unavailable_provider_keeps_session(failure: Any) -> None:
    idp = endpoints("digitalocean", cookie={"refresh": 60.0})
    idp.log_in()
    idp.responses[profile_of("digitalocean")] = failure
    assert idp.later(61).status == 202
    assert idp.harness.events[-1].kind == "refresh_failed"


def test_refresh_updates_groups() -> None:
    idp = endpoints("nextcloud", cookie={"refresh": 60.0}, allowed_groups=("admin",))
    idp.log_in()
    left = {"ocs": {"data": {"id": "alice", "email": "a@b.c", "groups": ["staff"]}}}
    idp.responses[f"GET {IDP}/me"] = left
    assert idp.later(61).status == 403


def test_validate_url_checked_at_login_and_refresh() -> None:
    responses = {f"GET {IDP}/profile": KEYCLOAK_USER, f"GET {IDP}/me": status(403)}
    more = {"profile_url": f"{IDP}/profile", "cookie": {"refresh": 60.0}}
    assert endpoints("keycloak", responses, **more).failure() == "validation"
    idp = endpoints("keycloak", responses | {f"GET {IDP}/me": {}}, **more)
    assert idp.log_in().status == 302
    idp.responses[f"GET {IDP}/me"] = status(502)
    assert idp.later(61).status == 202  # transient failure
    idp.responses[f"GET {IDP}/me"] = status(400)
    assert idp.later(61).status == 401
