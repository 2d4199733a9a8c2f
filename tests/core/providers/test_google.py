"""Google: verified ID tokens, and groups of a Workspace directory."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from joserfc import jws

from authproxy_core.errors import FetchError
from authproxy_core.messages import Response
from support.endpoints import (
    SUBJECT,
    Turns,
    challenge_of,
    field,
    form,
    json,
    query,
    signed,
    status,
)
from support.google import (
    ALICE,
    DIRECTORY,
    EXCHANGE,
    GRANTED,
    KEY,
    REFUSED,
    TOKEN_URL,
    google,
    workspace,
)


def test_login_reads_identity() -> None:
    idp = google()
    params = idp.start_login()
    assert idp.location.startswith(
        "https://accounts.google.com/o/oauth2/auth?access_type=offline&"
    )
    assert params["scope"] == "openid profile email"
    assert params["nonce"]
    assert idp.finish(params).status == 302
    assert idp.identity() == (SUBJECT, "alice@example.com", "", "")
    redeemed = form(idp.requests("token")[0])
    assert redeemed["client_secret"] == "hush"
    assert params["code_challenge"] == challenge_of(redeemed["code_verifier"])


def test_issuer_without_scheme_accepted() -> None:
    idp = google()
    idp.claims["iss"] = "accounts.google.com"
    assert idp.log_in().status == 302


def test_id_token_signature_verified() -> None:
    idp = google()
    params = idp.start_login()
    forged = signed({**idp.claims, "nonce": idp.nonce, "aud": "web"}, "other")
    idp.responses[TOKEN_URL] = idp.tokens(id_token=forged)
    response = idp.finish(params)
    assert response.events[0].reason in ("unknown_key", "signature")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"email": "a@b.c", "email_verified": False}, "email_unverified"),
        ({"email": "a@b.c"}, "email_unverified"),
        ({"email_verified": True}, "email_missing"),
        ({**ALICE, "iss": "https://evil.example"}, "issuer"),
        ({**ALICE, "aud": "other"}, "audience"),
    ],
)
def test_invalid_id_token_fails_login(claims: dict[str, Any], reason: str) -> None:
    assert google(claims=claims).failure() == reason


def test_unverified_email_allowed_by_option() -> None:
    idp = google(claims={"email": "a@b.c"}, allow_unverified_email=True)
    assert idp.log_in().status == 302


def test_groups_claim_of_id_token_ignored() -> None:
    idp = google(claims={**ALICE, "groups": ["admins"]}, allowed_groups=("admins",))
    assert idp.log_in().status == 403


def test_refresh_without_new_refresh_token_keeps_old() -> None:
    idp = google(cookie={"refresh": 60.0})
    idp.log_in()
    idp.responses[TOKEN_URL] = idp.tokens(refresh_token=None, access_token="access-2")
    assert idp.later(61).status == 202
    assert idp.later(61).status == 202
    refreshed = [form(fetch) for fetch in idp.requests("token")[1:]]
    assert [one["refresh_token"] for one in refreshed] == ["refresh-1", "refresh-1"]


def test_validate_url_gets_token_in_query() -> None:
    url = "https://www.googleapis.com/oauth2/v1/tokeninfo"
    idp = google({f"GET {url}": {}}, cookie={"refresh": 60.0}, validate_url=url)
    idp.log_in()
    assert idp.later(61).status == 202
    [asked] = idp.requests("validate")
    assert query(asked) == {"access_token": "access-1"}
    assert field(asked, b"authorization") == b""
    idp.responses[f"GET {url}"] = status(400)
    assert idp.later(61).status == 401


# -- directory


def test_directory_token_request_impersonates_administrator() -> None:
    idp = workspace({f"GET {DIRECTORY}/groups": {"groups": []}}, ready=False)
    idp.harness.run(idp.harness.proxy.warm_up())
    assert idp.harness.proxy.ready
    [asked] = idp.requests("directory")
    sent = form(asked)
    assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    made = jws.deserialize_compact(sent["assertion"], KEY)
    assert made.headers() == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
    now = int(idp.harness.clock())
    assert orjson.loads(made.payload) == {
        "iss": "proxy@p.iam.gserviceaccount.com",
        "sub": "admin@example.com",
        "scope": "https://www.googleapis.com/auth/admin.directory.group.member.readonly",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": now,
        "exp": now + 3600,
    }
    assert idp.log_in().status == 302
    assert len(idp.requests("directory")) == 1  # the token is cached
    idp.harness.clock.now += 3600
    idp.harness.jar.clear()
    assert idp.log_in().status == 302
    assert len(idp.requests("directory")) == 2


def test_directory_uses_first_granted_scope() -> None:
    idp = workspace(
        {EXCHANGE: Turns(REFUSED, REFUSED, GRANTED), f"GET {DIRECTORY}/groups": {}}
    )
    assert idp.log_in().status == 302


@pytest.mark.parametrize(
    ("user_scope", "expected"),
    [
        ("", "admin.directory.user.readonly"),
        ("cloud", "cloud-platform"),
        ("user", "admin.directory.user"),
    ],
)
def test_directory_scopes_for_organization_id(user_scope: str, expected: str) -> None:
    idp = workspace(
        google={"use_organization_id": True, "admin_api_user_scope": user_scope},
        ready=False,
    )
    idp.harness.run(idp.harness.proxy.warm_up())
    [asked] = idp.requests("directory")
    claims = orjson.loads(
        jws.deserialize_compact(form(asked)["assertion"], KEY).payload
    )
    auth = "https://www.googleapis.com/auth"
    assert claims["scope"] == (
        f"{auth}/admin.directory.group.member.readonly {auth}/{expected}"
    )


def test_login_without_granted_scope_fails() -> None:
    idp = workspace({EXCHANGE: Turns(REFUSED, REFUSED, REFUSED, REFUSED, GRANTED)})
    failed = [event for event in idp.harness.events if event.kind == "provider_failed"]
    assert failed[0].reason == "directory_refused"
    assert "domain-wide delegation" in failed[0].detail
    assert idp.harness.events[-1].kind == "provider_ready"


def has_member_url(group: str) -> str:
    return f"GET {DIRECTORY}/groups/{group}/hasMember/alice%40example.com"


def member_url(group: str) -> str:
    return f"GET {DIRECTORY}/groups/{group}/members/alice%40example.com"


DEVS, OPS = "devs%40example.com", "ops%40example.com"


@pytest.mark.parametrize(
    ("responses", "groups"),
    [
        (
            {
                has_member_url(DEVS): {"isMember": True},
                has_member_url(OPS): {"isMember": False},
            },
            "devs",
        ),
        (
            {
                has_member_url(DEVS): status(404),
                has_member_url(OPS): {"isMember": True},
            },
            "ops",
        ),
        # Google returns 400 for users of other domains.
        (
            {
                has_member_url(DEVS): status(400),
                member_url(DEVS): {"status": "ACTIVE"},
                has_member_url(OPS): status(400),
                member_url(OPS): {"status": "SUSPENDED"},
            },
            "devs",
        ),
        (
            {
                has_member_url(DEVS): {"isMember": "true"},
                has_member_url(OPS): {"isMember": 1},
            },
            "",
        ),
        (
            {
                has_member_url(DEVS): status(400),
                member_url(DEVS): status(404),
                has_member_url(OPS): status(400),
                member_url(OPS): status(400),
            },
            "",
        ),
    ],
)
def test_membership_of_configured_groups(
    responses: dict[str, Any], groups: str
) -> None:
    idp = workspace(
        responses,
        google={"groups": ("devs@example.com", "ops@example.com")},
        allowed_groups=("not counted",),
    )
    response = idp.log_in()
    if not groups:
        assert response.status == 403
        return
    assert response.status == 302
    assert idp.identity()[2] == f"{groups}@example.com"
    assert field(idp.requests("groups")[0], b"authorization") == b"Bearer directory-1"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (status(401), "directory_failed"),
        (status(403), "directory_failed"),
        (status(500), "directory_failed"),
        (json([]), "directory_invalid"),
        (Response(200, (), b"<html>"), "directory_invalid"),
        (FetchError("timeout"), "provider_unreachable"),
    ],
)
def test_az19_directory_failure_fails_login(response: Any, reason: str) -> None:
    more: dict[str, Any] = {"google": {"groups": ("devs@example.com",)}}
    assert workspace({has_member_url(DEVS): response}, **more).failure() == reason
    responses = {has_member_url(DEVS): status(400), member_url(DEVS): response}
    assert workspace(responses, **more).failure() == reason
    assert workspace({f"GET {DIRECTORY}/groups": response}).failure() == reason


def test_groups_without_restriction_are_all_groups() -> None:
    pages = Turns(
        {"groups": [{"email": "a@example.com"}, {"id": 1}, 7], "nextPageToken": "2"},
        {"groups": [{"email": "b@example.com"}]},
    )
    idp = workspace(
        {f"GET {DIRECTORY}/groups": pages}, allowed_groups=("b@example.com",)
    )
    assert idp.log_in().status == 302
    assert idp.identity()[2] == "a@example.com,b@example.com"
    first, second = (query(fetch) for fetch in idp.requests("groups"))
    assert first == {"userKey": "alice@example.com", "maxResults": "200"}
    assert second == {**first, "pageToken": "2"}


def test_group_list_with_too_many_pages_fails_login() -> None:
    responses = {f"GET {DIRECTORY}/groups": {"nextPageToken": "2"}}
    assert workspace(responses).failure() == "groups_too_many"


USER = f"GET {DIRECTORY}/users/alice%40example.com"


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ({"externalIds": [{"type": "organization", "value": "A-17"}]}, "A-17"),
        (
            {
                "externalIds": [
                    {"type": "account", "value": "x"},
                    {"type": "organization", "value": 7},
                    {"type": "organization", "value": "B"},
                ]
            },
            "B",
        ),
        ({"externalIds": []}, ""),
        ({}, ""),
    ],
)
def test_organization_id_is_preferred_username(user: Any, name: str) -> None:
    idp = workspace(
        {USER: user, f"GET {DIRECTORY}/groups": {}},
        google={"use_organization_id": True},
    )
    if name:
        assert idp.log_in().status == 302
        assert idp.identity()[3] == name
    else:
        assert idp.failure() == "profile_invalid"


def test_refresh_after_leaving_group_denied_until_rejoined() -> None:
    idp = workspace(
        {has_member_url(DEVS): {"isMember": True}},
        google={"groups": ("devs@example.com",)},
        cookie={"refresh": 60.0},
    )
    idp.log_in()
    idp.responses[has_member_url(DEVS)] = status(503)
    assert idp.later(61).status == 202  # transient failure
    idp.responses[has_member_url(DEVS)] = {"isMember": False}
    assert idp.later(61).status == 403
