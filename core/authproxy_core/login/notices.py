"""Notices for the operator about the causes of failing logins, each reported once.

A wrong callback URL, an untrusted gateway or a cookie that the browser drops fail where
authproxy does not see it: at the provider or in the browser.
"""

from __future__ import annotations

from collections.abc import Callable

from ..messages import Event, Request
from ..providers.base import Provider
from ..request.original import OriginalRequest, TrustedProxies, host_name
from ..session import Session
from ..settings.root import Settings

MAX_REPORTED = 100  # URLs, and peers; clients choose hosts and addresses
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")  # browsers store Secure cookies there
FORWARDED = (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-uri")


class LoginNotices:
    """Reports callback URLs, fields of untrusted peers, and sessions without roles."""

    def __init__(
        self,
        settings: Settings,
        trust: TrustedProxies,
        on_event: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._trust = trust
        self._on_event = on_event
        self._reported: dict[str, set[str]] = {
            kind: set() for kind in ("url", "peer", "roles")
        }

    def login_started(
        self, request: Request, original: OriginalRequest, provider: str, url: str
    ) -> None:
        """Report the callback *url* that a login sends to *provider*."""
        if self._is_first("url", url):
            detail = f"callback URL sent to {provider}: {url}"
            self._on_event(Event("login_started", detail=detail))
            if self._drops_cookie(original):
                self._on_event(Event("cookie_dropped", detail=_cookie_text(original)))
        if self._is_ignored(request) and self._is_first("peer", request.peer):
            detail = (
                f"X-Forwarded-* from {request.peer} ignored: not a trusted proxy; add it "
                "to trusted_proxy_ips if it is your gateway"
            )
            self._on_event(Event("peer_untrusted", detail=detail))

    def logged_in(self, provider: Provider, session: Session) -> None:
        """Report once why the sessions of *provider* have no roles, if so."""
        text = provider.missing_roles(session)
        if text and self._is_first("roles", provider.id):
            detail = f"session of {provider.id} without roles: {text}"
            self._on_event(Event("roles_missing", reason=provider.id, detail=detail))

    def _is_first(self, kind: str, text: str) -> bool:
        reported = self._reported[kind]
        if text in reported or len(reported) >= MAX_REPORTED:
            return False
        reported.add(text)
        return True

    def _drops_cookie(self, original: OriginalRequest) -> bool:
        """Return whether the browser will not store the login cookie."""
        settings = self._settings
        return (
            settings.cookie.secure
            and original.scheme == "http"
            and not settings.redirect_url.startswith("https://")
            and host_name(original.host) not in LOCAL_HOSTS
        )

    def _is_ignored(self, request: Request) -> bool:
        return (
            self._settings.reverse_proxy
            and not self._trust.trusts(request.peer)
            and any(name in FORWARDED for name, _ in request.headers)
        )


def _cookie_text(original: OriginalRequest) -> str:
    return (
        f"request to {original.host} arrived over plain http, where browsers drop cookies "
        "of cookie_secure; use https, or let the gateway send X-Forwarded-Proto and set "
        "reverse_proxy"
    )
