"""Bearer JWTs of a provider, or of an issuer in ``extra_jwt_issuers``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from ..effects import Flow, with_lock
from ..errors import EffectError, KeysUnavailableError, ProviderError, TokenError
from ..oidc.algorithms import ALGORITHMS
from ..oidc.jwt import ExpectedClaims, check_id_token, numeric_date
from ..oidc.protocol import Metadata, Tokens, discovery_request, parse_metadata
from ..oidc.token_types import BEARER_TOKEN
from ..session import Session
from ..settings.credentials import JwtIssuer
from ..settings.root import ProviderSettings
from .base import Provider
from .jwks import LOCK_TTL, LOCK_WAIT, REFETCH_INTERVAL, JwksCache

Value = TypeVar("Value")

RETRY_DELAY = 30.0  # seconds between discovery attempts if the keys are loaded
DEFAULT_ALGORITHMS = ("RS256",)


class BearerIssuer:
    """An issuer in ``extra_jwt_issuers``; the first token fetches metadata and keys.

    If discovery fails, the keys are fetched from ``/.well-known/jwks.json``.
    *provider* defines the audience claims, the extra audiences and the groups claim.
    """

    def __init__(
        self,
        settings: JwtIssuer,
        provider: ProviderSettings,
        *,
        clock: Callable[[], float],
        leeway: float,
    ) -> None:
        self.issuer = settings.issuer
        self._clock = clock
        self._keys = JwksCache(f"bearer:{settings.issuer}", clock)
        self._groups_claim = provider.groups_claim
        self._metadata: Metadata | None = None
        self._tried_at = float("-inf")
        self._expected = ExpectedClaims(
            issuer=settings.issuer,
            client_id=settings.audience,
            audience_claims=provider.audience_claims,
            extra_audiences=provider.extra_audiences,
            # The audience names the recipient of such a token; the authorized party is
            # the client of another service.
            authorized_parties=("*",),
            leeway=leeway,
        )

    @property
    def key_set(self) -> JwksCache:
        """The issuer's keys."""
        return self._keys

    def bearer_session(self, token: str) -> Flow[Session]:
        """Return the session of *token*.

        Raises `TokenError`, or `KeysUnavailableError` if the keys cannot be fetched.
        """
        if self._metadata is None:
            yield from with_lock(
                f"discovery:{self.issuer}",
                self._discover(),
                ttl=LOCK_TTL,
                wait=LOCK_WAIT,
                local=True,
            )
        claims = yield from self._keys.verify(
            token, self._jwks_uri, self._algorithms, BEARER_TOKEN
        )
        now = self._clock()
        check_id_token(claims, self._expected, now)
        if not _claim(claims, "email_verified", bool, default=True):
            raise TokenError(
                "the email address of the token is not verified",
                reason="email_unverified",
            )
        user = str(claims["sub"])
        return Session(
            created_at=now,
            login_at=now,
            expires_at=numeric_date(claims, "exp"),
            access_token=token,
            id_token=token,
            user=user,
            email=_claim(claims, "email", str, default="") or user,
            groups=_groups(claims, self._groups_claim),
            preferred_username=_claim(claims, "preferred_username", str, default=""),
        )

    def _discover(self) -> Flow[None]:
        delay = RETRY_DELAY if self._keys.has_keys else REFETCH_INTERVAL
        if self._metadata or self._clock() - self._tried_at < delay:
            return
        try:
            response = yield from discovery_request(self.issuer)
            self._metadata = parse_metadata(response, self.issuer)
        except (ProviderError, EffectError):
            self._tried_at = self._clock()

    @property
    def _jwks_uri(self) -> str:
        if self._metadata:
            return self._metadata.jwks_uri
        return f"{self.issuer.rstrip('/')}/.well-known/jwks.json"

    @property
    def _algorithms(self) -> tuple[str, ...]:
        offered = (
            self._metadata.id_token_signing_alg_values_supported
            if self._metadata
            else ()
        )
        return tuple(alg for alg in offered if alg in ALGORITHMS) or DEFAULT_ALGORITHMS


def may_have_issued(provider: Provider, issuer: object) -> bool:
    """Return whether *provider* may have issued a token with this ``iss``."""
    metadata = provider.metadata
    if metadata is not None and not (metadata.jwks_uri or provider._keys.has_keys):
        return False  # it issues no tokens
    return provider._expected_issuer() in (None, issuer)


def provider_session(
    provider: Provider, token: str, parties: tuple[str, ...], now: float
) -> Flow[Session]:
    """Return the session of a bearer JWT of *provider*, from its claims alone.

    *parties* are the accepted authorized parties. Raises `TokenError`, `ProviderError`,
    or `KeysUnavailableError` if metadata or keys are not loaded.
    """
    if provider.metadata is None:
        raise KeysUnavailableError("the provider's metadata is not loaded yet")
    claims = yield from provider._verify_id_token(
        Tokens("", token), None, parties=parties
    )
    session = Session(
        provider=provider.id,
        created_at=now,
        login_at=now,
        expires_at=numeric_date(claims, "exp"),
        access_token=token,
        id_token=token,
    )
    session = provider.with_claims(session, claims)
    email = session.email or session.user  # a service account may have no email
    return provider.enrich_bearer(replace(session, email=email))


def _claim(
    claims: Mapping[str, Any], name: str, kind: type[Value], *, default: Value
) -> Value:
    """Return a claim of type *kind*, *default* if missing; raises `TokenError`."""
    value = claims.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise TokenError(
            f"claim {name}: expected a {'boolean' if kind is bool else 'string'}",
            reason="malformed",
        )
    return value


def _groups(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the groups in the claim *name*: a string or an array of strings.

    The name is literal, not a path. Raises `TokenError`.
    """
    value = claims.get(name)
    groups = [] if value is None else value if isinstance(value, list) else [value]
    if any(not isinstance(group, str) for group in groups):
        raise TokenError(
            f"claim {name}: expected a string or an array of strings", reason="groups"
        )
    return tuple(group for group in groups if group)
