"""ADFS: resource in the scope, and the UPN for users without an email claim."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote_plus

import msgspec

from ...effects import Flow
from ...oidc.jwt import unverified_claims
from ...session import Session
from ..api import email_of
from ..base import Provider


class Adfs(Provider):
    """OIDC with ADFS's scope, state and UPN."""

    @property
    def scope(self) -> str:
        """The scope, prefixed by the resource if one is configured."""
        if self.settings.skip_scope:
            return ""
        scope, resource = super().scope, self.settings.resource
        if not resource:
            return scope
        prefix = resource if resource.endswith("/") else f"{resource}/"
        return scope if scope.startswith(prefix) else f"{prefix}{scope}"

    def extra_authorization_parameters(
        self, params: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the state encoded twice: ADFS decodes it before returning it."""
        return {"state": quote_plus(params["state"])}

    def enrich(self, session: Session) -> Flow[Session]:
        """Return *session* with the UPN as email if the email claim is missing."""
        session = yield from super().enrich(session)
        if session.email or not session.id_token:
            return session
        upn = email_of(unverified_claims(session.id_token), "upn")
        return msgspec.structs.replace(session, email=upn)
