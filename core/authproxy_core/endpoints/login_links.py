"""Links to the login that return to the original request of a gateway."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from ..access.rules import TAIL_FIELD
from ..login.context import Context
from ..messages import Request, first_header
from ..pages.challenge import is_navigation
from ..request.original import OriginalRequest


def can_redirect_to_login(
    context: Context, request: Request, original: OriginalRequest
) -> bool:
    """Return whether the client is a browser that can follow a redirect to the login."""
    return (
        not context.settings.force_json_errors
        and not context.auth_bypass.is_api(original)
        and is_navigation(original.method, request.headers)
    )


def callback_origin(context: Context, original: OriginalRequest) -> str:
    """Return ``scheme://host`` of the callback, "" if *original* has the same host.

    The login must start on the callback's host, where its cookie has to be set.
    """
    parts = urlsplit(context.callback_url(original))
    if not parts.netloc or parts.netloc.lower() == original.host.lower():
        return ""
    return f"{parts.scheme}://{parts.netloc}"


def external_origin(context: Context, original: OriginalRequest) -> str:
    """Return ``scheme://host`` of *original* as the client sees it."""
    scheme = "https" if context.settings.cookie.secure else original.scheme
    return f"{scheme}://{original.host}"


def return_to(context: Context, original: OriginalRequest) -> str:
    """Return the ``rd`` parameter that brings the user back to *original*."""
    uri = original.uri.decode("utf-8", "surrogateescape")
    if callback_origin(context, original):
        return external_origin(context, original) + uri
    return uri


def login_url(context: Context, original: OriginalRequest) -> str:
    """Return the URL of a login that returns to *original*.

    It is absolute, because gateways resolve a relative one against authproxy's address.
    """
    origin = callback_origin(context, original) or external_origin(context, original)
    return origin + _login_page(context) + _rd_query(context, original)


def login_link(context: Context, request: Request) -> str | None:
    """Return the link to the login for the page of a 401, None for an API request.

    A browser resolves it against the URL of the original request. Raises
    `RequestError`.
    """
    tail = first_header(request.headers, TAIL_FIELD) or b""
    target = context.trusted_proxies.find_original(request, tail)
    if not can_redirect_to_login(context, request, target.original):
        return None
    link = callback_origin(context, target.original) + _login_page(context)
    return link + _rd_query(context, target.original) if target.has_uri else link


def _login_page(context: Context) -> str:
    page = "start" if context.settings.skip_provider_button else "sign_in"
    return f"{context.settings.proxy_prefix}/{page}"


def _rd_query(context: Context, original: OriginalRequest) -> str:
    rd = quote(return_to(context, original), safe="/:", errors="surrogateescape")
    return f"?rd={rd}"
