"""Keycloak: plain OIDC, plus the realm and client roles as groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ...effects import Flow
from ...oidc.jwt import unverified_claims
from ...session import Session
from ..base import Provider

ROLE = "role:"


class KeycloakOidc(Provider):
    """Realm roles are groups ``role:NAME``, client roles ``role:CLIENT:NAME``.

    They stand in the access token, which comes straight from the token endpoint and
    whose signature is therefore not what its trust rests on.
    """

    is_keycloak = True

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The groups, but none that would pass for a role."""
        return tuple(
            group for group in super().read_groups(claims) if not group.startswith(ROLE)
        )

    def enrich(self, session: Session) -> Flow[Session]:
        """*session* with the roles of its access token in place of earlier ones."""
        return self.enrich_bearer((yield from super().enrich(session)))

    def enrich_bearer(self, session: Session) -> Session:
        """The same for a bearer JWT, whose signature has been checked."""
        groups = [group for group in session.groups if not group.startswith(ROLE)]
        roles = roles_of(unverified_claims(session.access_token))
        return msgspec.structs.replace(session, groups=(*groups, *roles))


def roles_of(claims: Mapping[str, Any]) -> Iterator[str]:
    """The roles in an access token's claims; whatever is of another shape is none."""
    for role in _roles(claims.get("realm_access")):
        yield f"{ROLE}{role}"
    clients = claims.get("resource_access")
    if isinstance(clients, dict):
        for client, access in clients.items():
            for role in _roles(access):
                yield f"{ROLE}{client}:{role}"


def _roles(access: object) -> list[str]:
    roles = access.get("roles") if isinstance(access, dict) else None
    if not isinstance(roles, list):
        return []
    return [role for role in roles if isinstance(role, str) and role]
