"""Azure AD, as oauth2-proxy's ``azure`` provider; `EntraId` is the successor.

The verified ID token identifies the user; if it has no email address, Microsoft Graph
supplies it. oauth2-proxy also reads access tokens, whose audience is another service.
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
from .graph import fetch_email, fetch_groups

LOGIN_URL = "https://login.microsoftonline.com"


class Azure(Provider):
    """Azure AD endpoints of version 1 or 2, with or without discovery."""

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
        """URL of the user's profile in Microsoft Graph."""
        return self.settings.profile_url or self.kind.profile_url

    @property
    def _is_version_2(self) -> bool:
        known = self.metadata
        return known is not None and "v2.0" in known.authorization_endpoint

    @property
    def scope(self) -> str:
        """The scope; in version 2 it contains the resource of the access token."""
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
        """Return the ``resource`` parameter of version 1."""
        return dict(self.token_parameters())

    def token_parameters(self) -> list[tuple[str, str]]:
        """Return the ``resource`` parameter of version 1."""
        resource = "" if self._is_version_2 else self.settings.resource
        return [("resource", resource)] if resource else []

    def expected_subject(self, session: Session) -> str:
        """Return the ``sub`` of the ID token: the session has no user."""
        return string_at(unverified_claims(session.id_token), "sub")

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """Return *claims*: the access token may not be valid for userinfo."""
        yield from ()
        return claims

    def enrich(self, session: Session) -> Flow[Session]:
        """Return *session* with email and groups of Graph, without a user."""
        session = yield from super().enrich(session)
        headers = self.api_headers(session)
        email = session.email or (yield from fetch_email(self.profile_url, headers))
        # Groups that Graph returned earlier may be outdated, so they are dropped.
        groups = self.read_groups(unverified_claims(session.id_token))
        if self._is_version_2:
            field = self.settings.azure.graph_group_field or "id"
            fields = ",".join(unique_strings("displayName", "id", field))
            url = url_on_server(self.profile_url, "/v1.0/me/transitiveMemberOf")
            query = f"$count=true&$filter=securityEnabled+eq+true&$select={fields}"
            groups += yield from fetch_groups(f"{url}?{query}", headers, field)
        return msgspec.structs.replace(
            session,
            user="",
            email=email,
            groups=unique_strings(*groups),
            preferred_username="",
        )
