"""Keycloak: OIDC, with realm and client roles as groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ...effects import Flow
from ...oidc.jwt import unverified_claims
from ...session import Session
from ..base import Provider

ROLE_PREFIX = "role:"
ROLE_CLAIMS = ("realm_access", "resource_access")
NO_ROLES = (
    "neither the access token nor the ID token has roles (realm_access, "
    "resource_access), as with lightweight access tokens: in Keycloak, Client scopes -> "
    "roles -> Mappers -> realm roles and client roles: Add to ID token: On, or Add to "
    "lightweight access token: On"
)


class KeycloakOidc(Provider):
    """Realm roles are groups ``role:NAME``, client roles ``role:CLIENT:NAME``.

    The roles are in the access token. Its signature is not verified, because the token
    comes directly from the token endpoint over TLS. Roles that only the ID token has
    count too: a lightweight access token has none.
    """

    is_keycloak = True

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the groups except those that look like roles."""
        return tuple(
            group
            for group in super().read_groups(claims)
            if not group.startswith(ROLE_PREFIX)
        )

    def enrich(self, session: Session) -> Flow[Session]:
        """Return *session* with the roles of its tokens instead of earlier ones."""
        return self.enrich_bearer((yield from super().enrich(session)))

    def enrich_bearer(self, session: Session) -> Session:
        """Return *session* with the roles of its tokens, here of a verified JWT."""
        groups = [
            group for group in session.groups if not group.startswith(ROLE_PREFIX)
        ]
        roles = realm_and_client_roles(_role_claims(session))
        return msgspec.structs.replace(session, groups=(*groups, *roles))

    def missing_roles(self, session: Session) -> str:
        """Return why *session* has no roles, "" if a token has a claim for them."""
        claims = _role_claims(session)
        if any(claims.get(name) is not None for name in ROLE_CLAIMS):
            return ""
        return NO_ROLES


def _role_claims(session: Session) -> dict[str, Any]:
    """Return the role claims of the access token, completed by those of the ID token.

    The access token takes precedence, because it is newer after a refresh that returns
    no ID token.
    """
    access = unverified_claims(session.access_token)
    identity = unverified_claims(session.id_token) if session.id_token else {}
    realm = access.get("realm_access")
    clients: dict[str, Any] = {}
    for claims in (identity, access):
        found = claims.get("resource_access")
        if isinstance(found, dict):
            clients |= found
    return {
        "realm_access": identity.get("realm_access") if realm is None else realm,
        "resource_access": clients or None,
    }


def realm_and_client_roles(claims: Mapping[str, Any]) -> Iterator[str]:
    """Yield the roles in role claims; malformed ones are skipped."""
    for role in _roles(claims.get("realm_access")):
        yield f"{ROLE_PREFIX}{role}"
    clients = claims.get("resource_access")
    if isinstance(clients, dict):
        for client, access in clients.items():
            for role in _roles(access):
                yield f"{ROLE_PREFIX}{client}:{role}"


def _roles(access: object) -> list[str]:
    roles = access.get("roles") if isinstance(access, dict) else None
    if not isinstance(roles, list):
        return []
    return [role for role in roles if isinstance(role, str) and role]
