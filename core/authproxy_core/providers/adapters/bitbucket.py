"""Bitbucket: primary email address, workspace and repository membership."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...effects import Flow
from ...errors import ProviderError
from ...oidc.protocol import with_query
from ...session import Session
from ..api import (
    MAX_PAGES,
    check_next_page,
    email_unverified_error,
    not_allowed_error,
    objects_in,
    quote_segment,
    string_at,
    too_many_pages_error,
    url_on_server,
)
from .profile import ProfileProvider, with_identity


def read_bitbucket(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """Return *session* with the user's primary email address.

    Raises `ProviderError` if the user lacks the required membership.
    """
    document = yield from provider.fetch(
        session, provider.validate_url, "the addresses"
    )
    values = document.get("values") if isinstance(document, dict) else None
    primary = next(
        (item for item in objects_in(values) if item.get("is_primary") is True), {}
    )
    allow_unverified = provider.settings.allow_unverified_email
    if primary.get("is_confirmed") is False and not allow_unverified:
        raise email_unverified_error()
    restrictions = provider.settings.bitbucket
    if restrictions.workspace:
        yield from _require_workspace(provider, session, restrictions.workspace)
    if restrictions.repository:
        yield from _require_repository(provider, session, restrictions.repository)
    return with_identity(session, email=string_at(primary, "email"))


def _require_workspace(
    provider: ProfileProvider, session: Session, workspace: str
) -> Flow[None]:
    """Raise `ProviderError` unless the user is a member of *workspace*, a slug."""
    url = url_on_server(provider.validate_url, "/2.0/user/workspaces")

    def matches(item: dict[str, Any]) -> bool:
        return string_at(item, "workspace", "slug") == workspace

    yield from _require_item(provider, session, url, matches, workspace)


def _require_repository(
    provider: ProfileProvider, session: Session, repository: str
) -> Flow[None]:
    """Raise `ProviderError` unless the user contributes to *repository*."""
    owner = quote_segment(repository.partition("/")[0])
    url = url_on_server(provider.validate_url, f"/2.0/repositories/{owner}")
    query = [("role", "contributor"), ("q", f'full_name="{_strip_quotes(repository)}"')]

    def matches(item: dict[str, Any]) -> bool:
        return item.get("full_name") == repository

    url = with_query(url, query)
    yield from _require_item(provider, session, url, matches, repository)


def _strip_quotes(text: str) -> str:
    return text.replace("\\", "").replace('"', "")


def _require_item(
    provider: ProfileProvider,
    session: Session,
    url: str,
    matches: Callable[[dict[str, Any]], bool],
    required: str,
) -> Flow[None]:
    """Raise `ProviderError` unless an item of the paginated list at *url* matches."""
    what = "the membership list"
    for _ in range(MAX_PAGES):
        document = yield from provider.fetch(session, url, what, "groups")
        if not isinstance(document, dict):
            raise ProviderError(f"{what} is not an object", reason="groups_invalid")
        if any(map(matches, objects_in(document.get("values")))):
            return
        url = check_next_page(string_at(document, "next"), provider.validate_url, what)
        if not url:
            raise not_allowed_error(
                f"the user is not a member of {required!r} at Bitbucket"
            )
    raise too_many_pages_error(what)
