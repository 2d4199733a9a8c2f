"""Microsoft Graph: email address and groups of the user."""

from __future__ import annotations

from ...effects import Fetch, Flow
from ...errors import ProviderError
from ...messages import Headers
from ..api import (
    MAX_PAGES,
    check_next_page,
    fetch_json,
    objects_in,
    string_at,
    strings_in,
    too_many_pages_error,
)

GRAPH = "https://graph.microsoft.com"
GROUPS_NAME = "Graph's list of groups"
# Graph requires it for $count and $filter.
CONSISTENCY_HEADERS: Headers = ((b"consistencylevel", b"eventual"),)


def fetch_groups(
    url: str, headers: Headers, field: str = "id"
) -> Flow[tuple[str, ...]]:
    """Return *field* of all groups in the paginated list at *url*.

    Raises `TokenError`, `ProviderError` or `FetchError`.
    """
    found: list[str] = []
    base = url
    for _ in range(MAX_PAGES):
        fetch = Fetch("GET", url, (*headers, *CONSISTENCY_HEADERS), purpose="groups")
        document = yield from fetch_json(fetch, GROUPS_NAME)
        if not isinstance(document, dict):
            raise ProviderError(
                f"{GROUPS_NAME} is not an object", reason="groups_invalid"
            )
        found += [
            string_at(group, field) for group in objects_in(document.get("value"))
        ]
        url = check_next_page(string_at(document, "@odata.nextLink"), base, GROUPS_NAME)
        if not url:
            return tuple(group for group in found if group)
    raise too_many_pages_error(GROUPS_NAME)


def fetch_email(url: str, headers: Headers) -> Flow[str]:
    """Return ``mail`` of the profile, else the first of ``otherMails``, else the UPN."""
    document = yield from fetch_json(
        Fetch("GET", url, headers, purpose="profile"), "Graph's profile"
    )
    if not isinstance(document, dict):
        return ""
    others = strings_in(document.get("otherMails"))
    return (
        string_at(document, "mail")
        or (others[0] if others else "")
        or string_at(document, "userPrincipalName")
    )
