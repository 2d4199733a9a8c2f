"""Signing out: the session ends here, and on request at the provider too."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from ..effects import Fetch, Flow
from ..errors import FetchError
from ..login.context import Context, redirect
from ..login.flow import read_form
from ..messages import Event, Request, Respond, first_header
from ..providers.revocation import revoke
from ..session import Session

LOGOUT_TIMEOUT = 5.0  # seconds for the provider to hear of it; the user waits
PLACEHOLDER = "{id_token}"


def sign_out(context: Context, request: Request) -> Flow[Respond]:
    """End the session in this browser and go on to where ``rd`` says."""
    if _is_cross_site_subresource(request):
        return Respond(
            403, ((b"content-type", b"text/plain; charset=utf-8"),), b"Forbidden\n"
        )
    form = yield from read_form(request)
    sessions = context.sessions
    entry = sessions.lookup(request.headers)
    if entry is not None and entry.needs_load:
        # One that is over is ended all the same: it may only have been idle.
        entry = (yield from sessions.load(entry)) or entry
    session = entry.session if entry else None
    target = form.get("rd", "")
    if PLACEHOLDER in target:
        form = {**form, "rd": _fill_id_token(context, target, session)}
    sign_in = f"{context.settings.proxy_prefix}/sign_in"
    # Of the own pages only this one makes sense here; others would loop.
    own = form.get("rd", "").partition("?")[0] == sign_in
    rd = context.redirect_target(request, form, own_endpoints=own)
    headers = sessions.clear(
        host=context.host(request), present=sessions.cookie_names(request.headers)
    )
    if entry is None or session is None:
        return redirect(rd, headers)
    # First here, whatever the provider says or does not say.
    yield from sessions.revoke(entry)
    event = Event("logged_out", session.name, detail="signed out")
    failed = yield from _call_backend_logout(context, session)
    failed += yield from _revoke_tokens(context, session)
    location = _end_session_url(context, request, session, rd) or rd
    return redirect(location, headers, (event, *failed), session.name)


def _call_backend_logout(context: Context, session: Session) -> Flow[tuple[Event, ...]]:
    """Call ``backend_logout_url``; that it fails is noted and changes nothing."""
    url = context.provider_of(session).settings.backend_logout_url
    if not url:
        return ()
    url = url.replace(PLACEHOLDER, quote(session.id_token, safe=""))
    try:
        response = yield from Fetch(
            "GET", url, timeout=LOGOUT_TIMEOUT, purpose="logout"
        )
    except FetchError as error:
        detail = str(error)
    else:
        if response.status in (200, 204):
            return ()
        detail = f"backend_logout_url answered with status {response.status}"
    reason = "backend_logout"
    return (Event("logout_failed", session.name, reason, detail),)


def _revoke_tokens(context: Context, session: Session) -> Flow[tuple[Event, ...]]:
    """Revoke the session's tokens, if wanted; that it fails changes nothing."""
    if not context.settings.logout.revokes_tokens:
        return ()
    detail = yield from revoke(context.provider_of(session), session)
    if not detail:
        return ()
    return (Event("logout_failed", session.name, "revocation", detail),)


def _end_session_url(
    context: Context, request: Request, session: Session, rd: str
) -> str:
    """Where the session ends at the provider as well (RP-Initiated Logout §2).

    Empty unless that is wanted and the provider offers it. The way back is *rd*, which
    has to be registered there.
    """
    if not context.settings.logout.at_provider:
        return ""
    if rd.startswith("/"):
        original = context.trusted_proxies.original(request)
        scheme = "https" if context.settings.cookie.secure else original.scheme
        rd = f"{scheme}://{original.host}{rd}"
    return context.provider_of(session).end_session_url(session.id_token, rd)


def _is_cross_site_subresource(request: Request) -> bool:
    """Whether another site's page loads this as an image or the like.

    A link or a form of another site that the user follows is a navigation and works.
    """
    site = first_header(request.headers, b"sec-fetch-site")
    mode = first_header(request.headers, b"sec-fetch-mode")
    return site == b"cross-site" and mode not in (None, b"navigate")


def _fill_id_token(context: Context, target: str, session: Session | None) -> str:
    """*target* with the ID token, if it is the logout address of its own provider.

    Anywhere else the token would go to a stranger, so there the hint is left empty.
    """
    token = ""
    if session is not None:
        provider = context.provider_of(session)
        endpoint = provider.end_session_url("", "").partition("?")[0]
        if endpoint and _is_same_endpoint(target, endpoint):
            token = session.id_token
    return target.replace(PLACEHOLDER, quote(token, safe=""))


def _is_same_endpoint(target: str, endpoint: str) -> bool:
    try:
        one, other = urlsplit(target), urlsplit(endpoint)
    except ValueError:
        return False
    return (one.scheme, one.netloc, one.path) == (
        other.scheme,
        other.netloc,
        other.path,
    )
