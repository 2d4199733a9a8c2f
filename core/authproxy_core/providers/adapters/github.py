"""GitHub (also Enterprise, and Gitea): organisations, teams, repositories, users.

Everything is asked again when a session is renewed, so that who has left an
organisation is out by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ...effects import Fetch, Flow
from ...encoding import header_text
from ...errors import ProviderError
from ...oidc.protocol import with_query
from ...session import Session
from ...settings.root import ProviderSettings
from ..api import (
    MAX_PAGES,
    is_transient,
    not_allowed,
    objects,
    segment,
    status_error,
    text_at,
    too_many_pages,
    unique_groups,
    url_at,
)
from .profile import ProfileProvider, with_identity

PER_PAGE = 100
API_PATH = re.compile(r"/api/v[0-9]+")


def read(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """Who the user is; raises `ProviderError` for who is not let in."""
    organisations = yield from _listed(provider, session, "/user/orgs")
    teams = yield from _listed(provider, session, "/user/teams")
    groups = unique_groups(*map(_organisation, organisations), *map(_team, teams))
    user = yield from _get(provider, session, "/user")
    login = text_at(user, "login")
    if not login:
        raise ProviderError("the user has no login", reason="profile_invalid")
    if login not in provider.settings.github.users:
        _judge_groups(provider.settings, login, groups)
        yield from _judge_repository(provider, session, login)
    emails = yield from _get(provider, session, "/user/emails")
    return with_identity(session, email=_primary(emails), user=login, groups=groups)


def api_url(provider: ProfileProvider, path: str) -> str:
    """The address of *path* in the API: below ``validate_url``, or its ``/api/vN``."""
    base = urlsplit(provider.validate_url).path
    found = API_PATH.match(base)
    prefix = found.group() if found else base.rstrip("/")
    return url_at(provider.validate_url, f"{prefix}{path}")


def _get(provider: ProfileProvider, session: Session, path: str) -> Flow[Any]:
    return (yield from provider.get(session, api_url(provider, path), path))


def _listed(
    provider: ProfileProvider, session: Session, path: str
) -> Flow[list[dict[str, Any]]]:
    """All items of a list, which ends with an empty page."""
    found: list[dict[str, Any]] = []
    for page in range(1, MAX_PAGES + 1):
        query = [("per_page", str(PER_PAGE)), ("page", str(page))]
        url = with_query(api_url(provider, path), query)
        items = yield from provider.get(session, url, path, "groups")
        if not isinstance(items, list):
            raise ProviderError(f"{path} is not a list", reason="groups_invalid")
        if not items:
            return found
        found += objects(items)
    raise too_many_pages(path)


def _organisation(item: dict[str, Any]) -> str:
    name = text_at(item, "login") or text_at(item, "name")  # Gitea: name
    return "" if ":" in name else name  # it would pass for a team


def _team(item: dict[str, Any]) -> str:
    owner = text_at(item, "organization", "login")
    owner = owner or text_at(item, "organization", "name")
    name = text_at(item, "slug") or text_at(item, "name")
    return f"{owner}:{name}" if owner and name and ":" not in owner else ""


def _judge_groups(
    settings: ProviderSettings, login: str, groups: tuple[str, ...]
) -> None:
    """Raise `ProviderError` unless the organisation and the team are as demanded."""
    github = settings.github
    if github.users and not github.org and not github.repo:
        raise not_allowed(f"{login!r} is none of github_users")
    if github.team:
        wanted = set(_wanted_teams(github.org, github.team))
        if wanted.isdisjoint(group.lower() for group in groups):
            raise not_allowed(f"{login!r} is in none of the teams of github_team")
    elif github.org and (":" in github.org or github.org not in groups):
        raise not_allowed(f"{login!r} is not in the organisation of github_org")


def _wanted_teams(org: str, teams: str) -> Iterator[str]:
    for team in teams.split(","):
        yield f"{org}:{team}".lower() if org else team.lower()


def _judge_repository(
    provider: ProfileProvider, session: Session, login: str
) -> Flow[None]:
    """Raise `ProviderError` unless the user may work on the repository."""
    github = provider.settings.github
    if not github.repo or github.org:
        return
    owner, _, name = github.repo.partition("/")
    path = f"/repos/{segment(owner)}/{segment(name)}"
    if github.token:
        allowed = yield from _is_collaborator(provider, path, login)
    else:
        allowed = yield from _has_access(provider, session, path)
    if not allowed:
        raise not_allowed(f"{login!r} has no access to the repository of github_repo")


def _is_collaborator(provider: ProfileProvider, path: str, login: str) -> Flow[bool]:
    token = header_text(provider.settings.github.token.value.decode("utf-8", "replace"))
    headers = (*provider.kind.api_headers, (b"authorization", b"token " + token))
    url = api_url(provider, f"{path}/collaborators/{segment(login)}")
    response = yield from Fetch("GET", url, headers, purpose="groups")
    if response.status not in (204, 404):
        # 401: our own token is wrong, which says nothing about the user's.
        raise ProviderError(
            f"the collaborators answered with status {response.status}, expected 204 "
            "or 404",
            reason="groups_failed",
            hint="check github_token",
        )
    return response.status == 204


def _has_access(provider: ProfileProvider, session: Session, path: str) -> Flow[bool]:
    """Whether the user may push, or may see a repository that is private."""
    headers = provider.api_headers(session)
    url = api_url(provider, path)
    response = yield from Fetch("GET", url, headers, purpose="groups")
    if response.status in (403, 404) and not is_transient(response):
        return False  # a repository that is hidden from the user
    if response.status != 200:
        raise status_error(response, "the repository", "groups")
    repository = _object(response.body)
    permissions = repository.get("permissions")
    if not isinstance(permissions, dict):
        return False
    private = repository.get("private") is True
    return permissions.get("push") is True or (
        private and permissions.get("pull") is True
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _primary(emails: Any) -> str:
    """The primary address when it is verified, else ""."""
    for item in objects(emails):
        if item.get("primary") is True and item.get("verified") is True:
            return text_at(item, "email")
    return ""
