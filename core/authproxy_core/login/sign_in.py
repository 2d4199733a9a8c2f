"""Sign-in page, and its form for username and password."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec.structs import replace

from ..access.credentials import local_session, password_rejected_event
from ..access.htpasswd import Htpasswd
from ..effects import Flow, Outcome
from ..messages import Decision, Event, Headers, Request, Respond, first_header
from ..pages.outcomes import resolve_outcome
from ..request.authorization import Basic, basic
from ..request.forms import parse_form
from ..request.original import OriginalRequest
from .context import Context, redirect
from .failures import DENIED
from .flow import raw_query, read_form, sign_in_page, start_login_when_ready

SAME_SITE = (b"same-origin", b"none")
FOREIGN_FORM = (
    "The sign-in form was sent from another site. Open the application and sign in "
    "there."
)


def sign_in(context: Context, request: Request, cleared: Headers) -> Outcome:
    """Return the sign-in page, or with skip_provider_button start a login.

    *cleared* are the cookies that clear an unusable session; they are added to the page.
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
    has_credentials = htpasswd is not None and "username" in form
    if not has_credentials and context.settings.skip_provider_button:
        return (
            yield from resolve_outcome(start_login_when_ready(context, request, form))
        )
    if htpasswd is None:
        return sign_in_page(context, request, 200, form, cleared)
    original = context.trusted_proxies.original(request)
    if _is_cross_site_form(request, original):
        return _foreign_form_page(context, request, cleared)
    username = form.get("username", "")
    if not username:
        return sign_in_page(context, request, 400, form, cleared)
    credentials = basic(username.encode(), form.get("password", "").encode())
    valid: bool | None = False
    if isinstance(credentials, Basic):
        valid = yield from htpasswd.verify(credentials, original.client)
    if not isinstance(credentials, Basic) or not valid:
        status = 429 if valid is None else 401
        event = password_rejected_event(username[:64], valid)
        return sign_in_page(context, request, status, form, cleared, (event,))
    return (
        yield from _create_session(context, request, original, form, credentials.user)
    )


def _create_session(
    context: Context,
    request: Request,
    original: OriginalRequest,
    form: Mapping[str, str],
    user: str,
) -> Flow[Respond]:
    settings = context.settings.credentials
    session = local_session(settings, user, context.clock(), stored=True)
    created = yield from context.sessions.create(
        session, request.headers, host=original.host
    )
    rd = context.redirect_target(request, form)
    event = Event("logged_in", user, session.provider, f"authenticated: {session!r}")
    return redirect(rd, created.headers, (event,), user)


def _foreign_form_page(context: Context, request: Request, cleared: Headers) -> Respond:
    page = context.pages.error(
        request,
        status=403,
        title=DENIED,
        message=FOREIGN_FORM,
        redirect="/",
        headers=cleared,
    )
    return replace(page, verdict="denied", reason="foreign_form")


def _is_cross_site_form(request: Request, original: OriginalRequest) -> bool:
    """Return whether a page of another site sent the form (login CSRF).

    Browsers send Sec-Fetch-Site or Origin with a form. A request with neither comes
    from a program, which has no user to sign in.
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
