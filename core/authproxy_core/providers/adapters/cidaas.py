"""cidaas: groups and roles stand in userinfo, in a form of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...effects import Flow
from ...identity.claims import find_claim
from ...oidc.protocol import parse_userinfo, userinfo_request
from ...session import Session
from ..api import objects_in, string_at, strings_in, unique_strings
from ..base import Provider

UNGROUPED = "cidaas"  # what the roles outside of groups are put below


class Cidaas(Provider):
    """Groups are ``GROUP:ROLE`` and ``cidaas:ROLE``."""

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The roles in groups, and those outside of them."""
        groups = find_claim(claims, self.settings.groups_claim)
        return unique_strings(
            *_group_roles(groups), *_ungrouped_roles(claims.get("roles"))
        )

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """*claims* below which are userinfo's; groups and roles are always userinfo's."""
        endpoint = self._require_metadata().userinfo_endpoint
        if not endpoint:
            return claims
        response = yield from userinfo_request(endpoint, session.access_token)
        info = parse_userinfo(response, claims["sub"])
        own = {self.settings.groups_claim, "roles"}
        kept = {
            name: value
            for name, value in claims.items()
            if value is not None and name not in own
        }
        return {**info, **kept}


def _group_roles(groups: Any) -> Iterator[str]:
    for group in objects_in(groups):
        name = string_at(group, "groupId")
        if name and name != UNGROUPED:  # it would pass for a role outside of groups
            yield from (f"{name}:{role}" for role in strings_in(group.get("roles")))


def _ungrouped_roles(roles: Any) -> Iterator[str]:
    yield from (f"{UNGROUPED}:{role}" for role in strings_in(roles))
