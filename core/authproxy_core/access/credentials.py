"""Who sends a request, by its Authorization field: a bearer JWT, or Basic credentials.

What was verified is remembered, so that the next request with it needs no new look at a
signature or a hash; until when it holds is judged every time. The field comes before
the session's cookie, and one of the two decides: identities are never mixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import inf

from msgspec.structs import replace

from ..effects import Flow, Outcome
from ..errors import (
    AuthProxyError,
    CredentialsRefused,
    EffectError,
    ProviderError,
    TokenError,
)
from ..messages import Decision, Event, Headers, Request
from ..oidc.jwt import unverified_claims
from ..providers.bearer import BearerIssuer, may_have_issued, provider_session
from ..request.authorization import Basic, Bearer, basic_of, bearer_of, field_of
from ..session import Session
from ..sessions.context import SessionContext
from ..sessions.lifetimes import SessionDeadlines
from ..sessions.session_cache import SessionCache, SessionEntry
from ..sessions.session_resolver import session_of_request
from ..settings.credentials import HTPASSWD, CredentialSettings
from .htpasswd import VERIFIED_TTL, Htpasswd

BEARER, BASIC = "bearer", "basic"  # reasons
TOKEN_CACHE_TTL = 300.0  # seconds until a token's signature is looked at again


def credentials_of(
    context: SessionContext,
    htpasswd: Htpasswd | None,
    random_bytes: Callable[[int], bytes],
) -> Credentials | None:
    """What reads the field, None where the settings let nothing in it count."""
    if not context.settings.credentials.any:
        return None
    return Credentials(context, htpasswd, random_bytes)


def authenticate(
    context: SessionContext, credentials: Credentials | None, request: Request
) -> Flow[tuple[Session | None, Headers]]:
    """Who sends a request, by its Authorization field or its session."""
    if credentials is not None:
        entry = yield from credentials.verify(request)
        if entry is not None:
            return entry.session, ()
    return (yield from session_of_request(context, request))


def by_field(outcome: Outcome, entry: SessionEntry) -> Outcome:
    """*outcome* of a request that the field let in: it does not hang on a session."""
    if isinstance(outcome, Decision) and outcome.verdict == "allowed":
        basic = entry.session.provider == HTPASSWD
        return replace(outcome, reason=BASIC if basic else BEARER)
    return outcome


class Credentials:
    """Reads the field, and remembers what it said."""

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
        self._verified = SessionCache(settings.session_cache_bytes)

    def cached(self, request: Request) -> SessionEntry | None:
        """Who the field says, if that was verified a moment ago; no I/O."""
        value = field_of(request.headers)
        if not value:
            return None
        entry = self._verified.get(self._mark(value))
        if entry is None or self._clock() >= entry.fresh_until:
            return None
        return entry if self._counts(request, entry.session) else None

    def _counts(self, request: Request, session: Session) -> bool:
        """Whether sessions of that provider count on the request's host."""
        binding = self._context.binding
        return not binding.is_active or binding.serves(
            self._context.host(request), session.provider
        )

    def verify(self, request: Request) -> Flow[SessionEntry | None]:
        """Who the field says, None if it says nobody that we know.

        Raises `CredentialsRefused` where a field that can't be used is the end.
        """
        known = self.cached(request)
        if known is not None:
            return known
        value = field_of(request.headers)
        if value is None:
            return None
        if self._settings.jwt_bearer_tokens:
            session = yield from self._bearer(value)
            if session is not None and self._counts(request, session):
                until = min(
                    session.expires_at + self._leeway, self._clock() + TOKEN_CACHE_TTL
                )
                return self._remember(value, session, until)
            if not self._settings.bearer_login_fallback:
                raise CredentialsRefused("the Authorization field holds no good token")
        session = yield from self._basic(
            value, self._context.trusted_proxies.client(request)
        )
        if session is None:
            return None
        return self._remember(value, session, self._clock() + VERIFIED_TTL)

    def _mark(self, value: bytes) -> bytes:
        """What *value* is remembered by: a password is kept nowhere.

        It is as long as the value, for the cache counts bytes.
        """
        digest = hashlib.blake2b(value, key=self._key, digest_size=32).digest()
        return digest + bytes(max(len(value) - len(digest), 0))

    def _remember(self, value: bytes, session: Session, until: float) -> SessionEntry:
        span = SessionDeadlines(inf, inf, inf, until)
        entry = SessionEntry(session, self._mark(value), span, session.created_at)
        self._verified.put(entry)
        return entry

    # -- bearer JWTs

    def _bearer(self, value: bytes) -> Flow[Session | None]:
        given = bearer_of(value)
        if not isinstance(given, Bearer):
            return None
        error: AuthProxyError = TokenError("nobody known issued it", reason="issuer")
        try:
            issuer = unverified_claims(given.token).get("iss")
        except TokenError as malformed:
            self._refused(malformed)
            return None
        for look in self._looks(given.token, issuer):
            try:
                return (yield from look)
            except (TokenError, ProviderError, EffectError) as refused:
                error = refused
        self._refused(error)
        return None

    def _looks(self, token: str, issuer: object) -> list[Flow[Session]]:
        """The flows that may verify a token which says that it is of *issuer*."""
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

    def _refused(self, error: AuthProxyError) -> None:
        reason = getattr(error, "reason", error.code)
        hint = getattr(error, "hint", "")
        detail = f"a bearer token was refused: {error}{hint and f'; {hint}'}"
        self._on_event(Event("token_refused", reason=reason, detail=detail))

    # -- names and passwords

    def _basic(self, value: bytes, client: str) -> Flow[Session | None]:
        given = basic_of(value)
        if self._htpasswd is None or not isinstance(given, Basic):
            return None
        right = yield from self._htpasswd.verify(given, client)
        if right:
            return local_session(self._settings, given.user, self._clock())
        self._on_event(password_rejected_event(given.user, right))
        return None


def password_rejected_event(user: str, right: bool | None) -> Event:
    """The event for a password that was wrong, or (None) that came too often."""
    reason = "too_many_tries" if right is None else "password"
    return Event("login_failed", user, reason, "name and password were refused")


def local_session(
    settings: CredentialSettings, user: str, now: float, *, stored: bool = False
) -> Session:
    """The session of a user of the htpasswd file.

    The name is an e-mail address only where the settings say so, and never in a session
    that is *stored*.
    """
    return Session(
        provider=HTPASSWD,
        created_at=now,
        login_at=now,
        user=user,
        email=user if settings.email_is_user and not stored else "",
        groups=settings.user_groups,
    )
