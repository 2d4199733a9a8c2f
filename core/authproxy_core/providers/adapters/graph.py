"""Microsoft Graph: a user's addresses, and all groups that the user is in."""

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
WHAT = "Graph's list of groups"
# Counting and filtering need it.
EVENTUAL: Headers = ((b"consistencylevel", b"eventual"),)


def member_of(url: str, headers: Headers, field: str = "id") -> Flow[tuple[str, ...]]:
    """*field* of every group in a list of Graph's, page after page.

    Raises `TokenError`, `ProviderError` or `FetchError`.
    """
    found: list[str] = []
    base = url
    for _ in range(MAX_PAGES):
        fetch = Fetch("GET", url, (*headers, *EVENTUAL), purpose="groups")
        document = yield from fetch_json(fetch, WHAT)
        if not isinstance(document, dict):
            raise ProviderError(f"{WHAT} is not an object", reason="groups_invalid")
        found += [
            string_at(group, field) for group in objects_in(document.get("value"))
        ]
        url = check_next_page(string_at(document, "@odata.nextLink"), base, WHAT)
        if not url:
            return tuple(group for group in found if group)
    raise too_many_pages_error(WHAT)


def address(url: str, headers: Headers) -> Flow[str]:
    """The user's address: ``mail``, else the first other one, else the UPN."""
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
