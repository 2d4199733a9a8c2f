"""Google: OIDC with fixed endpoints, and groups from the directory of a Workspace.

oauth2-proxy takes the ID token as it comes; here its signature is checked like any
other's. A verified address is demanded, unless the settings say otherwise.
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
    """With a service account, the groups are those of the directory."""

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        clock: Callable[[], float],
        leeway: float = 30.0,
        extra_claims: tuple[str, ...] = (),
    ) -> None:
        google = settings.google
        asks = bool(google.credentials or google.metadata_server)
        self._directory = Directory(google, clock) if asks else None
        super().__init__(
            settings, clock=clock, leeway=leeway, extra_claims=extra_claims
        )

    @property
    def is_ready(self) -> bool:
        """Whether keys are there, and the directory has let itself be asked once."""
        return super().is_ready and (
            self._directory is None or self._directory.is_reached
        )

    def adopt_cache(self, previous: Provider) -> None:
        """Take over keys, and the directory if it is asked in the same way."""
        super().adopt_cache(previous)
        same = previous.settings.google == self.settings.google
        if isinstance(previous, Google) and same:
            self._directory = previous._directory

    def prepare(self) -> Flow[None]:
        """Fetch keys, and see that the directory lets itself be asked."""
        yield from super().prepare()
        if self._directory is not None:
            yield from self._directory.access_token()

    def allowed_groups(self) -> tuple[str, ...]:
        """The groups of Google's own option, else the general ones."""
        return self.settings.google.groups or super().allowed_groups()

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """None: only the directory names groups."""
        return ()

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """*claims* as they are; an address that is not verified is no address."""
        yield from ()
        verified = claim_bool(claims.get("email_verified"))
        if not verified and not self.settings.allow_unverified_email:
            raise email_unverified_error()
        return claims

    def enrich(self, session: Session) -> Flow[Session]:
        """*session* with groups and organisation id of the directory."""
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
