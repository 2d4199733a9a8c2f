"""Bitbucket: workspace and repository restrictions."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.settings.providers import BitbucketSettings
from support.endpoints import (
    Turns,
    field,
    query,
    status,
)
from support.profiles import (
    endpoints,
)

API = "https://api.bitbucket.org/2.0"
WORKSPACES = f"{API}/user/workspaces"
WORKSPACE = BitbucketSettings(workspace="eng")
REPOSITORY = BitbucketSettings(repository="eng/app")


def member(slug: str) -> dict[str, Any]:
    return {
        "type": "workspace_access",
        "user": {"type": "user", "nickname": "alice"},
        "workspace": {"type": "workspace", "slug": slug, "name": "Engineering"},
    }


MEMBER = member("eng")


@pytest.mark.parametrize(
    ("configured", "scope"),
    [
        ("", "email account repository"),
        ("account email", "account email repository"),
        ("accounts", "accounts account repository"),
    ],
)
def test_bitbucket_scope_by_restriction(configured: str, scope: str) -> None:
    both = BitbucketSettings(workspace="eng", repository="eng/app")
    idp = endpoints("bitbucket", bitbucket=both, scope=configured)
    assert idp.start_login()["scope"] == scope


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ([{"values": [MEMBER]}], ""),
        (
            [
                {"values": [member("x")], "next": f"{WORKSPACES}?page=2"},
                {"values": [MEMBER]},
            ],
            "",
        ),
        ([{"values": [member("ENG"), 7]}], "not_allowed"),
        ([{"values": []}], "not_allowed"),
        ([{}], "not_allowed"),
        ([[]], "groups_invalid"),
        ([status(500)], "groups_failed"),
        ([status(403)], "validation"),
        ([{"values": [], "next": "https://evil.example.com/"}], "groups_invalid"),
        ([{"values": [], "next": "https://[evil/"}], "groups_invalid"),
        ([{"values": [], "next": f"{WORKSPACES}?page=2"}], "groups_too_many"),
    ],
)
def test_bitbucket_workspace_restriction(pages: list[Any], reason: str) -> None:
    idp = endpoints(
        "bitbucket", {f"GET {WORKSPACES}": Turns(*pages)}, bitbucket=WORKSPACE
    )
    if reason:
        assert idp.failure() == reason
    else:
        assert idp.log_in().status == 302
        assert query(idp.requests("groups")[0]) == {}
        for fetch in idp.requests("groups") + idp.requests("profile"):
            assert field(fetch, b"authorization") == b"Bearer access-1"


def test_bitbucket_workspace_denial_shows_page() -> None:
    idp = endpoints(
        "bitbucket", {f"GET {WORKSPACES}": {"values": []}}, bitbucket=WORKSPACE
    )
    response = idp.log_in()
    assert response.status == 403
    assert b"does not have access to this application" in response.body


def test_bitbucket_repository_restriction() -> None:
    url = f"GET {API}/repositories/eng"
    allowed = {url: {"values": [{"full_name": "eng/app"}]}}
    idp = endpoints("bitbucket", allowed, bitbucket=REPOSITORY)
    assert idp.log_in().status == 302
    assert query(idp.requests("groups")[0]) == {
        "role": "contributor",
        "q": 'full_name="eng/app"',
    }
    denied = {url: {"values": [{"full_name": "eng/other"}]}}
    assert endpoints("bitbucket", denied, bitbucket=REPOSITORY).failure() == (
        "not_allowed"
    )


def test_bitbucket_refresh_after_leaving_team_denied() -> None:
    idp = endpoints(
        "bitbucket",
        {f"GET {WORKSPACES}": {"values": [MEMBER]}},
        bitbucket=WORKSPACE,
        cookie={"refresh": 60.0},
    )
    idp.log_in()
    idp.responses[f"GET {WORKSPACES}"] = {"values": []}
    assert idp.later(61).status == 401
    assert idp.harness.events[-1].reason == "not_allowed"
