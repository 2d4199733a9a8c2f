"""The context that session flows share; `login.context.Context` extends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from ..messages import Event, Headers, Request
from ..providers.base import Provider
from ..providers.hosts import HostBinding
from ..request.original import TrustedProxies
from ..session import Session
from ..settings.root import Settings
from .cookies import Browser
from .session_cache import SessionEntry
from .sessions import Sessions


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
