"""OpenID Connect provider; other provider types override its hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from ..effects import Flow
from ..errors import KeysUnavailableError, ProviderError, TokenError
from ..identity.claims import (
    claim_bool,
    claim_list,
    claim_sid,
    claim_text,
    find_claim,
    non_null_claims,
    serializable_claims,
)
from ..messages import Response
from ..oidc.jwt import (
    ExpectedClaims,
    check_id_token,
    hash_nonce,
    token_algorithm,
    unverified_claims,
)
from ..oidc.logout_token import LogoutToken, check_logout_token
from ..oidc.protocol import (
    Metadata,
    Tokens,
    discovery_request,
    parse_metadata,
    userinfo_request,
    with_query,
)
from ..oidc.requested import (
    RequestedAuthentication,
    check_authentication,
    requested_authentication,
)
from ..oidc.token_hashes import check_token_hash
from ..oidc.token_types import BEARER_TOKEN, ID_TOKEN, LOGOUT_TOKEN
from ..session import Session
from ..settings.root import ProviderSettings
from .api import (
    email_missing_error,
    email_of,
    email_unverified_error,
    unique_strings,
)
from .authorization import LoginParameters, build_scope, code_challenge
from .endpoints import (
    allowed_algorithms,
    check_algorithm,
    configured_metadata,
    discovery_key,
    fixed_keys,
    logout_url,
    prefers_body,
)
from .jwks import JwksCache
from .token_client import TokenClient
from .userinfo import read_userinfo


class Provider(TokenClient):
    """One identity provider; metadata and keys are caches that `prepare` fills.

    *leeway* is the accepted clock difference in seconds; *extra_claims* are the names
    of further claims that injected headers use.
    """

    is_keycloak = False

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        clock: Callable[[], float],
        leeway: float = 30.0,
        extra_claims: tuple[str, ...] = (),
    ) -> None:
        super().__init__(settings, clock)
        self.id = settings.id
        self.name = settings.name or self.kind.name
        self._leeway = leeway
        self._extra_claims = unique_strings(*extra_claims, *settings.additional_claims)
        self._keys = JwksCache(settings.id, clock, fixed_keys(settings))
        self._allowed_groups = frozenset(self.allowed_groups())
        self._parameters = LoginParameters(settings)
        self.metadata = self._configured_metadata()

    # -- preparation

    @property
    def is_ready(self) -> bool:
        """Return whether metadata and keys are loaded, so that logins can succeed."""
        return self.metadata is not None and self._keys.has_keys

    def prepare(self) -> Flow[None]:
        """Fetch metadata and keys; raises `ProviderError` or `FetchError`."""
        if self.metadata is None:
            response = yield from discovery_request(self.settings.issuer)
            metadata = parse_metadata(response, self._expected_issuer())
            allowed_algorithms(self.settings, metadata)
            self._secret_in_body = self.kind.in_body or prefers_body(metadata)
            self.metadata = metadata
        yield from self._keys.fetch(self.metadata.jwks_uri)

    @property
    def key_set(self) -> JwksCache:
        """The provider's keys."""
        return self._keys

    def require_keys(self) -> Flow[None]:
        """Fetch the keys if there are none; raises `KeysUnavailableError`."""
        yield from self._keys.require_keys(self._require_metadata().jwks_uri)

    def adopt_cache(self, previous: Provider) -> None:
        """Reuse metadata and keys of *previous* if both discover them alike."""
        if discovery_key(previous.settings) == discovery_key(self.settings):
            self.metadata = previous.metadata
            self._secret_in_body = previous._secret_in_body
            self._keys = previous._keys

    def _configured_metadata(self) -> Metadata | None:
        """Return the configured endpoints; None if they are discovered."""
        discovers = self.kind.discovers and not self.settings.skip_discovery
        return None if discovers else configured_metadata(self.settings)

    def _expected_issuer(self) -> str | None:
        skip = self.settings.skip_issuer_verification
        return None if skip else self.settings.issuer or self.kind.issuer

    @property
    def issuers(self) -> frozenset[str]:
        """The configured and the discovered issuer, if there are any."""
        discovered = self.metadata.issuer if self.metadata else ""
        configured = self.settings.issuer or self.kind.issuer
        return frozenset({discovered, configured} - {""})

    # -- authorization request

    @property
    def scope(self) -> str:
        """The ``scope`` parameter; "" omits it."""
        return build_scope(self.settings)

    @property
    def code_challenge_method(self) -> str:
        """The PKCE method, S256 or plain (RFC 7636); "" disables PKCE."""
        configured = self.settings.code_challenge_method
        if configured == "none":
            return ""
        offered = self.metadata and self.metadata.code_challenge_methods_supported
        supported = self.kind.pkce or (offered and "S256" in offered)
        return configured or ("S256" if supported else "")

    def authorization_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        nonce: bytes,
        code_verifier: str,
        requested: Mapping[str, str] = {},
        login_hint: str = "",
    ) -> str:
        """Return the URL of the authorization request (OIDC Core §3.1.2.1).

        *requested* are the form values of the login request; only values that the configured
        parameters allow is taken from it.
        """
        params = {
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "state": state,
        }
        if self.scope:
            params["scope"] = self.scope
        if self.sends_nonce:
            params["nonce"] = hash_nonce(nonce).decode()
        if self.settings.response_mode:
            params["response_mode"] = self.settings.response_mode
        if code_verifier:
            method = self.code_challenge_method
            params["code_challenge_method"] = method
            params["code_challenge"] = code_challenge(code_verifier, method)
        if login_hint:
            params["login_hint"] = login_hint
        params |= self.extra_authorization_parameters(params)
        pairs = list(params.items()) + [
            (name, value)
            for name, value in self._parameters.pairs(requested)
            if name not in params
        ]
        return with_query(
            self._require_metadata().authorization_endpoint, sorted(pairs)
        )

    def requested_authentication(
        self, requested: Mapping[str, str] | None = None
    ) -> RequestedAuthentication:
        """Return what the ID token must show about the user's authentication.

        *requested* are the form values of the login request. None is a login whose
        request is unknown: only the parameters that it could not set count, without
        prompt.
        """
        if requested is None:
            return requested_authentication(self._parameters.fixed_pairs(), 0.0)
        return requested_authentication(
            self._parameters.pairs(requested), self._clock()
        )

    @property
    def sends_nonce(self) -> bool:
        """Return whether a nonce binds the ID token to its login."""
        return not self.settings.skip_nonce

    def extra_authorization_parameters(
        self, params: Mapping[str, str]
    ) -> dict[str, str]:
        """Return parameters that this provider type adds to *params*, or overrides."""
        return {}

    # -- session from tokens

    def create_session(
        self,
        tokens: Tokens,
        nonce: bytes,
        *,
        nonce_optional: bool = False,
        requested: RequestedAuthentication | None = None,
    ) -> Flow[Session]:
        """Return the session of a new login; raises `TokenError` or `ProviderError`.

        *nonce* is the raw nonce of the login. With *nonce_optional* an ID token
        without a nonce is accepted; one with a different nonce is not. *requested* is
        the result of `requested_authentication` at the start of the login.
        """
        if not tokens.id_token:
            raise ProviderError(
                "the token response has no id_token",
                reason="no_id_token",
                hint="the scope must contain openid",
            )
        sent = nonce if self.sends_nonce else None
        claims = yield from self._verify_id_token(tokens, sent, nonce_optional)
        now = self._clock()
        requested = requested or self.requested_authentication()
        check_authentication(claims, requested, self._leeway, now)
        session = Session(
            provider=self.id,
            created_at=now,
            login_at=now,
            expires_at=now + tokens.expires_in if tokens.expires_in else 0.0,
            access_token=tokens.access_token,
            id_token=tokens.id_token,
            refresh_token=tokens.refresh_token,
            nonce=nonce,
        )
        complete = yield from self._add_userinfo(session, claims)
        session = self.with_claims(session, complete)
        session = yield from self.enrich(session)
        self._check_email(session)
        return session

    def _check_email(self, session: Session) -> None:
        if not session.email:
            raise email_missing_error(self.settings.email_claim)

    def _verify_id_token(
        self,
        tokens: Tokens,
        nonce: bytes | None,
        nonce_optional: bool = False,
        parties: tuple[str, ...] | None = None,
    ) -> Flow[dict[str, Any]]:
        """Return the claims of the verified ID token.

        *parties* are the accepted authorized parties if the token is a bearer JWT.
        """
        metadata = self._require_metadata()
        claims = yield from self._keys.verify(
            tokens.id_token,
            metadata.jwks_uri,
            allowed_algorithms(self.settings, metadata),
            ID_TOKEN if parties is None else BEARER_TOKEN,
            from_provider=parties is None,
        )
        expected = self._expected_claims(nonce, nonce_optional, parties or ())
        check_id_token(claims, expected, self._clock())
        check_token_hash(tokens.id_token, claims, "at_hash", tokens.access_token)
        check_token_hash(tokens.id_token, claims, "c_hash", tokens.code)
        return claims

    def _expected_claims(
        self, nonce: bytes | None, nonce_optional: bool, parties: tuple[str, ...]
    ) -> ExpectedClaims:
        return ExpectedClaims(
            issuer=self._expected_issuer(),
            client_id=self.settings.client_id,
            audience_claims=self.settings.audience_claims,
            extra_audiences=self.settings.extra_audiences,
            authorized_parties=parties,
            leeway=self._leeway,
            nonce=nonce,
            nonce_optional=nonce_optional,
            keycloak=self.is_keycloak,
        )

    def with_claims(self, session: Session, claims: Mapping[str, Any]) -> Session:
        """Return *session* with user, email, groups and extra claims from *claims*."""
        claims = serializable_claims(claims)
        self._check_email_verified(claims)
        extra = {name: find_claim(claims, name) for name in self._extra_claims}
        return replace(
            session,
            user=claim_text(claims.get("sub")),
            email=email_of(claims, self.settings.email_claim),
            groups=self.read_groups(claims),
            preferred_username=claim_text(claims.get("preferred_username")),
            sid=claim_sid(claims) or session.sid,
            claims={name: value for name, value in extra.items() if value is not None},
        )

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the groups in *claims*; the keys of an object are ignored."""
        return claim_list(find_claim(claims, self.settings.groups_claim))

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """Return ID token *claims*, completed by userinfo if a needed one is missing."""
        needed = {
            self.settings.email_claim,
            self.settings.groups_claim,
            "preferred_username",
            *self._extra_claims,
        }
        if self._checks_email_verified:
            needed.add("email_verified")
        endpoint = self._require_metadata().userinfo_endpoint
        missing = sorted(one for one in needed if find_claim(claims, one) is None)
        if not missing or not endpoint or self.settings.skip_claims_from_profile_url:
            return claims
        response = yield from userinfo_request(endpoint, session.access_token)
        try:
            info = yield from self.read_userinfo(response, session, claims["sub"])
        except ProviderError as error:
            if error.reason == "userinfo_failed":
                error.hint = f"the ID token lacks {', '.join(missing)}; {error.hint}"
            raise
        return {**info, **non_null_claims(claims)}

    def read_userinfo(
        self, response: Response, session: Session, subject: str
    ) -> Flow[dict[str, Any]]:
        """Return the claims of a userinfo response; see `userinfo.read_userinfo`."""
        return read_userinfo(
            response,
            self._keys,
            self._require_metadata().jwks_uri,
            self.settings.signing_algs,
            self._expected_claims(None, False, ()),
            subject=subject,
            access_token=session.access_token,
            now=self._clock(),
        )

    @property
    def _checks_email_verified(self) -> bool:
        is_standard = self.settings.email_claim == "email"
        return is_standard and not self.settings.allow_unverified_email

    def _check_email_verified(self, claims: Mapping[str, Any]) -> None:
        verified = claims.get("email_verified")
        if not self._checks_email_verified or verified is None:
            return
        if not claim_bool(verified):
            raise email_unverified_error()

    def enrich(self, session: Session) -> Flow[Session]:
        """Add data of other endpoints; runs after login and after refresh."""
        yield from ()  # overrides may need effects
        return session

    def enrich_bearer(self, session: Session) -> Session:
        """Return the *session* of a bearer JWT with further data from the token."""
        return session

    # -- refresh

    def refresh(self, session: Session) -> Flow[Tokens]:
        """Request new tokens with the refresh token (RFC 6749 §6).

        Raises `ProviderError` with the reason ``invalid_grant`` if the refresh token
        is used, revoked or expired.
        """
        grant, token = ("grant_type", "refresh_token"), session.refresh_token
        return (yield from self._request_tokens([grant, ("refresh_token", token)]))

    def apply_refresh(self, session: Session, tokens: Tokens) -> Flow[Session]:
        """Return *session* with new *tokens* and their claims (OIDC Core §12).

        Raises `TokenError` if the new ID token is invalid or of another user.
        """
        now = self._clock()
        refreshed = replace(
            session,
            created_at=now,
            expires_at=now + tokens.expires_in if tokens.expires_in else 0.0,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or session.refresh_token,
        )
        if tokens.id_token:
            known = {token_algorithm(session.id_token)} - {""}
            check_algorithm(tokens.id_token, self.settings, known)
            claims = yield from self._verify_id_token(tokens, None)
            if claims["sub"] != self.expected_subject(session):
                raise TokenError(
                    "the refreshed ID token is of another user", reason="subject"
                )
            refreshed = replace(refreshed, id_token=tokens.id_token)
            complete = yield from self._add_userinfo(refreshed, claims)
            refreshed = self.with_claims(refreshed, complete)
        refreshed = yield from self.enrich(refreshed)
        self._check_email(refreshed)
        yield from self._validate_access_token(refreshed)
        return refreshed

    def expected_subject(self, session: Session) -> str:
        """Return the ``sub`` that refreshed ID tokens of *session* must have."""
        return session.user

    # -- authorization

    def allowed_groups(self) -> tuple[str, ...]:
        """Return the groups of which a session needs one; () allows all users."""
        is_keycloak = self.settings.type == "keycloak"
        groups = self.settings.keycloak_groups if is_keycloak else ()
        return groups or self.settings.allowed_groups

    def missing_roles(self, session: Session) -> str:
        """Return why *session* has no roles, for the log; "" if it should have none."""
        return ""

    def is_authorized(self, session: Session) -> bool:
        """Return whether the session has an allowed group, or none are configured."""
        allowed = self._allowed_groups
        return not allowed or not allowed.isdisjoint(session.groups)

    # -- logout

    def verify_logout_token(self, token: str) -> Flow[LogoutToken]:
        """Validate a logout token and verify its signature (Back-Channel Logout §2.6).

        The claims come first, so that a malformed token causes no key fetch. The caller
        checks the algorithm. Raises `TokenError`, or `KeysUnavailableError` if metadata or keys are not loaded.
        """
        metadata = self.metadata
        if metadata is None:
            raise KeysUnavailableError("the provider's metadata is not loaded yet")
        expected = replace(
            self._expected_claims(None, False, ()), audience_claims=("aud",)
        )
        found = check_logout_token(unverified_claims(token), expected, self._clock())
        yield from self._keys.verify(
            token,
            metadata.jwks_uri,
            allowed_algorithms(self.settings, metadata),
            LOGOUT_TOKEN,
        )
        return found

    def end_session_url(self, id_token: str, return_to: str) -> str:
        """Return the URL of RP-initiated logout; "" without such an endpoint."""
        endpoint = self.metadata.end_session_endpoint if self.metadata else ""
        return logout_url(endpoint, self.settings.client_id, id_token, return_to)
