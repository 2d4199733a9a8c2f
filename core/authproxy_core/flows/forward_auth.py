"""What a gateway is told to answer for a request that may not pass (`forward_auth`).

The gateway hands our answer to the client as it is, so a browser that navigates is sent
to the login right here, and comes back to the URL that it asked for.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from ..challenge import is_navigation, login_needed
from ..effects import Flow, Outcome
from ..messages import Decision, Event, Request, Respond
from ..original import Original
from .answers import challenging, settled
from .context import Context, redirect
from .login import begin, denied

REFUSALS = (401, 403)


def passed(context: Context, request: Request, tail: bytes, check: Outcome) -> Outcome:
    """What the outcome of an auth *check* becomes for the client of a gateway."""
    if type(check) is not Respond:
        return _passed_later(context, request, tail, check)
    if check.status not in REFUSALS:
        return check
    return _challenged(context, request, tail, check)


def _passed_later(
    context: Context, request: Request, tail: bytes, check: Outcome
) -> Flow[Decision]:
    answer = yield from settled(check)
    return (yield from settled(passed(context, request, tail, answer)))


def _challenged(
    context: Context, request: Request, tail: bytes, answer: Respond
) -> Outcome:
    """What takes the place of the check's 401 or 403."""
    original = context.trust.asked(request, tail)
    cookies = tuple(field for field in answer.headers if field[0] == b"set-cookie")
    navigates = may_log_in(context, request, original)
    if answer.status == 403:
        if not navigates:
            return answer
        event = answer.events[0] if answer.events else Event("denied", reason="query")
        return denied(context, request, event, cookies)
    if not navigates:
        return login_needed(login_page(context, original), cookies)
    if context.settings.skip_provider_button and not login_elsewhere(context, original):
        form = {"rd": return_to(context, original)}
        return begin(context, request, form, cookies, original, challenge=True)
    return challenging(redirect(login_page(context, original), cookies))


def may_log_in(context: Context, request: Request, original: Original) -> bool:
    """Whether a redirect to the login is of any use for whoever asked."""
    return (
        not context.settings.force_json_errors
        and not context.gate.is_api(original)
        and is_navigation(original.method, request.headers)
    )


def login_elsewhere(context: Context, original: Original) -> str:
    """Scheme and host where the login of *original* takes place, "" if at its own.

    The callback's host is where the login's cookie has to be set.
    """
    parts = urlsplit(context.callback_url(original))
    if not parts.netloc or parts.netloc.lower() == original.host.lower():
        return ""
    return f"{parts.scheme}://{parts.netloc}"


def own_origin(context: Context, original: Original) -> str:
    """Scheme and host under which the client knows us."""
    scheme = "https" if context.settings.cookie.secure else original.scheme
    return f"{scheme}://{original.host}"


def return_to(context: Context, original: Original) -> str:
    """The ``rd`` that brings the user back to *original*."""
    uri = original.uri.decode("utf-8", "surrogateescape")
    if login_elsewhere(context, original):
        return own_origin(context, original) + uri
    return uri


def login_page(context: Context, original: Original) -> str:
    """The absolute URL of the login for *original*, which leads back to it.

    Absolute, because gateways resolve a relative one against our own address.
    """
    origin = login_elsewhere(context, original) or own_origin(context, original)
    page = "start" if context.settings.skip_provider_button else "sign_in"
    rd = quote(return_to(context, original), safe="/:", errors="surrogateescape")
    return f"{origin}{context.settings.proxy_prefix}/{page}?rd={rd}"
