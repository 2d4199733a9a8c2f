"""What the flows have in common: the parts that an `AuthProxy` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from ..access import EmailRule
from ..binding import HostBinding
from ..credential_settings import HTPASSWD
from ..gate import Gate
from ..htpasswd import Htpasswd
from ..login_loop import LoginLoops
from ..login_state import LoginStates
from ..messages import Event, Headers, Request, Respond
from ..original import Original, Trust
from ..pages import NO_CACHE, Pages
from ..providers.base import Provider
from ..recall import Entry
from ..redirects import RedirectPolicy
from ..session import Session
from ..session_stores import Browser, Sessions
from ..settings import Settings
from .ready import Readiness


class Settled(Struct, frozen=True):
    """A request's session as it can be used (None: there is none), and its cookies."""

    entry: Entry | None
    headers: Headers = ()


class Context(Struct, frozen=True, kw_only=True):
    """The parts; each is built once and shared by all requests of one loop."""

    settings: Settings
    clock: Callable[[], float]
    on_event: Callable[[Event], None]
    trust: Trust
    gate: Gate
    redirects: RedirectPolicy
    sessions: Sessions
    login_states: LoginStates
    providers: Mapping[str, Provider]
    binding: HostBinding
    emails: EmailRule
    pages: Pages
    readiness: Readiness
    htpasswd: Htpasswd | None
    loops: LoginLoops

    @property
    def default_provider(self) -> Provider:
        """The first provider."""
        return next(iter(self.providers.values()))

    def provider_of(self, session: Session) -> Provider:
        """The provider that made *session*."""
        return self.providers.get(session.provider, self.default_provider)

    @staticmethod
    def host_behind(host: str, rd: str) -> str:
        """The host that *rd*, which must have been judged, leads to from *host*."""
        return urlsplit(rd).netloc.rpartition("@")[2] if "://" in rd[:8] else host

    def foreign(self, request: Request, entry: Entry) -> bool:
        """Whether the session of *entry* does not count on the host of *request*.

        While it has to be looked up, nobody knows; `settle` asks again.
        """
        if entry.cold and entry.ticket is not None:
            return False
        return not self.binding.serves(self.host(request), entry.session.provider)

    def refusal(self, session: Session) -> str:
        """Why the session may not come in: "" (it may), "email", "groups" or "user"."""
        if session.provider == HTPASSWD:
            # A name is no address, unless it was made one.
            if self.htpasswd is None or not self.htpasswd.knows(session.user):
                return "user"
            if session.email and not self.emails.permits(session.email):
                return "email"
        elif not self.emails.permits(session.email):
            return "email"
        return "" if self.provider_of(session).authorize(session) else "groups"

    def redirect_target(
        self, request: Request, form: Mapping[str, str], *, own_endpoints: bool = False
    ) -> str:
        """Where the user goes back to from here."""
        original = self.trust.original(request)
        return self.redirects.choose(
            request, original, form, own_endpoints=own_endpoints
        )

    def host(self, request: Request) -> str:
        """The original host, for cookies; raises `RequestError`."""
        return self.trust.original(request).host

    def browser(self, request: Request) -> Browser:
        """What the session's cookies are written for; raises `RequestError`."""
        return Browser(self.host(request), self.sessions.present(request.headers))

    def callback_url(self, original: Original) -> str:
        """The ``redirect_uri`` for a login that begins at *original*."""
        settings = self.settings
        path = f"{settings.proxy_prefix}/callback"
        configured = settings.redirect_url
        if settings.relative_redirect_url:
            return configured or path
        scheme, separator, rest = configured.partition("://")
        if separator:
            return configured if "/" in rest else f"{scheme}://{rest}{path}"
        proto = "https" if settings.cookie.secure else original.scheme
        return f"{proto}://{original.host}{configured or path}"


def redirect(
    location: str,
    headers: Headers = (),
    events: tuple[Event, ...] = (),
    user: str = "",
) -> Respond:
    """Send the browser to *location* (RFC 9110 §15.4.3), never cached."""
    field = (b"location", location_bytes(location))
    return Respond(302, (field, *NO_CACHE, *headers), b"", events, user)


def location_bytes(location: str) -> bytes:
    """A URI for the Location field: what no URI may hold is percent-encoded.

    That is what is not ASCII, and blanks and control characters, so that nothing can
    end the field.
    """
    return b"".join(
        bytes([byte]) if 0x20 < byte < 0x7F else b"%%%02x" % byte
        for byte in location.encode("utf-8", "surrogateescape")
    )
