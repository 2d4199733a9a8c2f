"""OAuth 2.0 without ID tokens: an API of the provider identifies the user.

The state binds the login to the browser, and PKCE if the provider supports it. There
are no refresh tokens: a refresh reads the profile again with the access token, and
the session ends when the provider rejects it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from ...effects import Fetch, Flow
from ...oidc.protocol import Tokens
from ...oidc.requested import RequestedAuthentication
from ...session import Session
from ...settings.root import ProviderSettings
from ..api import fetch_json
from ..base import Provider


class ProfileProvider(Provider):
    """A provider whose function *read* fetches the user of an access token."""

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        read: Reader,
        clock: Callable[[], float],
        leeway: float = 30.0,
    ) -> None:
        super().__init__(settings, clock=clock, leeway=leeway)
        self._read = read

    @property
    def is_ready(self) -> bool:
        """Return True: nothing is fetched before a login."""
        return True

    def prepare(self) -> Flow[None]:
        """Do nothing: there are no metadata and keys."""
        yield from ()

    def require_keys(self) -> Flow[None]:
        """Do nothing: there are no ID tokens."""
        yield from ()

    @property
    def sends_nonce(self) -> bool:
        """Return False: there is no ID token to contain it."""
        return False

    def token_parameters(self) -> list[tuple[str, str]]:
        """Return the ``resource`` parameter, if configured."""
        resource = self.settings.resource
        return [("resource", resource)] if resource else []

    @property
    def profile_url(self) -> str:
        """URL of the user's profile; "" if the provider type has none."""
        return self.settings.profile_url or self.kind.profile_url

    @property
    def validate_url(self) -> str:
        """URL that validates an access token."""
        return self.settings.validate_url or self.kind.validate_url

    def create_session(
        self,
        tokens: Tokens,
        nonce: bytes,
        *,
        nonce_optional: bool = False,
        requested: RequestedAuthentication | None = None,
    ) -> Flow[Session]:
        """Return the session of a new login; raises `TokenError` or `ProviderError`."""
        now = self._clock()
        session = Session(
            provider=self.id,
            created_at=now,
            login_at=now,
            access_token=tokens.access_token,
            nonce=nonce,
        )
        return (yield from self._load_user(session))

    def refresh(self, session: Session) -> Flow[Tokens]:
        """Return the same access token: there is no refresh token."""
        yield from ()
        return Tokens(session.access_token)

    def apply_refresh(self, session: Session, tokens: Tokens) -> Flow[Session]:
        """Return *session* with the user's current profile.

        Raises `TokenError` if the provider rejects the access token.
        """
        fresh = Session(
            provider=session.provider,
            created_at=self._clock(),
            login_at=session.login_at,
            access_token=tokens.access_token,
            nonce=session.nonce,
        )
        return (yield from self._load_user(fresh))

    def _load_user(self, session: Session) -> Flow[Session]:
        session = yield from self._read(self, session)
        self._check_email(session)
        # A profile fetched from validate_url has already validated the token.
        if self.validate_url != self.profile_url:
            yield from self._validate_access_token(session)
        return session

    def fetch(
        self, session: Session, url: str, what: str, purpose: str = "profile"
    ) -> Flow[Any]:
        """Return the JSON document at *url*; see `fetch_json` for errors."""
        headers = self.api_headers(session)
        return (
            yield from fetch_json(Fetch("GET", url, headers, purpose=purpose), what)
        )


Reader: TypeAlias = Callable[[ProfileProvider, Session], Flow[Session]]


def with_identity(
    session: Session,
    *,
    email: str,
    user: str = "",
    groups: tuple[str, ...] = (),
    preferred_username: str = "",
) -> Session:
    """Return *session* with user, email, groups and preferred username set."""
    return msgspec.structs.replace(
        session,
        user=user,
        email=email,
        groups=groups,
        preferred_username=preferred_username,
    )
