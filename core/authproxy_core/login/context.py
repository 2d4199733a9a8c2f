"""Context of the login flows: components that all requests share."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import quote, urlsplit

from ..access.auth_bypass import AuthBypass
from ..access.htpasswd import Htpasswd
from ..access.membership import EmailRule
from ..messages import Event, Headers, Request, Respond
from ..pages.challenge import redirect_body
from ..pages.pages import NO_CACHE, Pages
from ..providers.readiness import Readiness
from ..request.original import OriginalRequest
from ..session import Session
from ..sessions.context import SessionContext
from ..settings.credentials import HTPASSWD
from ..settings.root import Settings
from .loop_guard import LoginLoopDetector
from .notices import LoginNotices
from .redirects import RedirectPolicy
from .state import LoginStates

_NOT_VISIBLE = re.compile(rb"[^!-~]")
HTML = (b"content-type", b"text/html; charset=utf-8")


class Context(SessionContext, frozen=True, kw_only=True):
    """Components of an `AuthProxy`, built once and shared by all requests."""

    auth_bypass: AuthBypass
    redirects: RedirectPolicy
    login_states: LoginStates
    emails: EmailRule
    pages: Pages
    readiness: Readiness
    htpasswd: Htpasswd | None
    loops: LoginLoopDetector
    notices: LoginNotices

    @staticmethod
    def redirect_host(host: str, rd: str) -> str:
        """Return the host of the validated redirect target *rd*, else *host*."""
        return urlsplit(rd).netloc.rpartition("@")[2] if "://" in rd[:8] else host

    def denial_reason(self, session: Session) -> str:
        """Return why the session is denied: "email", "groups", "user"; "" if allowed."""
        if session.provider == HTPASSWD:
            # htpasswd users have an email address only if the settings derive one.
            if self.htpasswd is None or not self.htpasswd.knows(session.user):
                return "user"
            if session.email and not self.emails.permits(session.email):
                return "email"
        elif not self.emails.permits(session.email):
            return "email"
        return "" if self.provider_of(session).is_authorized(session) else "groups"

    def redirect_target(
        self, request: Request, form: Mapping[str, str], *, allow_pages: bool = False
    ) -> str:
        """Return the redirect target that *request* asks for; see `RedirectPolicy`."""
        original = self.trusted_proxies.original(request)
        return self.redirects.choose(
            request, original, form, allow_proxy_endpoints=allow_pages
        )

    def callback_url(self, original: OriginalRequest, provider_id: str = "") -> str:
        """Return the ``redirect_uri`` of a login that starts at *original*."""
        return callback_url(self.settings, original.scheme, original.host, provider_id)


def callback_url(
    settings: Settings, scheme: str, host: str, provider_id: str = ""
) -> str:
    """Return the ``redirect_uri`` of a login that starts at *scheme* and *host*.

    The first provider has the configured one. ``/ID`` follows in that of another
    *provider_id*, so no provider can send a response in the place of another (mix-up
    attack, RFC 9700 §4.4.2).
    """
    url = _configured_callback_url(settings, scheme, host)
    if provider_id in ("", settings.providers[0].id):
        return url
    path, mark, query = url.partition("?")
    return f"{path.removesuffix('/')}/{callback_name(provider_id)}{mark}{query}"


def _configured_callback_url(settings: Settings, scheme: str, host: str) -> str:
    path = f"{settings.proxy_prefix}/callback"
    configured = settings.redirect_url
    if settings.relative_redirect_url:
        return configured or path
    configured_scheme, separator, rest = configured.partition("://")
    if separator:
        return configured if "/" in rest else f"{configured_scheme}://{rest}{path}"
    proto = "https" if settings.cookie.secure else scheme
    return f"{proto}://{host}{configured or path}"


def callback_name(provider_id: str) -> str:
    """Return the last segment of a provider's callback path."""
    return quote(provider_id, safe="=:@")


def callback_paths(prefix: bytes, ids: Collection[str]) -> Iterator[tuple[bytes, str]]:
    """Yield each callback path below *prefix* (``/oauth2/``) with its provider's ID.

    The path without an ID is that of the only or the first provider.
    """
    yield prefix + b"callback", next(iter(ids))
    for provider_id in ids if len(ids) > 1 else ():
        for name in {callback_name(provider_id), quote(provider_id, safe="")}:
            yield prefix + b"callback/" + name.encode(), provider_id


def redirect(
    location: str,
    headers: Headers = (),
    events: tuple[Event, ...] = (),
    user: str = "",
) -> Respond:
    """Return an uncacheable 302 to *location* with a link (RFC 9110 §15.4.3).

    A gateway may send the body with another status, where browsers do not redirect.
    """
    url = encode_location(location)
    fields = ((b"location", url), HTML, *NO_CACHE, *headers)
    return Respond(302, fields, redirect_body(302, url), events, user)


def encode_location(location: str) -> bytes:
    """Return *location* as a value of the Location field.

    Non-ASCII characters, spaces and control characters are percent-encoded, so no
    value can end the field.
    """
    return _NOT_VISIBLE.sub(
        lambda match: b"%%%02x" % match[0][0],
        location.encode("utf-8", "surrogateescape"),
    )
