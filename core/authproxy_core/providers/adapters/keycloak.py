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


class KeycloakOidc(Provider):
    """Realm roles are groups ``role:NAME``, client roles ``role:CLIENT:NAME``.

    The roles are in the access token. Its signature is not verified, because the token
    comes directly from the token endpoint over TLS.
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
        """Return *session* with the roles of its access token instead of earlier ones."""
        return self.enrich_bearer((yield from super().enrich(session)))

    def enrich_bearer(self, session: Session) -> Session:
        """Return *session* with the roles of its access token, here a verified JWT."""
        groups = [
            group for group in session.groups if not group.startswith(ROLE_PREFIX)
        ]
        roles = realm_and_client_roles(unverified_claims(session.access_token))
        return msgspec.structs.replace(session, groups=(*groups, *roles))


def realm_and_client_roles(claims: Mapping[str, Any]) -> Iterator[str]:
    """Yield the roles in the claims of an access token; malformed ones are skipped."""
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
