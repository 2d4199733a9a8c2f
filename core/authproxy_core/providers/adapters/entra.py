"""Microsoft Entra ID: allowed tenants, group overage, workload identity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ...effects import Fetch, Flow, Offload
from ...errors import ProviderError, TokenError
from ...oidc.jwt import unverified_claims
from ...oidc.protocol import Tokens, assertion_request
from ...session import Session
from ..api import unique_strings
from ..base import Provider
from .graph import GRAPH, fetch_groups

PUBLIC_ISSUER = re.compile(r"https://login\.microsoftonline\.com/([^/]+)/v2\.0")
# Issuers of national clouds, external tenants, and tokens of version 1.
TENANT_ISSUER = re.compile(r"https://[^/]+/([^/]+)(?:/v2\.0)?/?")
OVERAGE_URL = f"{GRAPH}/v1.0/me/transitiveMemberOf?$select=id&$top=100"


class EntraId(Provider):
    """OIDC restricted to the allowed tenants."""

    def _verify_id_token(
        self,
        tokens: Tokens,
        nonce: bytes | None,
        nonce_optional: bool = False,
        parties: tuple[str, ...] | None = None,
    ) -> Flow[dict[str, Any]]:
        claims = yield from super()._verify_id_token(
            tokens, nonce, nonce_optional, parties
        )
        tenant, allowed = _tenant(claims), self.settings.entra_id.allowed_tenants
        if not tenant or (allowed and tenant not in allowed):
            raise TokenError("the tenant of the token is not allowed", reason="tenant")
        return claims

    def enrich(self, session: Session) -> Flow[Session]:
        """Return *session* with groups of Graph if the token could not hold them all.

        Raises `ProviderError` if Graph denies the request, because the application
        lacks the permission: incomplete groups would be wrong in rules and headers.
        """
        session = yield from super().enrich(session)
        if not session.id_token or not _has_overage(
            unverified_claims(session.id_token)
        ):
            return session
        try:
            groups = yield from fetch_groups(OVERAGE_URL, self.api_headers(session))
        except TokenError as error:
            raise ProviderError(
                str(error),
                reason="groups_failed",
                hint="the user is in more groups than a token can hold; grant the "
                "application the permission GroupMember.Read.All, or emit only assigned "
                "groups in tokens",
            ) from None
        return msgspec.structs.replace(
            session,
            groups=unique_strings(
                *self.read_groups(unverified_claims(session.id_token)), *groups
            ),
        )

    def _token_request(
        self, params: list[tuple[str, str]], *, in_body: bool
    ) -> Flow[Fetch]:
        read = self.settings.entra_id.federated_token
        if read is None:
            return (yield from super()._token_request(params, in_body=in_body))
        try:
            assertion: bytes = yield from Offload(read)
        except OSError:
            raise ProviderError(
                "the file with the federated token can't be read",
                reason="federated_token",
                hint="check AZURE_FEDERATED_TOKEN_FILE",
            ) from None
        return assertion_request(
            self._require_metadata().token_endpoint,
            [*params, ("client_id", self.settings.client_id)],
            assertion.decode("utf-8", "replace").strip(),
        )


def _tenant(claims: Mapping[str, Any]) -> str:
    """Return the tenant in ``tid``, else in an issuer of the public cloud, else "".

    Raises `TokenError` if ``tid`` and the issuer name different tenants.
    """
    tenant, issuer = claims.get("tid"), claims["iss"]
    if not isinstance(tenant, str) or not tenant:
        public = PUBLIC_ISSUER.fullmatch(issuer)
        return public.group(1) if public else ""
    found = TENANT_ISSUER.fullmatch(issuer)
    if found is not None and found.group(1) != tenant:
        raise TokenError(
            "the claims tid and iss of the token name different tenants",
            reason="tenant",
        )
    return tenant


def _has_overage(claims: dict[str, Any]) -> bool:
    """Return whether the token refers to Graph for the groups (OIDC Core §5.6.2)."""
    names = claims.get("_claim_names")
    return isinstance(names, dict) and "groups" in names
