"""The forward-auth endpoint: the auth check, redirecting browsers to the login.

The gateway passes the response on to the client. A browser that navigates is redirected
to the login and returns to the original URL; other clients get 401 as JSON.
"""

from __future__ import annotations

from ..effects import Flow, Outcome
from ..login.context import Context, redirect
from ..login.error_pages import access_denied_page
from ..login.flow import start_login_when_ready
from ..messages import Decision, Event, Request, Respond
from ..pages.challenge import login_required_response
from ..pages.outcomes import as_challenge, resolve_outcome
from .auth_check import AuthCheck
from .login_links import callback_origin, can_redirect_to_login, login_url, return_to


def forward_auth(
    context: Context, auth_check: AuthCheck, request: Request, tail: bytes = b""
) -> Outcome:
    """Return the response of the auth check, or how to log in instead of 401 and 403.

    *tail* is the original URI if the gateway appends it to the endpoint's path. Raises
    `RequestError`.
    """
    checked = auth_check.check_original(request, tail)
    if isinstance(checked, Decision):
        return _with_login(context, request, tail, checked)
    return _with_login_later(context, request, tail, checked)


def _with_login_later(
    context: Context, request: Request, tail: bytes, check: Flow[Decision]
) -> Flow[Decision]:
    checked = yield from check
    return (yield from resolve_outcome(_with_login(context, request, tail, checked)))


def _with_login(
    context: Context, request: Request, tail: bytes, checked: Decision
) -> Outcome:
    """Replace a 401 or 403 of the auth check by a response that helps the client."""
    if not isinstance(checked, Respond) or checked.status not in (401, 403):
        return checked
    original = context.trusted_proxies.original_for_auth(request, tail)
    cookies = tuple(field for field in checked.headers if field[0] == b"set-cookie")
    is_redirectable = can_redirect_to_login(context, request, original)
    if checked.status == 403:
        if not is_redirectable:
            return checked
        event = checked.events[0] if checked.events else Event("denied", reason="query")
        return access_denied_page(context, request, event, cookies)
    if not is_redirectable:
        return login_required_response(login_url(context, original), cookies)
    if context.settings.skip_provider_button and not callback_origin(context, original):
        form = {"rd": return_to(context, original)}
        return start_login_when_ready(
            context, request, form, cookies, original, challenge=True
        )
    return as_challenge(redirect(login_url(context, original), cookies))
