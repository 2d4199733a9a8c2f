"""Plain OpenID Connect, and the hooks by which a provider differs from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from ..effects import Fetch, Flow
from ..encoding import header_text
from ..errors import ProviderError, TokenError
from ..identity.claims import (
    claim_bool,
    claim_list,
    claim_sid,
    claim_text,
    find_claim,
    non_null_claims,
    serializable_claims,
)
from ..messages import Headers
from ..oidc.jwt import (
    NON_BEARER_TYPES,
    NON_ID_TOKEN_TYPES,
    ExpectedClaims,
    check_access_token_hash,
    check_id_token,
    hash_nonce,
    unverified_claims,
)
from ..oidc.logout_token import REJECTED_TYPES, LogoutToken, check_logout_token
from ..oidc.protocol import (
    Metadata,
    Tokens,
    discovery_request,
    parse_metadata,
    parse_tokens,
    parse_userinfo,
    token_request,
    userinfo_request,
    with_query,
)
from ..session import Session
from ..settings.provider_types import PROVIDER_TYPES
from ..settings.root import ProviderSettings
from .api import email_unverified_error, status_error, unique_strings
from .authorization import LoginParameters, build_scope, code_challenge
from .endpoints import (
    allowed_algorithms,
    configured_metadata,
    discovery_key,
    fixed_keys,
    logout_url,
    prefers_body,
)
from .jwks import JwksCache


class Provider:
    """One identity provider as this client sees it.

    Metadata and keys are caches, filled by `prepare`. ``extra_claims`` are the names of
    further claims that headers ask for.
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
        self.settings = settings
        self.kind = PROVIDER_TYPES[settings.type]
        self.id = settings.id
        self.name = settings.name or self.kind.name
        self._clock = clock
        self._leeway = leeway
        self._extra_claims = unique_strings(*extra_claims, *settings.additional_claims)
        self._keys = JwksCache(settings.id, clock, fixed_keys(settings))
        self._allowed_groups = frozenset(self.allowed_groups())
        self._parameters = LoginParameters(settings)
        self.metadata = self._configured_metadata()
        self._secret_in_body = self.kind.in_body

    # -- getting ready

    @property
    def is_ready(self) -> bool:
        """Whether metadata and keys are there, so that logins can succeed."""
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

    def adopt_cache(self, previous: Provider) -> None:
        """Take over metadata and keys of *previous* if they are found in the same way."""
        if discovery_key(previous.settings) == discovery_key(self.settings):
            self.metadata = previous.metadata
            self._secret_in_body = previous._secret_in_body
            self._keys = previous._keys

    def _configured_metadata(self) -> Metadata | None:
        """The endpoints, when they are not to be discovered."""
        discovers = self.kind.discovers and not self.settings.skip_discovery
        return None if discovers else configured_metadata(self.settings)

    def _require_metadata(self) -> Metadata:
        if self.metadata is None:
            raise ProviderError(
                "the provider's metadata could not be fetched yet", reason="not_ready"
            )
        return self.metadata

    def _expected_issuer(self) -> str | None:
        skip = self.settings.skip_issuer_verification
        return None if skip else self.settings.issuer or self.kind.issuer

    # -- the authorization request

    @property
    def scope(self) -> str:
        """What is asked for; empty for no ``scope`` parameter at all."""
        return build_scope(self.settings)

    @property
    def code_challenge_method(self) -> str:
        """S256, plain, or empty for no PKCE (RFC 7636)."""
        configured = self.settings.code_challenge_method
        if configured == "none":
            return ""
        offered = self.metadata and self.metadata.code_challenge_methods_supported
        known = self.kind.pkce or (offered and "S256" in offered)
        return configured or ("S256" if known else "")

    def authorization_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        nonce: bytes,
        code_verifier: str,
        requested: Mapping[str, str] = {},
    ) -> str:
        """Where the browser goes to log in (OIDC Core §3.1.2.1).

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
        params |= self.extra_authorization_parameters(params)
        pairs = list(params.items()) + [
            (name, value)
            for name, value in self._parameters.pairs(requested)
            if name not in params
        ]
        return with_query(
            self._require_metadata().authorization_endpoint, sorted(pairs)
        )

    @property
    def sends_nonce(self) -> bool:
        """Whether ID tokens are bound to their login by a nonce."""
        return not self.settings.skip_nonce

    def extra_authorization_parameters(
        self, params: Mapping[str, str]
    ) -> dict[str, str]:
        """What this type of provider adds to *params*, or has otherwise."""
        return {}

    # -- the token endpoint

    def redeem(self, code: str, redirect_uri: str, code_verifier: str) -> Flow[Tokens]:
        """Redeem an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
        params = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
        ]
        if code_verifier:
            params.append(("code_verifier", code_verifier))
        return (yield from self._request_tokens(params))

    def _request_tokens(self, params: list[tuple[str, str]]) -> Flow[Tokens]:
        """Ask with the client authentication that worked last.

        Providers without discovery, or with a wrong one, are found out by one more try
        when the client is refused: a code is not used up by that.
        """
        params = [*params, *self.token_parameters()]
        request = yield from self.client_request(params)
        response = yield from request
        try:
            return parse_tokens(response, self._clock())
        except ProviderError as error:
            if error.reason != "invalid_client":
                raise
            first_error = error
        request = yield from self._token_request(
            params, in_body=not self._secret_in_body
        )
        response = yield from request
        try:
            tokens = parse_tokens(response, self._clock())
        except ProviderError:
            raise first_error from None
        self._secret_in_body = not self._secret_in_body
        return tokens

    def token_parameters(self) -> list[tuple[str, str]]:
        """What this type of provider adds to a request to the token endpoint."""
        return []

    def client_request(self, params: list[tuple[str, str]]) -> Flow[Fetch]:
        """A request to the provider with the client authentication that works."""
        return (yield from self._token_request(params, in_body=self._secret_in_body))

    def _token_request(
        self, params: list[tuple[str, str]], *, in_body: bool
    ) -> Flow[Fetch]:
        yield from ()  # a provider's own way may need effects
        return token_request(
            self._require_metadata().token_endpoint,
            params,
            client_id=self.settings.client_id,
            client_secret=self.settings.client_secret.value,
            in_body=in_body,
        )

    # -- from tokens to a session

    def create_session(
        self, tokens: Tokens, nonce: bytes, *, nonce_optional: bool = False
    ) -> Flow[Session]:
        """The session of a fresh login; raises `TokenError` or `ProviderError`.

        With *nonce_optional* a token without nonce passes, one with another does not.
        """
        if not tokens.id_token:
            raise ProviderError(
                "the token endpoint's answer has no id_token",
                reason="no_id_token",
                hint="the scope must contain openid",
            )
        expected = nonce if self.sends_nonce else None
        claims = yield from self._verify_id_token(tokens, expected, nonce_optional)
        now = self._clock()
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
        session = yield from self._apply_claims(session, claims)
        session = yield from self.enrich(session)
        self._check_email(session)
        return session

    def _check_email(self, session: Session) -> None:
        if session.email:
            return
        raise ProviderError(
            f"the provider names no e-mail address (claim {self.settings.email_claim!r})",
            reason="email_missing",
            hint="give the user an e-mail address at the provider, ask for the scope "
            "email, or set oidc_email_claim to a claim that is there",
        )

    def _verify_id_token(
        self,
        tokens: Tokens,
        nonce: bytes | None,
        nonce_optional: bool = False,
        parties: tuple[str, ...] | None = None,
    ) -> Flow[dict[str, Any]]:
        """The claims of the ID token; with *parties*, of a bearer JWT in its place."""
        metadata = self._require_metadata()
        claims = yield from self._keys.verify(
            tokens.id_token,
            metadata.jwks_uri,
            allowed_algorithms(self.settings, metadata),
            NON_ID_TOKEN_TYPES if parties is None else NON_BEARER_TYPES,
        )
        expected = self._expected_claims(nonce, nonce_optional, parties or ())
        check_id_token(claims, expected, self._clock())
        check_access_token_hash(tokens.id_token, claims, tokens.access_token)
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

    def _apply_claims(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Session]:
        """*session* with what the ID token says, and userinfo where that is silent."""
        return self.with_claims(
            session, (yield from self._add_userinfo(session, claims))
        )

    def with_claims(self, session: Session, claims: Mapping[str, Any]) -> Session:
        """*session* with what *claims* say."""
        claims = serializable_claims(claims)
        self._check_email_verified(claims)
        extra = {name: find_claim(claims, name) for name in self._extra_claims}
        return replace(
            session,
            user=claim_text(claims.get("sub")),
            # An empty list would be the same text for everybody: no address.
            email=claim_text(find_claim(claims, self.settings.email_claim) or None),
            groups=self.read_groups(claims),
            preferred_username=claim_text(claims.get("preferred_username")),
            sid=claim_sid(claims) or session.sid,
            claims={name: value for name, value in extra.items() if value is not None},
        )

    def read_groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The groups in *claims*; an object's keys are no groups."""
        return claim_list(find_claim(claims, self.settings.groups_claim))

    def _add_userinfo(
        self, session: Session, claims: Mapping[str, Any]
    ) -> Flow[Mapping[str, Any]]:
        """*claims*, and those of userinfo below them if one that we need is missing."""
        needed = {
            self.settings.email_claim,
            self.settings.groups_claim,
            "preferred_username",
            *self._extra_claims,
        }
        if self._checks_email_verified:
            needed.add("email_verified")
        endpoint = self._require_metadata().userinfo_endpoint
        missing = any(find_claim(claims, name) is None for name in needed)
        if not missing or not endpoint or self.settings.skip_claims_from_profile_url:
            return claims
        response = yield from userinfo_request(endpoint, session.access_token)
        return {**parse_userinfo(response, claims["sub"]), **non_null_claims(claims)}

    @property
    def _checks_email_verified(self) -> bool:
        own_claim = self.settings.email_claim == "email"
        return own_claim and not self.settings.allow_unverified_email

    def _check_email_verified(self, claims: Mapping[str, Any]) -> None:
        verified = claims.get("email_verified")
        if not self._checks_email_verified or verified is None:
            return
        if not claim_bool(verified):
            raise email_unverified_error()

    def enrich(self, session: Session) -> Flow[Session]:
        """Add what the provider keeps elsewhere; after login and refresh alike."""
        yield from ()  # nothing here; a provider's own enrich may need effects
        return session

    def enrich_bearer(self, session: Session) -> Session:
        """*session* of a bearer JWT with what else the token itself says."""
        return session

    # -- later in a session's life

    def refresh(self, session: Session) -> Flow[Tokens]:
        """New tokens for a session (RFC 6749 §6).

        Raises `ProviderError` with the reason ``invalid_grant`` when the refresh token
        is spent for good.
        """
        return (
            yield from self._request_tokens(
                [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", session.refresh_token),
                ]
            )
        )

    def apply_refresh(self, session: Session, tokens: Tokens) -> Flow[Session]:
        """*session* with new *tokens* and what they say (OIDC Core §12).

        Raises `TokenError` when the new ID token is not acceptable.
        """
        now = self._clock()
        renewed = replace(
            session,
            created_at=now,
            expires_at=now + tokens.expires_in if tokens.expires_in else 0.0,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or session.refresh_token,
        )
        if tokens.id_token:
            claims = yield from self._verify_id_token(tokens, None)
            if claims["sub"] != self.expected_subject(session):
                raise TokenError(
                    "the refreshed ID token is of another user", reason="subject"
                )
            renewed = replace(renewed, id_token=tokens.id_token)
            renewed = yield from self._apply_claims(renewed, claims)
        renewed = yield from self.enrich(renewed)
        self._check_email(renewed)
        yield from self._validate_access_token(renewed)
        return renewed

    def expected_subject(self, session: Session) -> str:
        """The ``sub`` that refreshed ID tokens of *session* must have."""
        return session.user

    def _validate_access_token(self, session: Session) -> Flow[None]:
        """Ask ``validate_url`` about the access token, where one is configured.

        Raises `TokenError` when the token is refused, and `ProviderError` when the
        provider can't tell now.
        """
        url = self.settings.validate_url or self.kind.validate_url
        if not url:
            return
        headers = self.api_headers(session)
        if self.kind.token_in_query:
            headers = self.kind.api_headers
            url = with_query(url, [("access_token", session.access_token)])
        response = yield from Fetch("GET", url, headers, purpose="validate")
        if response.status != 200:
            raise status_error(response, "validate_url", "validate")

    def api_headers(self, session: Session) -> Headers:
        """The fields of a request with the session's access token."""
        token = header_text(session.access_token)
        scheme = self.kind.token_scheme
        return (*self.kind.api_headers, (b"authorization", scheme + b" " + token))

    # -- who may come in

    def allowed_groups(self) -> tuple[str, ...]:
        """The groups of which a session needs one; none of them: everybody comes in."""
        own = self.settings.keycloak_groups if self.settings.type == "keycloak" else ()
        return own or self.settings.allowed_groups

    def is_authorized(self, session: Session) -> bool:
        """Whether the session has one of the allowed groups, if any are configured."""
        allowed = self._allowed_groups
        return not allowed or not allowed.isdisjoint(session.groups)

    # -- the end of a session

    def verify_logout_token(self, token: str) -> Flow[LogoutToken]:
        """Whom a logout token means (Back-Channel Logout §2.6).

        Its claims are judged before its signature: so that whoever sends nonsense does
        not make us fetch keys. Raises `TokenError`, or `ProviderError` if not ready.
        """
        metadata = self._require_metadata()
        expected = replace(
            self._expected_claims(None, False, ()), audience_claims=("aud",)
        )
        found = check_logout_token(unverified_claims(token), expected, self._clock())
        yield from self._keys.verify(
            token,
            metadata.jwks_uri,
            allowed_algorithms(self.settings, metadata),
            REJECTED_TYPES,
        )
        return found

    def end_session_url(self, id_token: str, return_to: str) -> str:
        """Where RP-initiated logout goes; empty when the provider offers none."""
        endpoint = self.metadata.end_session_endpoint if self.metadata else ""
        return logout_url(endpoint, self.settings.client_id, id_token, return_to)
