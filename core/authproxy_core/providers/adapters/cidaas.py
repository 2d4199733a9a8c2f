"""cidaas: groups and roles in a vendor-specific form of userinfo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...effects import Flow
from ...identity.claims import find_claim
from ...oidc.protocol import userinfo_request
from ...session import Session
from ..api import objects_in, string_at, strings_in, unique_strings
from ..base import Provider

UNGROUPED = "cidaas"  # group name of roles that belong to no group


class Cidaas(Provider):
    """Groups are ``GROUP:ROLE`` and ``cidaas:ROLE``."""

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the roles of groups and the roles without a group."""
        groups = find_claim(claims, self.settings.groups_claim)
        return unique_strings(
            *_group_roles(groups), *_ungrouped_roles(claims.get("roles"))
        )

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """Return *claims* completed by userinfo, which alone supplies groups and roles."""
        endpoint = self._require_metadata().userinfo_endpoint
        if not endpoint:
            return claims
        response = yield from userinfo_request(endpoint, session.access_token)
        info = yield from self.read_userinfo(response, session, claims["sub"])
        from_userinfo = {self.settings.groups_claim, "roles"}
        other = {
            name: value
            for name, value in claims.items()
            if value is not None and name not in from_userinfo
        }
        return {**info, **other}


def _group_roles(groups: Any) -> Iterator[str]:
    for group in objects_in(groups):
        name = string_at(group, "groupId")
        if name and name != UNGROUPED:  # would look like a role without a group
            yield from (f"{name}:{role}" for role in strings_in(group.get("roles")))


def _ungrouped_roles(roles: Any) -> Iterator[str]:
    yield from (f"{UNGROUPED}:{role}" for role in strings_in(roles))
