"""Sign-out: revoke the session, and if configured also at the provider; its page."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from ..effects import Fetch, Flow
from ..errors import AuthProxyError, FetchError
from ..login.context import Context, redirect
from ..login.flow import raw_query, read_form
from ..messages import Event, Request, Respond, first_header
from ..request.forms import parse_form
from ..session import Session

LOGOUT_TIMEOUT = 5.0  # seconds per request to the provider; the user waits
PLACEHOLDER = "{id_token}"


def sign_out(context: Context, request: Request) -> Flow[Respond]:
    """Revoke the session, clear its cookies, and redirect to ``rd``."""
    if _is_cross_site_subresource(request):
        return Respond(
            403, ((b"content-type", b"text/plain; charset=utf-8"),), b"Forbidden\n"
        )
    form = yield from read_form(request)
    sessions = context.sessions
    entry = sessions.lookup(request.headers)
    if entry is not None and entry.needs_load:
        # A session that fails to load is revoked too: it may only be idle.
        entry = (yield from sessions.load(entry)) or entry
    session = entry.session if entry else None
    target = form.get("rd", "")
    if PLACEHOLDER in target:
        form = {**form, "rd": _fill_id_token(context, target, session)}
    prefix = context.settings.proxy_prefix
    if not target and context.settings.logout.shows_page:
        form = {**form, "rd": f"{prefix}/signed_out"}
    # Other proxy endpoints would sign in again or loop.
    pages = (f"{prefix}/sign_in", f"{prefix}/signed_out")
    is_page = form.get("rd", "").partition("?")[0] in pages
    rd = context.redirect_target(request, form, allow_pages=is_page)
    headers = sessions.clear(context.browser(request))
    if entry is None or session is None:
        return redirect(rd, headers)
    # Revoke locally first: requests to the provider may fail.
    yield from sessions.revoke(entry)
    for twin in sessions.candidates(request.headers, entry):
        if twin.sealed != entry.sealed:
            yield from sessions.revoke(twin)
    event = Event("logged_out", session.name, detail="signed out")
    failed = yield from _call_backend_logout(context, session)
    failed += yield from _revoke_tokens(context, session)
    location = _end_session_url(context, request, session, rd) or rd
    return redirect(location, headers, (event, *failed), session.name)


def signed_out(context: Context, request: Request) -> Respond:
    """Return the signed-out page; a browser with a session gets to the application.

    The page would be untrue for it, and any site can link to the page.
    """
    rd = context.redirect_target(request, parse_form(raw_query(request)))
    if context.sessions.lookup(request.headers) is not None:
        return redirect(rd)
    return context.pages.signed_out(request, rd)


def _call_backend_logout(context: Context, session: Session) -> Flow[tuple[Event, ...]]:
    """Call ``backend_logout_url``; return an event if that fails."""
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
        detail = (
            f"backend_logout_url: got status {response.status}, expected 200 or 204"
        )
    reason = "backend_logout"
    return (Event("logout_failed", session.name, reason, detail),)


def _revoke_tokens(context: Context, session: Session) -> Flow[tuple[Event, ...]]:
    """Revoke the refresh token and its access tokens (RFC 7009 §2.1), if configured.

    Returns an event if that fails.
    """
    provider = context.provider_of(session)
    endpoint = provider.metadata.revocation_endpoint if provider.metadata else ""
    wanted = context.settings.logout.revokes_tokens
    if not (wanted and endpoint and session.refresh_token):
        return ()
    params = [("token", session.refresh_token), ("token_type_hint", "refresh_token")]
    try:
        request = yield from provider.client_request(params)
        response = yield from replace(
            request, url=endpoint, timeout=LOGOUT_TIMEOUT, purpose="revocation"
        )
    except AuthProxyError as error:
        detail = str(error)
    else:
        if response.status == 200:
            return ()
        detail = f"the revocation endpoint returned status {response.status}"
    return (Event("logout_failed", session.name, "revocation", detail),)


def _end_session_url(
    context: Context, request: Request, session: Session, rd: str
) -> str:
    """Return the URL that ends the session at the provider (RP-Initiated Logout §2).

    "" unless sign_out_at_provider is set and the provider has such an endpoint. The
    post-logout redirect is *rd*, which must be registered at the provider.
    """
    if not context.settings.logout.at_provider:
        return ""
    if rd.startswith("/"):
        original = context.trusted_proxies.original(request)
        scheme = "https" if context.settings.cookie.secure else original.scheme
        rd = f"{scheme}://{original.host}{rd}"
    return context.provider_of(session).end_session_url(session.id_token, rd)


def _is_cross_site_subresource(request: Request) -> bool:
    """Return whether a page of another site loads the URL as an image or the like.

    A link or form of another site that the user activates is a navigation, and allowed.
    """
    site = first_header(request.headers, b"sec-fetch-site")
    mode = first_header(request.headers, b"sec-fetch-mode")
    return site == b"cross-site" and mode not in (None, b"navigate")


def _fill_id_token(context: Context, target: str, session: Session | None) -> str:
    """Return *target* with the ID token in the place of ``{id_token}``.

    The placeholder becomes empty unless *target* is the end-session endpoint of the
    session's provider: no other server may receive the token.
    """
    token = ""
    if session is not None:
        provider = context.provider_of(session)
        endpoint = provider.end_session_url("", "").partition("?")[0]
        if endpoint and _is_same_endpoint(target, endpoint):
            token = session.id_token
    return target.replace(PLACEHOLDER, quote(token, safe=""))


def _is_same_endpoint(target: str, endpoint: str) -> bool:
    """Return whether two URLs differ at most in query and fragment."""
    try:
        return urlsplit(target)[:3] == urlsplit(endpoint)[:3]
    except ValueError:
        return False
