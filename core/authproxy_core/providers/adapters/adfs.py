"""ADFS: scopes that name a resource, and the UPN for users without an e-mail claim."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote_plus

import msgspec

from ...effects import Flow
from ...identity.claims import claim_text, find_claim
from ...oidc.jwt import unverified_claims
from ...session import Session
from ..base import Provider


class Adfs(Provider):
    """Plain OIDC with the habits of ADFS."""

    @property
    def scope(self) -> str:
        """The scope, which begins with the resource when there is one."""
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
        """The state once more encoded: ADFS decodes it once before it sends it back."""
        return {"state": quote_plus(params["state"])}

    def enrich(self, session: Session) -> Flow[Session]:
        """*session* with the UPN where the e-mail claim is missing."""
        session = yield from super().enrich(session)
        if session.email or not session.id_token:
            return session
        upn = claim_text(find_claim(unverified_claims(session.id_token), "upn"))
        return msgspec.structs.replace(session, email=upn)
