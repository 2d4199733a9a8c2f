"""login.gov: a signed client assertion, and the email address from userinfo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from ...effects import Fetch, Flow
from ...encoding import b64url
from ...errors import ProviderError, SettingsError, TokenError
from ...identity.claims import claim_bool
from ...oidc.jwt import unverified_claims
from ...oidc.protocol import (
    Metadata,
    Tokens,
    assertion_request,
    userinfo_request,
)
from ...session import Session
from ...settings.root import ProviderSettings
from ..api import email_unverified_error, status_error, string_at, url_on_server
from ..base import Provider
from ..endpoints import configured_metadata
from .assertion import SigningKey, load_signing_key

ASSERTION_LIFETIME = 300.0  # seconds
DEFAULT_ACR = "http://idmanagement.gov/ns/assurance/loa/1"


class LoginGov(Provider):
    """OIDC with a client assertion; without refresh tokens, userinfo is polled."""

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        clock: Callable[[], float],
        leeway: float = 30.0,
        extra_claims: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            settings, clock=clock, leeway=leeway, extra_claims=extra_claims
        )
        self._key = _load_key(settings)

    def _configured_metadata(self) -> Metadata | None:
        found = configured_metadata(self.settings)
        own = self.settings.login_gov.pubjwk_url
        issuer = self.settings.issuer or url_on_server(
            found.authorization_endpoint, "/"
        )
        return msgspec.structs.replace(
            found, issuer=issuer, jwks_uri=own or found.jwks_uri
        )

    def _expected_issuer(self) -> str | None:
        skip = self.settings.skip_issuer_verification
        return None if skip else self._require_metadata().issuer

    def extra_authorization_parameters(
        self, params: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the default ``acr_values`` unless they are configured."""
        configured = {parameter.name for parameter in self.settings.login_parameters}
        return {} if "acr_values" in configured else {"acr_values": DEFAULT_ACR}

    def _token_request(
        self, params: list[tuple[str, str]], *, in_body: bool
    ) -> Flow[Fetch]:
        yield from ()
        endpoint = self._require_metadata().token_endpoint
        now = int(self._clock())
        claims = {
            "iss": self.settings.client_id,
            "sub": self.settings.client_id,
            "aud": [endpoint],
            # Unique because every code is used once.
            "jti": b64url(hashlib.sha256(urlencode(params).encode()).digest()).decode(),
            "exp": now + int(ASSERTION_LIFETIME),
        }
        params = [pair for pair in params if pair[0] != "redirect_uri"]
        return assertion_request(endpoint, params, self._key.sign(claims))

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """Return *claims*: `enrich` fetches userinfo."""
        yield from ()
        return claims

    def enrich(self, session: Session) -> Flow[Session]:
        """Return *session* with the verified email of userinfo, without a user."""
        session = yield from super().enrich(session)
        email = yield from self._fetch_email(session)
        return msgspec.structs.replace(
            session, user="", email=email, groups=(), preferred_username=""
        )

    def _fetch_email(self, session: Session) -> Flow[str]:
        endpoint = self._require_metadata().userinfo_endpoint
        response = yield from userinfo_request(endpoint, session.access_token)
        if response.status != 200:
            raise status_error(response, "userinfo", "userinfo")
        subject = string_at(unverified_claims(session.id_token), "sub")
        info = yield from self.read_userinfo(response, session, subject)
        verified = claim_bool(info.get("email_verified"))
        if not verified and not self.settings.allow_unverified_email:
            raise email_unverified_error()
        return string_at(info, "email")

    def refresh(self, session: Session) -> Flow[Tokens]:
        """Return the same access token: there is no refresh token."""
        yield from ()
        return Tokens(session.access_token)

    def apply_refresh(self, session: Session, tokens: Tokens) -> Flow[Session]:
        """Return *session* if userinfo still accepts its access token."""
        if not session.id_token:
            raise TokenError("the session has no ID token", reason="validation")
        email = yield from self._fetch_email(session)
        if email != session.email:
            raise ProviderError(
                "the email address of the user has changed", reason="userinfo_subject"
            )
        return msgspec.structs.replace(session, created_at=self._clock())


def _load_key(settings: ProviderSettings) -> SigningKey:
    try:
        return load_signing_key(settings.login_gov.jwt_key.value)
    except ValueError:
        raise SettingsError(
            ("jwt_key: expected a private RSA key of at least 2048 bits in PEM",)
        ) from None
