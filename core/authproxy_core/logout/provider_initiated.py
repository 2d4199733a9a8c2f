"""Logout by the provider: back-channel and front-channel logout endpoints.

OpenID Connect Back-Channel Logout 1.0: the provider posts a signed logout token, which
revokes the sessions that it names. Front-Channel Logout 1.0: the provider's page loads
the endpoint in an iframe, which revokes the session of this browser.
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
from ..providers.endpoints import check_algorithm
from ..request.forms import parse_form
from ..session import Session
from ..sessions.formats import sid_of

FORM = b"application/x-www-form-urlencoded"
EMPTY_PAGE = b"<!doctype html><title>Signed out</title>"


def logout_routes(
    context: Context,
) -> Iterator[tuple[bytes, Callable[[Request], Flow[Decision]]]]:
    """Yield path and handler of the logout endpoints that the settings enable."""
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


# -- back-channel logout


def back_channel(context: Context, request: Request) -> Flow[Decision]:
    """Revoke the sessions of a logout token (Back-Channel Logout §2.5 to §2.8)."""
    if request.method != b"POST":
        return Respond(405, ((b"allow", b"POST"), *NO_STORE), b"")
    try:
        token = yield from _read_logout_token(request)
        provider = _find_provider(context, token)
        logout = yield from provider.verify_logout_token(token)
        # After the signature, so only tokens of the provider cause store operations.
        known = yield from context.sessions.index.algorithms(provider.id)
        check_algorithm(token, provider.settings, known)
        key = _replay_key(context, provider, logout)
        if (yield from Load(key)) is not None:
            raise TokenError("the logout token was used before", reason="replay")
        revoked = yield from context.sessions.index.revoke_by_logout_token(
            provider.id, subject=logout.subject, sid=logout.sid
        )
        # Saved last, so the provider can retry a logout that failed halfway.
        leeway = 2 * context.settings.clock_skew
        ttl = max(logout.expires_at - context.clock(), 0.0) + leeway + 1.0
        yield from Save(key, b"1", ttl)
    except StoreError as error:
        return _reject("logout_failed", error)
    except (TokenError, ProviderError, RequestError) as error:
        return _reject("invalid_request", error)
    detail = f"{revoked.count} stored sessions revoked"
    if revoked.cookie_sessions_revoked:
        detail += ", cookie sessions marked as revoked"
    event = Event("logged_out_by_provider", logout.subject, provider.id, detail)
    return Respond(200, NO_STORE, b"", (event,))


def _read_logout_token(request: Request) -> Flow[str]:
    kind = first_header(request.headers, b"content-type") or b""
    if kind.partition(b";")[0].strip().lower() != FORM:
        raise TokenError("expected a form with a logout_token", reason="malformed")
    body = yield from ReadBody(MAX_FORM_BYTES)
    token = parse_form(b"", body).get("logout_token", "")
    if not token:
        raise TokenError("expected a logout_token in the body", reason="malformed")
    return token


def _find_provider(context: Context, token: str) -> Provider:
    """Return the provider that the unverified *token* names as its issuer.

    Several providers may share an issuer; the audience selects one of them. Raises
    `TokenError` for an unknown issuer.
    """
    claims = unverified_claims(token)
    issuer, audience = claims.get("iss"), claim_list(claims.get("aud"))
    found = [
        provider
        for provider in context.providers.values()
        if isinstance(issuer, str) and issuer in provider.issuers
    ]
    if not found:
        raise TokenError(
            "the issuer of the logout token is not a configured provider",
            reason="issuer",
        )
    addressed = (one for one in found if one.settings.client_id in audience)
    return next(addressed, found[0])


def _replay_key(context: Context, provider: Provider, logout: LogoutToken) -> str:
    formats = context.sessions.formats
    digits = formats.key_hashes("jti", provider.id, logout.jti)[0]
    return f"{context.settings.cookie.name}-jti:{digits}"


def _reject(code: str, error: AuthProxyError) -> Respond:
    reason = getattr(error, "reason", error.code)
    event = Event("logout_refused", reason=reason, detail=str(error))
    body = orjson.dumps({"error": code, "error_description": str(error)})
    return Respond(400, (*JSON_HEADERS, *NO_STORE), body, (event,))


# -- front-channel logout


def front_channel(context: Context, request: Request) -> Flow[Decision]:
    """Revoke this browser's session if ``iss`` and ``sid`` name it, or are left out (§3).

    A provider may send both or none. A browser may withhold the session cookie from an
    iframe; then nothing is revoked, because a ``sid`` alone does not authorize a logout.
    """
    form = parse_form(raw_query(request))
    sessions, headers = context.sessions, _frame_headers(context)
    is_named = "iss" in form or "sid" in form
    if not is_named and not _is_frame(request):
        return Respond(400, headers, b"")
    entry = sessions.lookup(request.headers)
    if entry is not None and entry.needs_load:
        entry = yield from sessions.load(entry)
    if entry is None or (is_named and not _names_session(context, entry.session, form)):
        return Respond(400, headers, b"")
    yield from sessions.revoke(entry)
    for twin in () if is_named else sessions.candidates(request.headers, entry):
        yield from sessions.revoke(twin)
    cleared = sessions.clear(context.browser(request))
    name = entry.session.name
    event = Event("logged_out", name, detail="signed out at the provider")
    return Respond(200, (*headers, *cleared), EMPTY_PAGE, (event,), name)


def _is_frame(request: Request) -> bool:
    """Return whether the request can be that of an iframe (Fetch Metadata).

    Without ``iss`` and ``sid`` nothing shows that the provider caused it. An image or
    script in any page, such as a forum post, must not end sessions.
    """
    if request.method != b"GET":
        return False
    dest = first_header(request.headers, b"sec-fetch-dest")
    return dest in (None, b"iframe", b"frame")


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
    """Return the headers of a page that only pages of the providers may frame."""
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
