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
    not_allowed_error,
    objects_in,
    quote_segment,
    status_error,
    string_at,
    too_many_pages_error,
    unique_strings,
    url_on_server,
)
from .profile import ProfileProvider, with_identity

PAGE_SIZE = 100
API_PATH = re.compile(r"/api/v[0-9]+")


def read_github(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """Who the user is; raises `ProviderError` for who is not let in."""
    organisations = yield from _fetch_list(provider, session, "/user/orgs")
    teams = yield from _fetch_list(provider, session, "/user/teams")
    groups = unique_strings(*map(_organization, organisations), *map(_team, teams))
    user = yield from _fetch(provider, session, "/user")
    login = string_at(user, "login")
    if not login:
        raise ProviderError("the user has no login", reason="profile_invalid")
    if login not in provider.settings.github.users:
        _check_groups(provider.settings, login, groups)
        yield from _check_repository(provider, session, login)
    emails = yield from _fetch(provider, session, "/user/emails")
    return with_identity(
        session, email=_primary_email(emails), user=login, groups=groups
    )


def api_url(provider: ProfileProvider, path: str) -> str:
    """The address of *path* in the API: below ``validate_url``, or its ``/api/vN``."""
    base = urlsplit(provider.validate_url).path
    found = API_PATH.match(base)
    prefix = found.group() if found else base.rstrip("/")
    return url_on_server(provider.validate_url, f"{prefix}{path}")


def _fetch(provider: ProfileProvider, session: Session, path: str) -> Flow[Any]:
    return (yield from provider.fetch(session, api_url(provider, path), path))


def _fetch_list(
    provider: ProfileProvider, session: Session, path: str
) -> Flow[list[dict[str, Any]]]:
    """All items of a list, which ends with an empty page."""
    found: list[dict[str, Any]] = []
    for page in range(1, MAX_PAGES + 1):
        query = [("per_page", str(PAGE_SIZE)), ("page", str(page))]
        url = with_query(api_url(provider, path), query)
        items = yield from provider.fetch(session, url, path, "groups")
        if not isinstance(items, list):
            raise ProviderError(f"{path} is not a list", reason="groups_invalid")
        if not items:
            return found
        found += objects_in(items)
    raise too_many_pages_error(path)


def _organization(item: dict[str, Any]) -> str:
    name = string_at(item, "login") or string_at(item, "name")  # Gitea: name
    return "" if ":" in name else name  # it would pass for a team


def _team(item: dict[str, Any]) -> str:
    owner = string_at(item, "organization", "login")
    owner = owner or string_at(item, "organization", "name")
    name = string_at(item, "slug") or string_at(item, "name")
    return f"{owner}:{name}" if owner and name and ":" not in owner else ""


def _check_groups(
    settings: ProviderSettings, login: str, groups: tuple[str, ...]
) -> None:
    """Raise `ProviderError` unless the organisation and the team are as demanded."""
    github = settings.github
    if github.users and not github.org and not github.repo:
        raise not_allowed_error(f"{login!r} is none of github_users")
    if github.team:
        wanted = set(_wanted_teams(github.org, github.team))
        if wanted.isdisjoint(group.lower() for group in groups):
            raise not_allowed_error(f"{login!r} is in none of the teams of github_team")
    elif github.org and (":" in github.org or github.org not in groups):
        raise not_allowed_error(f"{login!r} is not in the organisation of github_org")


def _wanted_teams(org: str, teams: str) -> Iterator[str]:
    for team in teams.split(","):
        yield f"{org}:{team}".lower() if org else team.lower()


def _check_repository(
    provider: ProfileProvider, session: Session, login: str
) -> Flow[None]:
    """Raise `ProviderError` unless the user may work on the repository."""
    github = provider.settings.github
    if not github.repo or github.org:
        return
    owner, _, name = github.repo.partition("/")
    path = f"/repos/{quote_segment(owner)}/{quote_segment(name)}"
    if github.token:
        allowed = yield from _is_collaborator(provider, path, login)
    else:
        allowed = yield from _has_access(provider, session, path)
    if not allowed:
        raise not_allowed_error(
            f"{login!r} has no access to the repository of github_repo"
        )


def _is_collaborator(provider: ProfileProvider, path: str, login: str) -> Flow[bool]:
    token = header_text(provider.settings.github.token.value.decode("utf-8", "replace"))
    headers = (*provider.kind.api_headers, (b"authorization", b"token " + token))
    url = api_url(provider, f"{path}/collaborators/{quote_segment(login)}")
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
    repository = _parse_object(response.body)
    permissions = repository.get("permissions")
    if not isinstance(permissions, dict):
        return False
    private = repository.get("private") is True
    return permissions.get("push") is True or (
        private and permissions.get("pull") is True
    )


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _primary_email(emails: Any) -> str:
    """The primary address when it is verified, else ""."""
    for item in objects_in(emails):
        if item.get("primary") is True and item.get("verified") is True:
            return string_at(item, "email")
    return ""
