"""GitLab: userinfo, groups and projects."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.messages import Response
from authproxy_core.settings.providers import (
    GitlabSettings,
)
from support.endpoints import (
    ISSUER,
    SUBJECT,
    Endpoints,
    field,
    form,
    json,
    status,
)
from support.openid import openid

GITLAB_USER = {
    "sub": SUBJECT,
    "nickname": "alice",
    "email": "alice@example.com",
    "email_verified": True,
    "groups": ["eng", "eng/core", "project:eng/secret"],
}


def project(level: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "archived": False,
        "permissions": {
            "project_access": {"access_level": level, "notification_level": 3},
            "group_access": None,
        },
        **more,
    }


def gitlab(
    responses: dict[str, Any] | None = None,
    *,
    user: Any = None,
    projects: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    **more: Any,
) -> Endpoints:
    return openid(
        "gitlab",
        {
            f"GET {ISSUER}/oauth/userinfo": GITLAB_USER if user is None else user,
            **(responses or {}),
        },
        gitlab=GitlabSettings(groups=groups, projects=projects),
        **more,
    )


def test_gitlab_login_reads_identity() -> None:
    idp = gitlab()
    assert idp.log_in().status == 302
    assert idp.identity() == ("alice", "alice@example.com", "eng,eng/core", "alice")
    [asked] = idp.requests("profile")
    assert field(asked, b"authorization") == b"Bearer access-1"


def test_gitlab_userinfo_gaps_filled_from_id_token() -> None:
    idp = gitlab(user={"sub": SUBJECT, "email_verified": True})
    assert idp.log_in().status == 302
    assert idp.identity() == (SUBJECT, "alice@example.com", "staff", "alice")


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ({**GITLAB_USER, "email_verified": False}, "email_unverified"),
        ({"sub": SUBJECT, "email": "a@b.c"}, "email_unverified"),
        ([], "profile_invalid"),
        (status(500), "profile_failed"),
        (status(401), "validation"),
    ],
)
def test_gitlab_invalid_userinfo_fails_login(user: Any, reason: str) -> None:
    assert gitlab(user=json(user) if user == [] else user).failure() == reason


def test_gitlab_unverified_email_allowed_by_option() -> None:
    user = {**GITLAB_USER, "email_verified": False}
    assert gitlab(user=user, allow_unverified_email=True).log_in().status == 302


@pytest.mark.parametrize(
    ("project_", "demanded", "status_"),
    [
        (project(20), "eng/app", 302),
        (project(10), "eng/app", 403),
        (project(10), "eng/app=10", 302),
        (project(30), "eng/app=40", 403),
        (project(40, archived=True), "eng/app", 403),
        (project("40"), "eng/app", 403),
        (
            {
                "permissions": {
                    "project_access": None,
                    "group_access": {"access_level": 30},
                }
            },
            "eng/app",
            302,
        ),
        ({"permissions": {}}, "eng/app", 403),
        ({"permissions": []}, "eng/app", 403),
        ({}, "eng/app", 403),
        (json([]), "eng/app", 403),
        (Response(200, (), b"<html>"), "eng/app", 403),
        (status(404), "eng/app", 403),
        (status(403), "eng/app", 403),
        (status(503), "eng/app", 502),
    ],
)
def test_gitlab_project_restriction_by_access_level(
    project_: Any, demanded: str, status_: int
) -> None:
    url = f"GET {ISSUER}/api/v4/projects/eng%2Fapp"
    idp = gitlab({url: project_}, projects=(demanded,))
    assert idp.log_in().status == status_
    if status_ == 302:
        assert idp.identity()[2] == "eng,eng/core,project:eng/app"


@pytest.mark.parametrize(
    ("changes", "status_"),
    [
        ({"groups": ("eng/core",)}, 302),
        ({"groups": ("ops",)}, 403),
        ({"groups": ("eng",), "allowed_groups": ("ops",)}, 302),
        # oauth2-proxy allows all users in this case.
        ({"allowed_groups": ("ops",)}, 403),
        ({"allowed_groups": ("eng",)}, 302),
    ],
)
def test_gitlab_group_restriction(changes: dict[str, Any], status_: int) -> None:
    assert gitlab(**changes).log_in().status == status_


def test_gitlab_refresh_updates_session() -> None:
    idp = gitlab(cookie={"refresh": 60.0}, groups=("eng",))
    idp.log_in()
    idp.responses[f"POST {ISSUER}/token"] = idp.tokens(
        access_token="access-2", nonce=None
    )
    assert idp.later(61).status == 202
    assert idp.identity()[0] == "alice"
    assert form(idp.requests("token")[-1])["refresh_token"] == "refresh-1"
    idp.claims["sub"] = "other"
    assert idp.later(61).status == 401


def test_gitlab_refresh_after_leaving_group_denied() -> None:
    idp = gitlab(cookie={"refresh": 60.0}, groups=("eng",))
    idp.log_in()
    idp.responses[f"GET {ISSUER}/oauth/userinfo"] = {**GITLAB_USER, "groups": []}
    assert idp.later(61).status == 403
