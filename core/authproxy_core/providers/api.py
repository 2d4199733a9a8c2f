"""Requests to provider APIs, and readers for their JSON responses.

Error texts contain no response data. A response that rejects the access token ends
the session; a transient error does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from ..effects import Fetch, Flow
from ..errors import AuthProxyError, ProviderError, TokenError
from ..identity.claims import claim_bool, claim_text, find_claim
from ..messages import Response, first_header

TRANSIENT_STATUSES = frozenset({408, 425, 429})
MAX_PAGES = 30  # of a paginated list


def fetch_json(fetch: Fetch, what: str) -> Flow[Any]:
    """Return the JSON document that *fetch* gets; *what* names it in error texts.

    Raises `TokenError` if the access token is rejected, `ProviderError` for any other
    invalid response, and `FetchError`.
    """
    response = yield from fetch
    if response.status != 200:
        raise status_error(response, what, fetch.purpose)
    try:
        return msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProviderError(
            f"{what}: the response is not JSON",
            reason=f"{fetch.purpose}_invalid",
        ) from None


def status_error(response: Response, what: str, purpose: str) -> AuthProxyError:
    """Return the error for a status other than 200; *what* names the resource."""
    text = f"{what}: got status {response.status}, expected 200"
    if 400 <= response.status < 500 and not is_transient(response):
        return TokenError(text, reason="validation")
    return ProviderError(text, reason=f"{purpose}_failed")


def is_transient(response: Response) -> bool:
    """Return whether the provider is overloaded or throttles the requests."""
    if response.status in TRANSIENT_STATUSES or response.status >= 500:
        return True
    return response.status == 403 and (
        first_header(response.headers, b"x-ratelimit-remaining") == b"0"
        or first_header(response.headers, b"retry-after") is not None
    )


def string_at(document: Any, *path: str) -> str:
    """Return the string at *path* in a JSON document; "" if there is none."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, str) else ""


def objects_in(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a JSON array; other values are skipped."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def strings_in(value: Any) -> list[str]:
    """Return the non-empty strings in a JSON array; other values are skipped."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, str) and item]


def unique_strings(*strings: str) -> tuple[str, ...]:
    """Return *strings* in order without duplicates and empty ones."""
    return tuple(string for string in dict.fromkeys(strings) if string)


def url_on_server(base: str, path: str) -> str:
    """Return the URL of *path* on the server of *base*, without a query."""
    parts = urlsplit(base)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def quote_segment(text: str) -> str:
    """Return *text* percent-encoded as one path segment."""
    return quote(text, safe="")


def is_same_server(one: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    try:
        a, b = urlsplit(one), urlsplit(other)
    except ValueError:
        return False
    return (a.scheme, a.netloc) == (b.scheme, b.netloc)


def check_next_page(link: str, base: str, what: str) -> str:
    """Return *link* if it is on the server of *base*, else raise `ProviderError`.

    The request for the next page carries the access token.
    """
    if link and not is_same_server(link, base):
        raise ProviderError(
            f"{what}: the next page is on another server", reason="groups_invalid"
        )
    return link


def too_many_pages_error(what: str) -> ProviderError:
    """Return the error for a list of more than `MAX_PAGES` pages."""
    return ProviderError(
        f"{what}: more than {MAX_PAGES} pages", reason="groups_too_many"
    )


def check_email_verified(document: Mapping[str, Any], name: str) -> None:
    """Raise `ProviderError` if the field *name* marks the email address unverified."""
    verified = document.get(name)
    if verified is not None and not claim_bool(verified):
        raise email_unverified_error()


def email_unverified_error() -> ProviderError:
    """Return the error for an unverified email address."""
    return ProviderError(
        "the email address is not verified at the provider",
        reason="email_unverified",
        hint="have the user verify the address, or set "
        "insecure_oidc_allow_unverified_email",
    )


def email_missing_error(claim: str) -> ProviderError:
    """Return the error for a user without an email address in *claim*."""
    return ProviderError(
        f"the user has no email address (claim {claim!r})",
        reason="email_missing",
        hint="give the user an email address at the provider, add email to the scope, "
        "or set oidc_email_claim to a claim of the ID token",
    )


def email_of(claims: Mapping[str, Any], name: str) -> str:
    """Return the email address in the claim *name*, "" if it is missing or empty.

    Raises `ProviderError` for a list, an object or a boolean: their text would be an
    address that no user has, and the same one for several users.
    """
    value = find_claim(claims, name) or None
    if isinstance(value, bool | list | dict):
        raise ProviderError(
            f"expected one email address in the claim {name!r}, got a JSON "
            f"{'boolean' if value is True else 'array or object'}",
            reason="email_invalid",
            hint="have the provider send a single string (Keycloak: the mapper's "
            "Multivalued: Off), or set oidc_email_claim to another claim",
        )
    return claim_text(value)


def not_allowed_error(text: str) -> ProviderError:
    """Return the error for a user without access."""
    return ProviderError(text, reason="not_allowed")
