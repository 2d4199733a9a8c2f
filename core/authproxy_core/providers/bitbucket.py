"""Bitbucket: the primary address, and who belongs to a team or may see a repository."""

from __future__ import annotations

from ..effects import Flow
from ..errors import ProviderError
from ..oidc import with_query
from ..session import Session
from .api import (
    MAX_PAGES,
    at,
    next_page,
    not_allowed,
    objects,
    segment,
    text_at,
    too_many_pages,
    unverified,
)
from .profile import ProfileProvider, identified


def read(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """The user's primary address; raises `ProviderError` for who is not let in."""
    document = yield from provider.get(session, provider.validate_url, "the addresses")
    values = document.get("values") if isinstance(document, dict) else None
    primary = next(
        (item for item in objects(values) if item.get("is_primary") is True), {}
    )
    allow_unverified = provider.settings.allow_unverified_email
    if primary.get("is_confirmed") is False and not allow_unverified:
        raise unverified()
    restrictions = provider.settings.bitbucket
    if restrictions.team:
        url = at(provider.validate_url, "/2.0/teams")
        url = with_query(url, [("role", "member")])
        yield from _demand(provider, session, url, "username", restrictions.team)
    if restrictions.repository:
        owner = segment(restrictions.repository.partition("/")[0])
        url = at(provider.validate_url, f"/2.0/repositories/{owner}")
        wanted = restrictions.repository.replace('"', "")
        query = [("role", "contributor"), ("q", f'full_name="{wanted}"')]
        url = with_query(url, query)
        name = restrictions.repository
        yield from _demand(provider, session, url, "full_name", name)
    return identified(session, email=text_at(primary, "email"))


def _demand(
    provider: ProfileProvider, session: Session, url: str, field: str, wanted: str
) -> Flow[None]:
    """Raise `ProviderError` unless the list at *url* has an item called *wanted*."""
    what = "the list of what the user belongs to"
    for _ in range(MAX_PAGES):
        document = yield from provider.get(session, url, what, "groups")
        if not isinstance(document, dict):
            raise ProviderError(f"{what} is not an object", reason="groups_invalid")
        if any(item.get(field) == wanted for item in objects(document.get("values"))):
            return
        url = next_page(text_at(document, "next"), provider.validate_url, what)
        if not url:
            raise not_allowed(f"the user does not belong to {wanted!r} at Bitbucket")
    raise too_many_pages(what)
