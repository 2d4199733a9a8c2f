"""Authentication by the Authorization field: bearer JWTs and Basic credentials.

Verified credentials are cached, so that further requests with them need no new
verification of a signature or hash; their expiry is checked every time. The field takes
precedence over the session cookie. One of the two decides: identities are never mixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from ..effects import Flow, Outcome
from ..errors import (
    AuthProxyError,
    CredentialsRejected,
    EffectError,
    KeysUnavailableError,
    ProviderError,
    TokenError,
)
from ..messages import Decision, Event, Headers, Request, Respond
from ..oidc.jwt import unverified_claims
from ..pages.challenge import BASIC as BASIC_CHALLENGE
from ..pages.challenge import BEARER as BEARER_CHALLENGE
from ..providers.bearer import BearerIssuer, may_have_issued, provider_session
from ..providers.jwks import JwksCache
from ..request.authorization import Basic, Bearer, basic_of, bearer_of, field_of
from ..session import Session
from ..sessions.context import SessionContext
from ..sessions.lifetimes import SessionDeadlines
from ..sessions.session_cache import SessionCache, SessionEntry
from ..sessions.session_resolver import session_of_request
from ..settings.credentials import HTPASSWD, CredentialSettings
from .attempts import network_of
from .htpasswd import VERIFIED_TTL, Htpasswd

BEARER, BASIC = "bearer", "basic"  # reason codes
MAX_NAME = 64  # characters of a rejected user name in logs
TOKEN_CACHE_TTL = 300.0  # seconds until the signature of a token is verified again


class Rejection(Struct, frozen=True):
    """Rejected credentials: the challenge for a 401, and events to log."""

    challenge: Headers
    events: tuple[Event, ...] = ()


def credentials_of(
    context: SessionContext,
    htpasswd: Htpasswd | None,
    random_bytes: Callable[[int], bytes],
) -> Credentials | None:
    """Return the verifier of the field, None if the settings accept no credentials."""
    if not context.settings.credentials.is_active:
        return None
    return Credentials(context, htpasswd, random_bytes)


def authenticate(
    context: SessionContext, credentials: Credentials | None, request: Request
) -> Flow[tuple[Session | None, Headers, Rejection | None]]:
    """Return the session of *request*, by its Authorization field or its cookies.

    Also returns the cookies to set, and the rejection of the field. Raises
    `CredentialsRejected`, `RequestError` and `StoreError`.
    """
    rejected = None
    if credentials is not None:
        verified = yield from credentials.verify(request)
        if isinstance(verified, SessionEntry):
            return verified.session, (), None
        rejected = verified
    session, headers = yield from session_of_request(context, request)
    return session, headers, rejected


def with_rejection(decision: Decision, rejected: Rejection | None) -> Decision:
    """Return *decision* with the events and, for 401, the challenge of *rejected*.

    The lines of these events in the auth log have the client's address.
    """
    if rejected is None:
        return decision
    events = (*decision.events, *rejected.events)
    if not isinstance(decision, Respond):
        return replace(decision, events=events)
    added = rejected.challenge if decision.status == 401 else ()
    return replace(
        decision, headers=(*decision.headers, *added), events=events, reusable=False
    )


def by_field(outcome: Outcome, entry: SessionEntry) -> Outcome:
    """Return *outcome* with the reason code of the credentials if it was allowed."""
    if isinstance(outcome, Decision) and outcome.verdict == "allowed":
        is_basic = entry.session.provider == HTPASSWD
        return replace(outcome, reason=BASIC if is_basic else BEARER)
    return outcome


class Credentials:
    """Verifies the Authorization field and caches the sessions of verified ones."""

    def __init__(
        self,
        context: SessionContext,
        htpasswd: Htpasswd | None,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        settings = context.settings
        self._context = context
        self._settings = settings.credentials
        self._leeway = settings.clock_skew
        self._providers = context.providers
        self._issuers = [
            BearerIssuer(
                issuer,
                settings.providers[0],
                clock=context.clock,
                leeway=settings.clock_skew,
            )
            for issuer in self._settings.jwt_issuers
        ]
        self._htpasswd = htpasswd
        self._clock = context.clock
        self._key = random_bytes(32)
        self._on_event = context.on_event
        self._cache_bytes = settings.session_cache_bytes
        self._verified = SessionCache(self._cache_bytes)

    @property
    def key_sets(self) -> tuple[tuple[str, JwksCache], ...]:
        """The key sets of the issuers that are no providers, with their names."""
        return tuple((issuer.issuer, issuer.key_set) for issuer in self._issuers)

    def drop_cache(self) -> None:
        """Verify all tokens and passwords again: a key has been withdrawn."""
        self._verified = SessionCache(self._cache_bytes)

    def cached(self, request: Request) -> SessionEntry | None:
        """Return the cached entry for the field if it is still valid; no I/O."""
        value = field_of(request.headers)
        if not value:
            return None
        client = self._password_client(request, value)
        entry = self._verified.get(self._cache_key(value, client))
        if entry is None or self._clock() >= entry.fresh_until:
            return None
        session = entry.session
        if (
            self._htpasswd is not None
            and session.provider == HTPASSWD
            and self._htpasswd.is_guessed(session.user, client)
        ):
            return None
        return entry if self._is_bound(request, session) else None

    def _password_client(self, request: Request, value: bytes) -> str:
        """Return the client of a field with a password, else "".

        A password verified for one client must not be a way for others to guess it
        without a limit.
        """
        if self._htpasswd is None or not value.startswith(b"Basic "):
            return ""
        return self._context.trusted_proxies.client(request)

    def _is_bound(self, request: Request, session: Session) -> bool:
        """Return whether the session's provider is used on the request's host."""
        binding = self._context.binding
        return not binding.is_active or binding.serves(
            self._context.host(request), session.provider
        )

    def verify(self, request: Request) -> Flow[SessionEntry | Rejection | None]:
        """Return the session for the field; None for a missing or unknown one.

        A `Rejection` leaves the decision to the session cookie; see `with_rejection`.
        Raises `CredentialsRejected` for an invalid field if no login may replace it,
        and `KeysUnavailableError` for a token that cannot be verified now.
        """
        cached = self.cached(request)
        if cached is not None:
            return cached
        value = field_of(request.headers)
        if value is None:
            return None
        if self._settings.jwt_bearer_tokens:
            session = yield from self._verify_bearer(value)
            if session is not None and self._is_bound(request, session):
                until = min(
                    session.expires_at + self._leeway, self._clock() + TOKEN_CACHE_TTL
                )
                return self._cache(request, value, session, until)
            if not self._settings.bearer_login_fallback:
                raise CredentialsRejected("no valid token in the Authorization field")
        client = self._context.trusted_proxies.client(request)
        verified = yield from self._verify_basic(value, client)
        if isinstance(verified, Session):
            until = self._clock() + VERIFIED_TTL
            return self._cache(request, value, verified, until)
        if self._settings.jwt_bearer_tokens and isinstance(bearer_of(value), Bearer):
            return Rejection(BEARER_CHALLENGE)
        return verified

    def _cache_key(self, value: bytes, client: str) -> bytes:
        """Return a keyed hash of *value*, because no password is stored.

        It is padded to the length of *value*: the cache counts the bytes of its keys.
        """
        network = network_of(client).encode(errors="replace")
        data = network + b" " + value  # no network contains a space
        digest = hashlib.blake2b(data, key=self._key, digest_size=32).digest()
        return digest + bytes(max(len(value) - len(digest), 0))

    def _cache(
        self, request: Request, value: bytes, session: Session, until: float
    ) -> SessionEntry:
        deadlines = SessionDeadlines(inf, inf, inf, until)
        key = self._cache_key(value, self._password_client(request, value))
        entry = SessionEntry(session, key, deadlines, session.created_at)
        self._verified.put(entry)
        return entry

    # -- bearer JWTs

    def _verify_bearer(self, value: bytes) -> Flow[Session | None]:
        bearer = bearer_of(value)
        if not isinstance(bearer, Bearer):
            return None
        error: AuthProxyError = TokenError("unknown issuer", reason="issuer")
        unavailable = ""
        try:
            issuer = unverified_claims(bearer.token).get("iss")
        except TokenError as malformed:
            self._report_rejected_token(malformed)
            return None
        for verification in self._verifications(bearer.token, issuer):
            try:
                return (yield from verification)
            except KeysUnavailableError as away:
                unavailable = str(away)
            except (TokenError, ProviderError, EffectError) as rejected:
                error = rejected.with_traceback(None)  # it would refer to this frame
        if unavailable:
            raise KeysUnavailableError(unavailable)
        self._report_rejected_token(error)
        return None

    def _verifications(self, token: str, issuer: object) -> list[Flow[Session]]:
        """Return the flows that may verify a token with the unverified *issuer*."""
        parties = self._settings.jwt_authorized_parties
        return [
            *(
                provider_session(provider, token, parties, self._clock())
                for provider in self._providers.values()
                if may_have_issued(provider, issuer)
            ),
            *(
                one.bearer_session(token)
                for one in self._issuers
                if one.issuer == issuer
            ),
        ]

    def _report_rejected_token(self, error: AuthProxyError) -> None:
        reason = getattr(error, "reason", error.code)
        hint = getattr(error, "hint", "")
        detail = f"bearer token rejected: {error}{hint and f'; {hint}'}"
        self._on_event(Event("token_refused", reason=reason, detail=detail))

    # -- user names and passwords

    def _verify_basic(
        self, value: bytes, client: str
    ) -> Flow[Session | Rejection | None]:
        basic = basic_of(value)
        if self._htpasswd is None or not isinstance(basic, Basic):
            return None
        verified = yield from self._htpasswd.verify(basic, client)
        if verified:
            return local_session(self._settings, basic.user, self._clock())
        event = password_rejected_event(basic.user[:MAX_NAME], verified)
        return Rejection(BASIC_CHALLENGE, (event,))


def password_rejected_event(user: str, verified: bool | None) -> Event:
    """Return the event for a wrong password, or (None) for too many attempts."""
    reason = "too_many_tries" if verified is None else "password"
    return Event("login_failed", user, reason, "user name or password rejected")


def local_session(
    settings: CredentialSettings, user: str, now: float, *, stored: bool = False
) -> Session:
    """Return the session of a user of the htpasswd file.

    The user name serves as email address only with ``email_is_user``, and never in a
    session that is *stored*. *now* is in seconds since the epoch.
    """
    return Session(
        provider=HTPASSWD,
        created_at=now,
        login_at=now,
        user=user,
        email=user if settings.email_is_user and not stored else "",
        groups=settings.user_groups,
    )
