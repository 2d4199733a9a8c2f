"""Google: OIDC with fixed endpoints, and groups from the Workspace directory.

oauth2-proxy does not verify the ID token's signature; authproxy does. The email
address must be verified unless insecure_oidc_allow_unverified_email is set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ...effects import Flow
from ...identity.claims import claim_bool
from ...session import Session
from ...settings.root import ProviderSettings
from ..api import email_unverified_error, unique_strings
from ..base import Provider
from .google_directory import Directory


class Google(Provider):
    """OIDC with groups from the directory if a service account is configured."""

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        clock: Callable[[], float],
        leeway: float = 30.0,
        extra_claims: tuple[str, ...] = (),
    ) -> None:
        google = settings.google
        has_account = bool(google.credentials or google.metadata_server)
        self._directory = Directory(google, clock) if has_account else None
        super().__init__(
            settings, clock=clock, leeway=leeway, extra_claims=extra_claims
        )

    @property
    def is_ready(self) -> bool:
        """Return whether keys are loaded and the directory has granted a token."""
        return super().is_ready and (
            self._directory is None or self._directory.is_reached
        )

    def adopt_cache(self, previous: Provider) -> None:
        """Reuse keys of *previous*, and its directory if the settings are equal."""
        super().adopt_cache(previous)
        same = previous.settings.google == self.settings.google
        if isinstance(previous, Google) and same:
            self._directory = previous._directory

    def prepare(self) -> Flow[None]:
        """Fetch keys and, with a service account, a token for the directory."""
        yield from super().prepare()
        if self._directory is not None:
            yield from self._directory.access_token()

    def allowed_groups(self) -> tuple[str, ...]:
        """Return google_groups, else the general allowed groups."""
        return self.settings.google.groups or super().allowed_groups()

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return no groups: they come from the directory only."""
        return ()

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """Return *claims* if the email address is verified; never fetches userinfo."""
        yield from ()
        verified = claim_bool(claims.get("email_verified"))
        if not verified and not self.settings.allow_unverified_email:
            raise email_unverified_error()
        return claims

    def enrich(self, session: Session) -> Flow[Session]:
        """Return *session* with groups and organization ID from the directory."""
        session = yield from super().enrich(session)
        directory = self._directory
        groups: tuple[str, ...] = ()
        preferred_username = ""
        if directory is not None and session.email:
            groups = yield from directory.read_groups(session.email)
            if self.settings.google.use_organization_id:
                preferred_username = yield from directory.organization_id(session.email)
        return msgspec.structs.replace(
            session,
            groups=unique_strings(*groups),
            preferred_username=preferred_username,
        )
