"""GitLab: userinfo, groups, and access to projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...effects import Fetch, Flow
from ...errors import ProviderError
from ...identity.claims import claim_bool, claim_list
from ...oidc.jwt import unverified_claims
from ...session import Session
from ..api import (
    email_unverified_error,
    fetch_json,
    is_transient,
    quote_segment,
    status_error,
    string_at,
    unique_strings,
    url_on_server,
)
from ..base import Provider

PROJECT_PREFIX = "project:"
DEFAULT_ACCESS_LEVEL = 20  # reporter


class Gitlab(Provider):
    """OIDC with GitLab's userinfo; accessible projects are groups ``project:PATH``."""

    def allowed_groups(self) -> tuple[str, ...]:
        """Return gitlab_group and gitlab_projects, else the general allowed groups."""
        gitlab = self.settings.gitlab
        projects = [
            f"{PROJECT_PREFIX}{parse_project(one)[0]}" for one in gitlab.projects
        ]
        return (*gitlab.groups, *projects) or super().allowed_groups()

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the groups except those that look like projects."""
        return _without_projects(super().read_groups(claims))

    def expected_subject(self, session: Session) -> str:
        """Return the ``sub`` of the ID token: the session's user is the nickname."""
        return string_at(unverified_claims(session.id_token), "sub")

    def enrich(self, session: Session) -> Flow[Session]:
        """Return *session* with user, email and groups of userinfo, and projects."""
        session = yield from super().enrich(session)
        url = url_on_server(
            self._require_metadata().authorization_endpoint, "/oauth/userinfo"
        )
        headers = self.api_headers(session)
        info = yield from fetch_json(
            Fetch("GET", url, headers, purpose="profile"), "userinfo"
        )
        if not isinstance(info, dict):
            raise ProviderError("userinfo is not an object", reason="profile_invalid")
        verified = claim_bool(info.get("email_verified"))
        if not verified and not self.settings.allow_unverified_email:
            raise email_unverified_error()
        groups = _without_projects(session.groups)
        if info.get("groups") is not None:
            groups = _without_projects(claim_list(info["groups"]))
        projects = yield from self._accessible_projects(session)
        return msgspec.structs.replace(
            session,
            user=string_at(info, "nickname") or session.user,
            email=string_at(info, "email") or session.email,
            groups=unique_strings(*groups, *projects),
        )

    def _accessible_projects(self, session: Session) -> Flow[list[str]]:
        found = []
        for project in self.settings.gitlab.projects:
            path, level = parse_project(project)
            if (yield from self._has_access(session, path, level)):
                found.append(f"{PROJECT_PREFIX}{path}")
        return found

    def _has_access(self, session: Session, path: str, level: int) -> Flow[bool]:
        base = self._require_metadata().authorization_endpoint
        url = url_on_server(base, f"/api/v4/projects/{quote_segment(path)}")
        headers = self.api_headers(session)
        response = yield from Fetch("GET", url, headers, purpose="groups")
        if is_transient(response):
            raise status_error(response, "the project", "groups")
        if response.status != 200:
            return False  # hidden from the user
        try:
            document = msgspec.json.decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return access_level(document) >= level


def parse_project(project: str) -> tuple[str, int]:
    """Split ``path=level`` into the project's path and the required access level."""
    path, _, level = project.partition("=")
    return path, int(level or DEFAULT_ACCESS_LEVEL)


def access_level(project: Any) -> int:
    """Return the user's access level in a project's JSON object; 0 for no access."""
    if not isinstance(project, dict) or project.get("archived") is True:
        return 0
    permissions = project.get("permissions")
    for name in ("project_access", "group_access"):
        access = permissions.get(name) if isinstance(permissions, dict) else None
        if isinstance(access, dict):
            level = access.get("access_level")
            return level if isinstance(level, int) else 0
    return 0


def _without_projects(groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(group for group in groups if not group.startswith(PROJECT_PREFIX))
