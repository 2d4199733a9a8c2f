"""Types of JWTs: no kind of token passes for another (RFC 8725 §3.11).

Two values carry the type: the header parameter ``typ``, and the claim ``typ`` of
Keycloak. Either may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..errors import TokenError

# Lower-case values of Keycloak's claim; other providers use the name for other data.
KEYCLOAK_TYPES = frozenset({"bearer", "dpop", "id", "logout", "offline", "refresh"})


class TokenUse(Struct, frozen=True):
    """A use of tokens: the accepted lower-case values of its two types."""

    header_types: frozenset[str]
    claim_types: frozenset[str]


ID_TOKEN = TokenUse(frozenset({"jwt"}), frozenset({"id"}))
BEARER_TOKEN = TokenUse(frozenset({"jwt", "at+jwt"}), frozenset({"bearer", "id"}))
USERINFO = TokenUse(frozenset({"jwt"}), frozenset())
LOGOUT_TOKEN = TokenUse(frozenset({"jwt", "logout+jwt"}), frozenset({"logout"}))


def check_header_type(header: Mapping[str, Any], use: TokenUse) -> None:
    """Raise `TokenError` for a header whose ``typ`` is of another use."""
    value = header.get("typ")
    if value is None:
        return
    name = value.lower().removeprefix("application/") if isinstance(value, str) else ""
    if name not in use.header_types:
        raise TokenError("the token has the type of another token", reason="type")


def check_claim_type(claims: Mapping[str, Any], use: TokenUse) -> None:
    """Raise `TokenError` for claims whose Keycloak type is of another use."""
    value = claims.get("typ")
    name = value.lower() if isinstance(value, str) else ""
    if name in KEYCLOAK_TYPES - use.claim_types:
        raise TokenError("the token has the type of another token", reason="type")
