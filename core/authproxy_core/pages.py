"""Sign-in and error pages (stop-gap)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from .messages import Event, Headers, Respond
from .settings import Settings

NO_CACHE: Headers = (
    (b"cache-control", b"no-cache, no-store, must-revalidate, max-age=0"),
    (b"expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
    (b"x-accel-expires", b"0"),
)
HTML: Headers = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
)


class Pages:
    def __init__(
        self, settings: Settings, providers: Sequence[tuple[str, str]]
    ) -> None:
        self._prefix = settings.proxy_prefix
        self._providers = providers
        self._debug = settings.pages.show_debug_on_error

    def sign_in(
        self,
        *,
        status: int,
        redirect: str,
        headers: Headers = (),
        events: tuple[Event, ...] = (),
    ) -> Respond:
        href = f"{self._prefix}/start?rd={quote(redirect, safe='')}"
        body = "<!doctype html><title>Sign in</title>" + "".join(
            f'<a href="{escape(href)}">Sign in with {escape(name)}</a>'
            for _, name in self._providers
        )
        return Respond(status, (*HTML, *NO_CACHE, *headers), body.encode(), events)

    def error(
        self,
        *,
        status: int,
        message: str,
        request_id: str,
        redirect: str = "",
        title: str = "",
        detail: str = "",
        headers: Headers = (),
        events: tuple[Event, ...] = (),
    ) -> Respond:
        body = f"<!doctype html><title>{status}</title><p>{escape(message)}</p>"
        if self._debug:
            body += f"<pre>{escape(detail)}</pre>"
        body += f"<p>Request ID: {escape(request_id)}</p>"
        return Respond(status, (*HTML, *NO_CACHE, *headers), body.encode(), events)

    def robots(self) -> Respond:
        return Respond(
            200,
            ((b"content-type", b"text/plain; charset=utf-8"),),
            b"User-agent: *\nDisallow: /\n",
        )
