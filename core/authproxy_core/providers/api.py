"""Asking a provider's own endpoints, and reading what they say.

Nothing that they send is put into an error's text. An answer that refuses the access
token ends a session; one that only says "not now" does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from ..effects import Fetch, Flow
from ..errors import AuthProxyError, ProviderError, TokenError
from ..identity.claims import claim_bool
from ..messages import Response, first_header

TRANSIENT_STATUSES = frozenset({408, 425, 429})
MAX_PAGES = 30


def fetch_json(fetch: Fetch, what: str) -> Flow[Any]:
    """The JSON that answers *fetch*; *what* is asked, for messages.

    Raises `TokenError` when the access token is refused, and `ProviderError` for all
    else that is not a good answer, or `FetchError`.
    """
    response = yield from fetch
    if response.status != 200:
        raise status_error(response, what, fetch.purpose)
    try:
        return msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProviderError(
            f"{what} answered with something that is not JSON",
            reason=f"{fetch.purpose}_invalid",
        ) from None


def status_error(response: Response, what: str, purpose: str) -> AuthProxyError:
    """The error for a status that is not 200."""
    text = f"{what} answered with status {response.status}, expected 200"
    if 400 <= response.status < 500 and not is_transient(response):
        return TokenError(text, reason="validation")
    return ProviderError(text, reason=f"{purpose}_failed")


def is_transient(response: Response) -> bool:
    """Whether the provider is only too busy now, or counts our requests."""
    if response.status in TRANSIENT_STATUSES or response.status >= 500:
        return True
    return response.status == 403 and (
        first_header(response.headers, b"x-ratelimit-remaining") == b"0"
        or first_header(response.headers, b"retry-after") is not None
    )


def string_at(document: Any, *path: str) -> str:
    """The text at *path* in a JSON document; "" when there is none."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, str) else ""


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects in a JSON list; whatever is of another shape is left out."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def strings_in(value: Any) -> list[str]:
    """The texts in a JSON list that are not empty; all else is left out."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, str) and item]


def unique_strings(*groups: str) -> tuple[str, ...]:
    """*groups* in their order, each once, without empty names."""
    return tuple(group for group in dict.fromkeys(groups) if group)


def url_on_server(base: str, path: str) -> str:
    """The address *path* on the server of *base*, without query."""
    parts = urlsplit(base)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def quote_segment(text: str) -> str:
    """*text* as one segment of a path."""
    return quote(text, safe="")


def is_same_server(one: str, other: str) -> bool:
    """Whether two addresses have one scheme, host and port."""
    try:
        a, b = urlsplit(one), urlsplit(other)
    except ValueError:
        return False
    return (a.scheme, a.netloc) == (b.scheme, b.netloc)


def check_next_page(link: str, base: str, what: str) -> str:
    """*link* when it stays on the server of *base*: an access token goes with it."""
    if link and not is_same_server(link, base):
        raise ProviderError(
            f"{what} has its next page on another server", reason="groups_invalid"
        )
    return link


def too_many_pages_error(what: str) -> ProviderError:
    """The error for a list that does not end."""
    return ProviderError(
        f"{what} has more than {MAX_PAGES} pages", reason="groups_too_many"
    )


def check_email_verified(document: Mapping[str, Any], name: str) -> None:
    """Raise `ProviderError` when *name* is there and says that the e-mail is not good."""
    verified = document.get(name)
    if verified is not None and not claim_bool(verified):
        raise email_unverified_error()


def email_unverified_error() -> ProviderError:
    """The error for an e-mail address that the provider calls unverified."""
    return ProviderError(
        "the provider says that the e-mail address is not verified",
        reason="email_unverified",
        hint="have the user verify the address, or set "
        "insecure_oidc_allow_unverified_email",
    )


def not_allowed_error(text: str) -> ProviderError:
    """The error for a user who is known but is not let in."""
    return ProviderError(text, reason="not_allowed")
