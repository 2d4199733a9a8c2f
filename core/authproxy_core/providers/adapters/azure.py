"""Azure AD as oauth2-proxy's old provider spoke to it; Entra ID is its successor.

Who it is, the verified ID token says, and where that has no address, Graph does.
oauth2-proxy also took access tokens for that; they are not meant for this client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...effects import Flow
from ...oidc.jwt import unverified_claims
from ...oidc.protocol import Metadata
from ...session import Session
from ..api import string_at, unique_strings, url_on_server
from ..base import Provider
from ..endpoints import configured_metadata
from .graph import address, member_of

LOGIN_URL = "https://login.microsoftonline.com"


class Azure(Provider):
    """Without discovery, version 1 or 2 of the endpoints of a tenant."""

    def _configured_metadata(self) -> Metadata | None:
        if not self.settings.skip_discovery:
            return None
        found = configured_metadata(self.settings)
        tenant = f"{LOGIN_URL}/{self.settings.azure.tenant or 'common'}/oauth2"
        return msgspec.structs.replace(
            found,
            authorization_endpoint=found.authorization_endpoint
            or f"{tenant}/authorize",
            token_endpoint=found.token_endpoint or f"{tenant}/token",
        )

    @property
    def profile_url(self) -> str:
        """The user's profile in Graph."""
        return self.settings.profile_url or self.kind.profile_url

    @property
    def _is_version_2(self) -> bool:
        known = self.metadata
        return known is not None and "v2.0" in known.authorization_endpoint

    @property
    def scope(self) -> str:
        """The scope; version 2 names what the access token is for in it."""
        scopes = super().scope.split()
        if not self._is_version_2:
            return " ".join(scopes)
        default = url_on_server(self.profile_url, "/.default")
        return " ".join(
            unique_strings(*(one for one in scopes if one != "groups"), default)
        )

    def extra_authorization_parameters(
        self, params: Mapping[str, str]
    ) -> dict[str, str]:
        """What the access token is for, in version 1."""
        return dict(self.token_parameters())

    def token_parameters(self) -> list[tuple[str, str]]:
        """The same for the token endpoint."""
        resource = "" if self._is_version_2 else self.settings.resource
        return [("resource", resource)] if resource else []

    def expected_subject(self, session: Session) -> str:
        """That of the ID token: the session has no user."""
        return string_at(unverified_claims(session.id_token), "sub")

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """*claims* as they are: the access token need not be for userinfo."""
        yield from ()
        return claims

    def enrich(self, session: Session) -> Flow[Session]:
        """*session* with the address and groups of Graph; no user, as ever."""
        session = yield from super().enrich(session)
        headers = self.api_headers(session)
        email = session.email or (yield from address(self.profile_url, headers))
        # What Graph said before, and the session still has, may be true no more.
        groups = self.read_groups(unverified_claims(session.id_token))
        if self._is_version_2:
            field = self.settings.azure.graph_group_field or "id"
            fields = ",".join(unique_strings("displayName", "id", field))
            url = url_on_server(self.profile_url, "/v1.0/me/transitiveMemberOf")
            query = f"$count=true&$filter=securityEnabled+eq+true&$select={fields}"
            groups += yield from member_of(f"{url}?{query}", headers, field)
        return msgspec.structs.replace(
            session,
            user="",
            email=email,
            groups=unique_strings(*groups),
            preferred_username="",
        )
