"""OAuth 2.0 without ID tokens: the provider's own endpoints say who it is.

The login is bound to the browser by state, and by PKCE where the provider knows it.
There is nothing to refresh with: a session lives on as long as the provider still
answers to its access token, and what it says then is what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from ...effects import Fetch, Flow
from ...oidc.protocol import Tokens
from ...session import Session
from ...settings.root import ProviderSettings
from ..api import fetch_json
from ..base import Provider


class ProfileProvider(Provider):
    """A provider that *read* knows how to ask about the user of an access token."""

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
        """Always: nothing has to be fetched before a login."""
        return True

    def prepare(self) -> Flow[None]:
        """Nothing to do."""
        yield from ()

    @property
    def sends_nonce(self) -> bool:
        """Never: no ID token would bring it back."""
        return False

    def token_parameters(self) -> list[tuple[str, str]]:
        """The resource, where one is configured."""
        resource = self.settings.resource
        return [("resource", resource)] if resource else []

    @property
    def profile_url(self) -> str:
        """Where the user's profile is, if the type has one."""
        return self.settings.profile_url or self.kind.profile_url

    @property
    def validate_url(self) -> str:
        """What is asked whether an access token is good."""
        return self.settings.validate_url or self.kind.validate_url

    def create_session(
        self, tokens: Tokens, nonce: bytes, *, nonce_optional: bool = False
    ) -> Flow[Session]:
        """The session of a fresh login; raises `TokenError` or `ProviderError`."""
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
        """The access token as it is: there is no refresh token."""
        yield from ()
        return Tokens(session.access_token)

    def apply_refresh(self, session: Session, tokens: Tokens) -> Flow[Session]:
        """*session* with what the provider says of its user now.

        Raises `TokenError` when it does not take the access token any more.
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
        # Reading a profile from that address has shown already that the token is good.
        if self.validate_url != self.profile_url:
            yield from self._validate_access_token(session)
        return session

    def fetch(
        self, session: Session, url: str, what: str, purpose: str = "profile"
    ) -> Flow[Any]:
        """The JSON at *url*, asked with the session's access token; see `ask`."""
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
    """*session* with who it is."""
    return msgspec.structs.replace(
        session,
        user=user,
        email=email,
        groups=groups,
        preferred_username=preferred_username,
    )
