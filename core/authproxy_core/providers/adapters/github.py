"""GitHub, GitHub Enterprise and Gitea: organizations, teams, repositories, users.

Every refresh of a session fetches all of it again, so a user who left an organization
loses access then.
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
    """Return *session* with the user's identity; raises `ProviderError` if denied."""
    organizations = yield from _fetch_list(provider, session, "/user/orgs")
    teams = yield from _fetch_list(provider, session, "/user/teams")
    groups = unique_strings(*map(_organization, organizations), *map(_team, teams))
    user = yield from _fetch(provider, session, "/user")
    login = string_at(user, "login")
    if not login:
        raise ProviderError("the user has no login", reason="profile_invalid")
    allowed = {name.lower() for name in provider.settings.github.users}
    if login.lower() not in allowed:
        _check_groups(provider.settings, login, groups)
        yield from _check_repository(provider, session, login)
    emails = yield from _fetch(provider, session, "/user/emails")
    return with_identity(
        session, email=_primary_email(emails), user=login, groups=groups
    )


def api_url(provider: ProfileProvider, path: str) -> str:
    """Return the API URL of *path*: below ``/api/vN`` of validate_url, or below it."""
    base = urlsplit(provider.validate_url).path
    found = API_PATH.match(base)
    prefix = found.group() if found else base.rstrip("/")
    return url_on_server(provider.validate_url, f"{prefix}{path}")


def _fetch(provider: ProfileProvider, session: Session, path: str) -> Flow[Any]:
    return (yield from provider.fetch(session, api_url(provider, path), path))


def _fetch_list(
    provider: ProfileProvider, session: Session, path: str
) -> Flow[list[dict[str, Any]]]:
    """Return all items of a paginated list, which ends with an empty page."""
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
    return "" if ":" in name else name  # would look like a team


def _team(item: dict[str, Any]) -> str:
    owner = string_at(item, "organization", "login")
    owner = owner or string_at(item, "organization", "name")
    name = string_at(item, "slug") or string_at(item, "name")
    return f"{owner}:{name}" if owner and name and ":" not in owner else ""


def _check_groups(
    settings: ProviderSettings, login: str, groups: tuple[str, ...]
) -> None:
    """Raise `ProviderError` unless the required organization and team are in *groups*."""
    github = settings.github
    if github.users and not github.org and not github.repo:
        raise not_allowed_error(f"{login!r} is not in github_users")
    if github.team:
        required = set(_required_teams(github.org, github.team))
        if required.isdisjoint(group.lower() for group in groups):
            raise not_allowed_error(f"{login!r} is not in a team of github_team")
    elif github.org and (":" in github.org or github.org not in groups):
        raise not_allowed_error(f"{login!r} is not in the organization of github_org")


def _required_teams(org: str, teams: str) -> Iterator[str]:
    for team in teams.split(","):
        yield f"{org}:{team}".lower() if org else team.lower()


def _check_repository(
    provider: ProfileProvider, session: Session, login: str
) -> Flow[None]:
    """Raise `ProviderError` unless the user has access to the required repository."""
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
        # 401 is about github_token, not about the user's access token.
        raise ProviderError(
            f"collaborators: got status {response.status}, expected 204 or 404",
            reason="groups_failed",
            hint="check github_token",
        )
    return response.status == 204


def _has_access(provider: ProfileProvider, session: Session, path: str) -> Flow[bool]:
    """Return whether the user can push, or can read a private repository."""
    headers = provider.api_headers(session)
    url = api_url(provider, path)
    response = yield from Fetch("GET", url, headers, purpose="groups")
    if response.status in (403, 404) and not is_transient(response):
        return False  # hidden from the user
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
    """Return the primary email address, "" if there is none.

    Raises `ProviderError` if it is not verified.
    """
    for item in objects_in(emails):
        if item.get("primary") is True:
            if item.get("verified") is not True:
                raise ProviderError(
                    "the primary email address is not verified at the provider",
                    reason="email_unverified",
                    hint="have the user verify the address",
                )
            return string_at(item, "email")
    return ""
