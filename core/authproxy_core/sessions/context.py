"""The contexts of session flows: of all, which `login.context.Context` extends, and
of one refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
from msgspec import Struct

from ..errors import AuthProxyError, SealError
from ..messages import Event, EventKind, Headers, Request
from ..providers.base import Provider
from ..providers.hosts import HostBinding
from ..request.original import TrustedProxies
from ..session import Session
from ..settings.root import Settings
from .cookies import Browser
from .refresh_cache import SESSION_ENDED, PendingTokens, RefreshResult
from .session_cache import SavedSession, SessionEntry
from .sessions import Sessions

_DECODER = msgspec.msgpack.Decoder(PendingTokens)


class ResolvedSession(Struct, frozen=True):
    """A usable session (None: no session), and the Set-Cookie fields for it."""

    entry: SessionEntry | None
    headers: Headers = ()


class SessionContext(Struct, frozen=True, kw_only=True):
    """Parts that are built once and shared by all requests of an `AuthProxy`."""

    settings: Settings
    clock: Callable[[], float]
    on_event: Callable[[Event], None]
    trusted_proxies: TrustedProxies
    sessions: Sessions
    providers: Mapping[str, Provider]
    binding: HostBinding

    @property
    def default_provider(self) -> Provider:
        """The first provider."""
        return next(iter(self.providers.values()))

    def provider_of(self, session: Session) -> Provider:
        """Return the provider that created *session*."""
        return self.providers.get(session.provider, self.default_provider)

    def is_unbound_session(self, request: Request, entry: SessionEntry) -> bool:
        """Return whether the session is not valid on the host of *request*.

        The provider of a ticket's session is unknown until it is loaded, so
        `resolve_session` checks again.
        """
        if entry.needs_load and entry.ticket is not None:
            return False
        return not self.binding.serves(self.host(request), entry.session.provider)

    def host(self, request: Request) -> str:
        """Return the original host, for cookies; raises `RequestError`."""
        return self.trusted_proxies.original(request).host

    def browser(self, request: Request) -> Browser:
        """Return the browser that cookies are written for; raises `RequestError`."""
        return self.sessions.browser(request.headers, self.host(request))


class RefreshContext:
    """One request's refresh of a session: its keys, and the outcomes without I/O."""

    def __init__(
        self, context: SessionContext, request: Request, entry: SessionEntry
    ) -> None:
        self.context = context
        self.sessions = context.sessions
        self.cache = context.sessions.refresh_cache
        self.entry = entry
        self.identity = self.sessions.identity(entry)
        self.generation = self.sessions.generation(entry)
        self.browser = context.browser(request)
        # Set if the result could not be shared. The store lock then expires instead of
        # being released: until then no other process uses the old refresh token again.
        self.keeps_lock = False

    def store_key(self, kind: str) -> str:
        name = self.context.settings.cookie.name
        return f"{name}-{kind}:{self.generation}"

    @property
    def revocation_key(self) -> str:
        return self.sessions.index.revocations.session_key(self.identity)

    def ended(self) -> ResolvedSession:
        """No session, and Set-Cookie fields that clear its cookies."""
        return ResolvedSession(None, self.sessions.clear(self.browser))

    def failed(self, error: AuthProxyError) -> ResolvedSession:
        """The old session, whose next refresh is delayed."""
        self.cache.delay_retry(self.generation)
        self.context.on_event(failure_event("refresh_failed", self.entry, error))
        return ResolvedSession(self.entry)

    def refreshed(self, saved: SavedSession) -> ResolvedSession:
        """The new session and its cookies."""
        session = saved.entry.session
        self.context.on_event(Event("refreshed", session.name, session.provider))
        return ResolvedSession(saved.entry, saved.headers)

    def with_cookies(self, entry: SessionEntry) -> ResolvedSession:
        """*entry* with its cookies, if the browser's are older."""
        headers = self.sessions.reissue_cookie(entry, self.browser)
        if not headers and entry.sealed != self.entry.sealed:
            headers = self.sessions.cookie_headers(entry, self.browser)
        return ResolvedSession(entry, headers)

    def read_result(self, data: bytes | None) -> RefreshResult | None:
        """Return the result that another process shared as *data*, and cache it."""
        value = self._unseal("renewed", data)
        if value is None:
            return None
        result = RefreshResult(None if value == SESSION_ENDED else value)
        self.cache.put_result(self.generation, result)
        return result

    def read_tokens(self, data: bytes | None) -> PendingTokens | None:
        """Return the tokens that another process shared as *data*."""
        record = self._unseal("unfinished", data)
        with suppress(msgspec.DecodeError):
            return _DECODER.decode(record) if record is not None else None
        return None

    def _unseal(self, kind: str, data: bytes | None) -> bytes | None:
        with suppress(SealError):
            if data is not None:
                return self.sessions.formats.unseal_record(self.store_key(kind), data)
        return None


def failure_event(kind: EventKind, entry: SessionEntry, error: AuthProxyError) -> Event:
    """Return the event for *error* of the session of *entry*."""
    reason = getattr(error, "reason", error.code)
    hint = getattr(error, "hint", "")
    detail = f"{error}; {hint}" if hint else str(error)
    return Event(kind, entry.session.name, reason, detail)
