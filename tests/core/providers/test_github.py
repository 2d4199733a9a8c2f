"""GitHub: access by organization, team, repository and username."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import Secret
from authproxy_core.messages import Response
from authproxy_core.settings.providers import GithubSettings
from support.endpoints import (
    Endpoints,
    Turns,
    challenge_of,
    field,
    form,
    json,
    query,
    status,
)

API = "https://api.github.com"
TOKEN_URL = "POST https://github.com/login/oauth/access_token"
ORGS = [{"login": "acme", "id": 1}, {"login": "umbrella", "id": 2}]
TEAMS = [
    {"slug": "devs", "name": "Devs", "organization": {"login": "acme"}},
    {"slug": "ops", "name": "Ops", "organization": {"login": "Umbrella"}},
]
USER = {"login": "alice", "id": 1, "email": None, "name": "Alice"}
EMAILS = [
    {"email": "old@example.com", "primary": False, "verified": True},
    {"email": "alice@example.com", "primary": True, "verified": True},
]
REPO = f"GET {API}/repos/acme/app"
MEMBER = f"{REPO}/collaborators/alice"


def endpoints(responses: dict[str, Any] | None = None, **more: Any) -> Endpoints:
    return Endpoints(
        "github",
        {
            TOKEN_URL: {"access_token": "access-1", "scope": "user:email,read:org"},
            f"GET {API}/": {},
            f"GET {API}/user/orgs": Turns(ORGS, []),
            f"GET {API}/user/teams": Turns(TEAMS, []),
            f"GET {API}/user": USER,
            f"GET {API}/user/emails": EMAILS,
            **(responses or {}),
        },
        **more,
    )


def restricted(responses: dict[str, Any] | None = None, **github: Any) -> Endpoints:
    return endpoints(responses, github=GithubSettings(**github))


def test_login_reads_identity() -> None:
    idp = endpoints()
    params = idp.start_login()
    assert params["scope"] == "user:email read:org"
    assert "nonce" not in params
    assert idp.finish(params).status == 302
    assert idp.identity() == (
        "alice",
        "alice@example.com",
        "acme,umbrella,acme:devs,Umbrella:ops",
        "",
    )
    [redeemed] = idp.requests("token")
    assert params["code_challenge"] == challenge_of(form(redeemed)["code_verifier"])
    assert field(redeemed, b"accept") == b"application/json"
    pages = [query(fetch) for fetch in idp.requests("groups")]
    assert (
        pages
        == [
            {"per_page": "100", "page": "1"},
            {"per_page": "100", "page": "2"},
        ]
        * 2
    )
    for fetch in idp.asked[1:]:
        assert field(fetch, b"authorization") == b"token access-1"
        assert field(fetch, b"accept") == b"application/vnd.github.v3+json"


@pytest.mark.parametrize(
    ("github", "reason"),
    [
        ({"org": "acme"}, ""),
        ({"org": "Acme"}, "not_allowed"),  # exact, as in oauth2-proxy
        ({"org": "other"}, "not_allowed"),
        ({"org": "acme:devs"}, "not_allowed"),  # a team is not an organization
        ({"org": "ACME", "team": "devs"}, ""),
        ({"org": "acme", "team": "ops,DEVS"}, ""),
        ({"org": "acme", "team": "ops"}, "not_allowed"),
        ({"team": "umbrella:ops"}, ""),
        ({"team": "acme:ops,acme:admins"}, "not_allowed"),
        ({"users": ("alice",)}, ""),
        ({"users": ("ALICE",)}, ""),
        ({"users": ("bob",)}, "not_allowed"),
        ({"users": ("bob",), "team": "acme:devs"}, "not_allowed"),
        ({"users": ("bob",), "org": "acme"}, ""),
        # A user in github_users needs no membership.
        ({"users": ("alice",), "org": "other", "team": "x", "repo": "a/b"}, ""),
    ],
)
def test_organization_team_and_user_restrictions(
    github: dict[str, Any], reason: str
) -> None:
    idp = restricted(**github)
    if reason:
        assert idp.failure() == reason
    else:
        assert idp.log_in().status == 302


def test_organization_with_colon_does_not_match_team() -> None:
    responses = {
        f"GET {API}/user/orgs": Turns([{"login": "acme:devs"}, {"id": 1}, 7], []),
        f"GET {API}/user/teams": Turns(
            [
                {"slug": "devs", "organization": {"login": "acme:x"}},
                {"slug": "devs", "organization": None},
                {"organization": {"login": "acme"}},
            ],
            [],
        ),
    }
    idp = endpoints(responses)
    idp.log_in()
    assert idp.identity()[2] == ""


@pytest.mark.parametrize(
    ("repository", "reason"),
    [
        ({"private": False, "permissions": {"push": True, "pull": True}}, ""),
        ({"private": True, "permissions": {"push": False, "pull": True}}, ""),
        ({"private": False, "permissions": {"pull": True}}, "not_allowed"),
        ({"private": "yes", "permissions": {"pull": True}}, "not_allowed"),
        ({"private": True, "permissions": {"push": 1, "pull": 1}}, "not_allowed"),
        ({"private": True}, "not_allowed"),
        ([], "not_allowed"),
        (Response(200, (), b"<html>"), "not_allowed"),
        (status(404), "not_allowed"),
        (status(403), "not_allowed"),
        (status(403, (b"x-ratelimit-remaining", b"0")), "groups_failed"),
        (status(403, (b"retry-after", b"60")), "groups_failed"),
        (status(502), "groups_failed"),
        (status(401), "validation"),
    ],
)
def test_repository_restriction_by_access(repository: Any, reason: str) -> None:
    idp = restricted({REPO: repository}, repo="acme/app")
    if reason:
        assert idp.failure() == reason
    else:
        assert idp.log_in().status == 302


@pytest.mark.parametrize(
    ("code", "reason"),
    [(204, ""), (404, "not_allowed"), (401, "groups_failed"), (200, "groups_failed")],
)
def test_collaborators_read_with_github_token(code: int, reason: str) -> None:
    idp = restricted({MEMBER: status(code)}, repo="acme/app", token=Secret("own-token"))
    if reason:
        assert idp.failure() == reason
        return
    assert idp.log_in().status == 302
    asked = next(fetch for fetch in idp.asked if "collaborators" in fetch.url)
    assert field(asked, b"authorization") == b"token own-token"


def test_repository_not_checked_with_organization() -> None:
    assert restricted(org="acme", repo="acme/app").log_in().status == 302


@pytest.mark.parametrize(
    ("emails", "reason"),
    [
        ([{"email": "a@b.c", "primary": True, "verified": False}], "email_unverified"),
        ([{"email": "a@b.c", "primary": False, "verified": True}], "email_missing"),
        ([{"email": "a@b.c", "primary": "true", "verified": 1}], "email_missing"),
        ([], "email_missing"),
        ({}, "email_missing"),
        (status(404), "validation"),
    ],
)
def test_email_is_primary_verified_address(emails: Any, reason: str) -> None:
    assert endpoints({f"GET {API}/user/emails": emails}).failure() == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({f"GET {API}/user/orgs": {}}, "groups_invalid"),
        ({f"GET {API}/user/orgs": [{"login": "acme"}]}, "groups_too_many"),
        ({f"GET {API}/user/teams": status(500)}, "groups_failed"),
        ({f"GET {API}/user/teams": status(401)}, "validation"),
        ({f"GET {API}/user": {"id": 1}}, "profile_invalid"),
        ({f"GET {API}/user": []}, "profile_invalid"),
        ({f"GET {API}/": status(401)}, "validation"),
        (
            {TOKEN_URL: json({"error": "bad_verification_code"})},
            "bad_verification_code",
        ),
    ],
)
def test_invalid_api_responses_fail_login(changes: dict[str, Any], reason: str) -> None:
    assert endpoints(changes).failure() == reason


@pytest.mark.parametrize(
    ("base", "prefix"),
    [
        ("https://git.example.com/api/v3", "/api/v3"),
        ("https://git.example.com/api/v1/user/emails", "/api/v1"),
        ("https://git.example.com", ""),
        ("https://git.example.com/own/", "/own"),
    ],
)
def test_api_url_of_enterprise_and_gitea(base: str, prefix: str) -> None:
    api = f"https://git.example.com{prefix}"
    idp = Endpoints(
        "github",
        {
            "POST https://git.example.com/token": {"access_token": "access-1"},
            f"GET {base}": {},
            # The response of Gitea.
            f"GET {api}/user/orgs": Turns([{"name": "acme", "id": 1}], []),
            f"GET {api}/user/teams": Turns(
                [{"name": "Devs", "organization": {"name": "acme"}}], []
            ),
            f"GET {api}/user": USER,
            f"GET {api}/user/emails": EMAILS,
            f"GET {base}/user/emails": EMAILS,
        },
        login_url="https://git.example.com/authorize",
        redeem_url="https://git.example.com/token",
        validate_url=base,
        github=GithubSettings(org="acme", team="Devs"),
    )
    if base.endswith("/user/emails"):
        idp.responses[f"GET {base}"] = EMAILS
    assert idp.log_in().status == 302
    assert idp.identity()[2] == "acme,acme:Devs"
    assert {fetch.url.split("/")[2] for fetch in idp.asked} == {"git.example.com"}


def test_refresh_after_leaving_organization_denied() -> None:
    idp = endpoints(cookie={"refresh": 60.0}, github=GithubSettings(org="acme"))
    assert idp.log_in().status == 302
    idp.responses[f"GET {API}/user/orgs"] = Turns(ORGS[1:], [])
    idp.responses[f"GET {API}/user/teams"] = []
    assert idp.later(61).status == 401
    assert idp.harness.events[-1].reason == "not_allowed"


def test_allowed_groups_match_teams() -> None:
    assert endpoints(allowed_groups=("acme:devs",)).log_in().status == 302
    assert endpoints(allowed_groups=("acme:ops",)).log_in().status == 403
