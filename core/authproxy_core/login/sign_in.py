"""The sign-in page, and the form for a name and a password on it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from ..access.credentials import local_session, password_rejected_event
from ..access.htpasswd import Htpasswd
from ..effects import Flow, Outcome
from ..messages import Decision, Event, Headers, Request, Respond, first_header
from ..pages.challenge import forbidden_response
from ..pages.outcomes import resolve_outcome
from ..request.authorization import Basic, basic
from ..request.forms import parse_form
from ..request.original import OriginalRequest
from .context import Context, redirect
from .flow import raw_query, read_form, sign_in_page, start_login_when_ready

SAME_SITE = (b"same-origin", b"none")


def sign_in(context: Context, request: Request, cleared: Headers) -> Outcome:
    """The page, or the way to the provider when there is no button.

    *cleared* ends a cookie that holds no session; a good one stays.
    """
    if request.method == b"POST":
        return _handle_form(context, context.htpasswd, request, cleared)
    form = parse_form(raw_query(request))
    if context.settings.skip_provider_button:
        return start_login_when_ready(context, request, form)
    return sign_in_page(context, request, 200, form, cleared)


def _handle_form(
    context: Context, htpasswd: Htpasswd | None, request: Request, cleared: Headers
) -> Flow[Decision]:
    form = yield from read_form(request)
    asks = htpasswd is None or "username" not in form
    if asks and context.settings.skip_provider_button:
        return (
            yield from resolve_outcome(start_login_when_ready(context, request, form))
        )
    if htpasswd is None:
        return sign_in_page(context, request, 200, form, cleared)
    original = context.trusted_proxies.original(request)
    if _is_cross_site_form(request, original):
        return forbidden_response(cleared, "foreign_form")
    name = form.get("username", "")
    if not name:
        return sign_in_page(context, request, 400, form, cleared)
    given = basic(name.encode(), form.get("password", "").encode())
    right: bool | None = False
    if isinstance(given, Basic):
        right = yield from htpasswd.verify(given, original.client)
    if not isinstance(given, Basic) or not right:
        status = 429 if right is None else 401
        event = password_rejected_event(name[:64], right)
        return sign_in_page(context, request, status, form, cleared, (event,))
    return (yield from _create_session(context, request, original, form, given.user))


def _create_session(
    context: Context,
    request: Request,
    original: OriginalRequest,
    form: Mapping[str, str],
    user: str,
) -> Flow[Respond]:
    settings = context.settings.credentials
    session = local_session(settings, user, context.clock(), stored=True)
    kept = yield from context.sessions.create(
        session, request.headers, host=original.host
    )
    rd = context.redirect_target(request, form)
    event = Event("logged_in", user, session.provider, f"authenticated: {session!r}")
    return redirect(rd, kept.headers, (event,), user)


def _is_cross_site_form(request: Request, original: OriginalRequest) -> bool:
    """Whether another site's page sent the form, to log its visitor in as somebody.

    Browsers say where a form comes from; who says nothing is none, and has no visitor.
    """
    site = first_header(request.headers, b"sec-fetch-site")
    if site is not None:
        return site not in SAME_SITE
    origin = first_header(request.headers, b"origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin.decode()).netloc.lower() != original.host.lower()
    except ValueError:
        return True
