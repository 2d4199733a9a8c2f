"""Logouts that the provider begins: over the back channel, and in an iframe.

OpenID Connect Back-Channel Logout 1.0: the provider posts a signed logout token, and
the sessions that it means are ended, wherever they are. Front-Channel Logout 1.0: the
provider's page loads ours in an iframe, which ends the session of this browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import orjson

from ..effects import Flow, Load, ReadBody, Save
from ..errors import AuthProxyError, ProviderError, RequestError, StoreError, TokenError
from ..identity.claims import claim_list
from ..login.context import Context
from ..login.flow import MAX_FORM_BYTES, raw_query
from ..messages import Decision, Event, Request, Respond, first_header
from ..oidc.jwt import unverified_claims
from ..oidc.logout_token import LogoutToken
from ..pages.challenge import JSON_HEADERS, NO_STORE
from ..pages.pages import NO_CACHE
from ..providers.base import Provider
from ..request.forms import parse_form
from ..session import Session
from ..sessions.formats import sid_of

FORM = b"application/x-www-form-urlencoded"
EMPTY_PAGE = b"<!doctype html><title>Signed out</title>"


def logout_routes(
    context: Context,
) -> Iterator[tuple[bytes, Callable[[Request], Flow[Decision]]]]:
    """The endpoints that the settings switch on."""
    prefix, logout = context.settings.proxy_prefix.encode(), context.settings.logout
    if logout.back_channel:
        yield (
            prefix + b"/backchannel-logout",
            lambda request: back_channel(context, request),
        )
    if logout.front_channel:
        yield (
            prefix + b"/frontchannel-logout",
            lambda request: front_channel(context, request),
        )


# -- the back channel


def back_channel(context: Context, request: Request) -> Flow[Decision]:
    """End the sessions that a logout token means (Back-Channel Logout §2.5 to §2.8)."""
    if request.method != b"POST":
        return Respond(405, ((b"allow", b"POST"), *NO_STORE), b"")
    try:
        token = yield from _read_logout_token(request)
        provider = _find_provider(context, token)
        logout = yield from provider.verify_logout_token(token)
        key = _replay_key(context, provider, logout)
        if (yield from Load(key)) is not None:
            raise TokenError("the logout token was used before", reason="replay")
        revoked = yield from context.sessions.index.revoke_by_logout_token(
            provider.id, subject=logout.subject, sid=logout.sid
        )
        # Noted last, so that a logout that failed half-way can be sent again.
        leeway = 2 * context.settings.clock_skew
        ttl = max(logout.expires_at - context.clock(), 0.0) + leeway + 1.0
        yield from Save(key, b"1", ttl)
    except StoreError as error:
        return _reject("logout_failed", error)
    except (TokenError, ProviderError, RequestError) as error:
        return _reject("invalid_request", error)
    detail = f"{revoked.count} sessions ended in the store"
    if revoked.cookie_sessions_revoked:
        detail += ", those in cookies are listed as revoked"
    event = Event("logged_out_by_provider", logout.subject, provider.id, detail)
    return Respond(200, NO_STORE, b"", (event,))


def _read_logout_token(request: Request) -> Flow[str]:
    kind = first_header(request.headers, b"content-type") or b""
    if kind.partition(b";")[0].strip().lower() != FORM:
        raise TokenError("expected a form with a logout token", reason="malformed")
    body = yield from ReadBody(MAX_FORM_BYTES)
    token = parse_form(b"", body).get("logout_token", "")
    if not token:
        raise TokenError("expected a logout_token in the body", reason="malformed")
    return token


def _find_provider(context: Context, token: str) -> Provider:
    """The provider that the token says to be of; its signature is yet to be judged.

    Several clients may have one issuer: the audience tells which is meant.
    """
    claims = unverified_claims(token)
    issuer, audience = claims.get("iss"), claim_list(claims.get("aud"))
    found = [
        provider
        for provider in context.providers.values()
        if issuer is not None and issuer in _issuers(provider)
    ]
    if not found:
        raise TokenError(
            "the logout token is of no provider that is known", reason="issuer"
        )
    meant = (one for one in found if one.settings.client_id in audience)
    return next(meant, found[0])


def _issuers(provider: Provider) -> tuple[str, ...]:
    known = provider.metadata.issuer if provider.metadata else ""
    return (known, provider.settings.issuer)


def _replay_key(context: Context, provider: Provider, logout: LogoutToken) -> str:
    formats = context.sessions.formats
    digits = formats.key_hashes("jti", provider.id, logout.jti)[0]
    return f"{context.settings.cookie.name}:jti:{digits}"


def _reject(code: str, error: AuthProxyError) -> Respond:
    reason = getattr(error, "reason", error.code)
    event = Event("logout_refused", reason=reason, detail=str(error))
    body = orjson.dumps({"error": code, "error_description": str(error)})
    return Respond(400, (*JSON_HEADERS, *NO_STORE), body, (event,))


# -- the front channel


def front_channel(context: Context, request: Request) -> Flow[Decision]:
    """End this browser's session if it is the one meant (Front-Channel Logout §3).

    Without the session's cookie (a browser may keep it back in a foreign page) there is
    nothing to end: who only knows a ``sid`` ends nobody's session.
    """
    form = parse_form(raw_query(request))
    sessions, frames = context.sessions, _frame_headers(context)
    entry = sessions.lookup(request.headers)
    if entry is not None and entry.needs_load:
        entry = yield from sessions.load(entry)
    if entry is None or not _names_session(context, entry.session, form):
        return Respond(400, frames, b"")
    yield from sessions.revoke(entry)
    browser = context.browser(request)
    cleared = sessions.clear(host=browser.host, present=browser.present)
    name = entry.session.name
    event = Event("logged_out", name, detail="signed out at the provider")
    return Respond(200, (*frames, *cleared), EMPTY_PAGE, (event,), name)


def _names_session(context: Context, session: Session, form: dict[str, str]) -> bool:
    metadata = context.provider_of(session).metadata
    sid = sid_of(session)
    return bool(
        metadata
        and sid
        and form.get("sid") == sid
        and form.get("iss") == metadata.issuer
    )


def _frame_headers(context: Context) -> tuple[tuple[bytes, bytes], ...]:
    """Headers of a page that only the providers' pages may have in a frame."""
    origins = {
        origin
        for provider in context.providers.values()
        if provider.metadata is not None
        for url in (provider.metadata.issuer, provider.metadata.end_session_endpoint)
        if (origin := _origin(url))
    }
    ancestors = " ".join(sorted(origins)) or "'none'"
    policy = f"default-src 'none'; frame-ancestors {ancestors}".encode()
    return (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", policy),
        *NO_CACHE,
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
