"""What a gateway is told to answer for a request that may not pass (`forward_auth`).

The gateway hands our answer to the client as it is, so a browser that navigates is sent
to the login right here, and comes back to the URL that it asked for.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from ..effects import Flow, Outcome
from ..login.context import Context, redirect
from ..login.flow import access_denied_page, start_login_when_ready
from ..messages import Decision, Event, Request, Respond
from ..pages.challenge import is_navigation, login_required_response
from ..pages.outcomes import as_challenge, resolve_outcome
from ..request.original import OriginalRequest

REFUSALS = (401, 403)


def forward_auth_response(
    context: Context, request: Request, tail: bytes, check: Outcome
) -> Outcome:
    """What the outcome of an auth *check* becomes for the client of a gateway."""
    if type(check) is not Respond:
        return _passed_later(context, request, tail, check)
    if check.status not in REFUSALS:
        return check
    return _challenged(context, request, tail, check)


def _passed_later(
    context: Context, request: Request, tail: bytes, check: Outcome
) -> Flow[Decision]:
    answer = yield from resolve_outcome(check)
    return (
        yield from resolve_outcome(
            forward_auth_response(context, request, tail, answer)
        )
    )


def _challenged(
    context: Context, request: Request, tail: bytes, answer: Respond
) -> Outcome:
    """What takes the place of the check's 401 or 403."""
    original = context.trusted_proxies.original_for_auth(request, tail)
    cookies = tuple(field for field in answer.headers if field[0] == b"set-cookie")
    navigates = can_redirect_to_login(context, request, original)
    if answer.status == 403:
        if not navigates:
            return answer
        event = answer.events[0] if answer.events else Event("denied", reason="query")
        return access_denied_page(context, request, event, cookies)
    if not navigates:
        return login_required_response(login_url(context, original), cookies)
    if context.settings.skip_provider_button and not callback_origin(context, original):
        form = {"rd": return_to(context, original)}
        return start_login_when_ready(
            context, request, form, cookies, original, challenge=True
        )
    return as_challenge(redirect(login_url(context, original), cookies))


def can_redirect_to_login(
    context: Context, request: Request, original: OriginalRequest
) -> bool:
    """Whether a redirect to the login is of any use for whoever asked."""
    return (
        not context.settings.force_json_errors
        and not context.auth_bypass.is_api(original)
        and is_navigation(original.method, request.headers)
    )


def callback_origin(context: Context, original: OriginalRequest) -> str:
    """Scheme and host where the login of *original* takes place, "" if at its own.

    The callback's host is where the login's cookie has to be set.
    """
    parts = urlsplit(context.callback_url(original))
    if not parts.netloc or parts.netloc.lower() == original.host.lower():
        return ""
    return f"{parts.scheme}://{parts.netloc}"


def external_origin(context: Context, original: OriginalRequest) -> str:
    """Scheme and host under which the client knows us."""
    scheme = "https" if context.settings.cookie.secure else original.scheme
    return f"{scheme}://{original.host}"


def return_to(context: Context, original: OriginalRequest) -> str:
    """The ``rd`` that brings the user back to *original*."""
    uri = original.uri.decode("utf-8", "surrogateescape")
    if callback_origin(context, original):
        return external_origin(context, original) + uri
    return uri


def login_url(context: Context, original: OriginalRequest) -> str:
    """The absolute URL of the login for *original*, which leads back to it.

    Absolute, because gateways resolve a relative one against our own address.
    """
    origin = callback_origin(context, original) or external_origin(context, original)
    page = "start" if context.settings.skip_provider_button else "sign_in"
    rd = quote(return_to(context, original), safe="/:", errors="surrogateescape")
    return f"{origin}{context.settings.proxy_prefix}/{page}?rd={rd}"
