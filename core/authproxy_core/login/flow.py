"""Login: authorization request and callback (OIDC Core §3.1.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec.structs import replace

from ..effects import Flow, Lock, Outcome, ReadBody
from ..errors import AuthProxyError, LoginStateError, ProviderError, StoreError
from ..messages import Decision, Event, Headers, Request, Respond, first_header
from ..pages import challenge
from ..pages.outcomes import as_challenge, with_headers
from ..pages.pages import NO_CACHE
from ..providers.base import Provider
from ..providers.missing_groups import explain_missing_groups
from ..request.forms import parse_form
from ..request.original import OriginalRequest
from ..session import Session
from ..sessions.session_cache import SessionEntry
from .context import Context, redirect
from .error_pages import access_denied_page, login_failed_page
from .failures import (
    denied_loop_failure,
    login_failure,
    login_loop_failure,
    provider_error_failure,
    target_too_long_failure,
)
from .loop_guard import LOOP_THRESHOLD, REPEAT_WINDOW, SIGNED_IN_THRESHOLD
from .redirects import MAX_TARGET_BYTES
from .state import ConsumedLogin, LoginState

MAX_FORM_BYTES = 64 << 10  # bytes
FINISHED_LOGIN_TTL = 3600.0  # seconds, if login states do not expire
NO_PROVIDER = ProviderError(
    "no provider is offered on this host",
    reason="no_provider",
    hint="add the host to a provider's hosts, or leave one provider without hosts",
)


def raw_query(request: Request) -> bytes:
    """Return the raw query of the request target."""
    return request.target.partition(b"?")[2]


def read_form(request: Request) -> Flow[dict[str, str]]:
    """Return the form values: the query, and the body of a URL-encoded POST.

    Raises `RequestError` or `EffectError`.
    """
    body = b""
    kind = first_header(request.headers, b"content-type") or b""
    if (
        request.method == b"POST"
        and kind.partition(b";")[0].strip().lower()
        == b"application/x-www-form-urlencoded"
    ):
        body = yield from ReadBody(MAX_FORM_BYTES)
    return parse_form(raw_query(request), body)


def choose_provider(
    context: Context, host: str, rd: str, form: Mapping[str, str]
) -> Provider | None:
    """Return the offered provider that *form* names, else the first offered one.

    Providers are offered per host: that of the redirect target *rd* if it names one,
    else *host*. Returns None if no provider is offered there.
    """
    host = context.redirect_host(host, rd)
    chosen = context.binding.choose(host, form.get("provider", ""))
    return context.providers[chosen] if chosen else None


def sign_in_page(
    context: Context,
    request: Request,
    status: int,
    form: Mapping[str, str],
    headers: Headers,
    events: tuple[Event, ...] = (),
) -> Respond:
    """Return the sign-in page with the providers that are offered on the host."""
    original = context.trusted_proxies.original(request)
    if context.redirects.is_target_too_long(request, original, form):
        failure = target_too_long_failure(MAX_TARGET_BYTES)
        return login_failed_page(context, request, failure, "/", headers)
    rd = context.redirect_target(request, form)
    host = context.redirect_host(original.host, rd)
    return context.pages.sign_in(
        request,
        status=status,
        redirect=rd,
        host=original.host,
        headers=headers,
        events=events,
        offered=context.binding.offered_providers(host),
    )


def start_login_when_ready(
    context: Context,
    request: Request,
    form: Mapping[str, str],
    headers: Headers = (),
    original: OriginalRequest | None = None,
    *,
    challenge: bool = False,
    login_hint: str = "",
) -> Outcome:
    """Start a login once its provider is ready; *headers* are added to the response.

    With *challenge* the response replaces a requested resource, so its verdict is
    "unauthenticated". *login_hint* is sent to the provider.
    """

    def start() -> Respond:
        response = start_login(context, request, form, original, login_hint=login_hint)
        response = with_headers(response, headers)
        return as_challenge(response) if challenge else response

    seen = original or context.trusted_proxies.original(request)
    rd = context.redirects.choose(request, seen, form)
    provider = choose_provider(context, seen.host, rd, form)
    entry = context.sessions.lookup(request.headers)
    if entry is not None or (provider is not None and provider.metadata is None):
        return _check_and_start(context, request, provider, entry, rd, start)
    return start()


def _check_and_start(
    context: Context,
    request: Request,
    provider: Provider | None,
    entry: SessionEntry | None,
    rd: str,
    start: Callable[[], Respond],
) -> Flow[Decision]:
    """Start a login once its provider is ready, unless the session *entry* is in a loop."""
    count = (yield from _count_after_login(context, request, entry)) if entry else 0
    if count >= SIGNED_IN_THRESHOLD:
        return login_failed_page(context, request, denied_loop_failure(count), rd)
    if provider is not None and provider.metadata is None:
        yield from context.readiness.wait_for(provider)
    return start()


def _count_after_login(
    context: Context, request: Request, entry: SessionEntry
) -> Flow[int]:
    """Count a login that starts soon after the one of the session; else return 0."""
    loaded: SessionEntry | None = entry
    if entry.needs_load:
        with suppress(StoreError):
            loaded = yield from context.sessions.load(entry)
    if loaded is None or loaded.needs_load:
        return 0
    session = loaded.session
    if context.clock() - session.login_at > REPEAT_WINDOW:
        return 0
    client = context.trusted_proxies.original(request).client
    return (yield from context.loops.count_signed_in(session.name, client))


def start_login(
    context: Context,
    request: Request,
    form: Mapping[str, str],
    original: OriginalRequest | None = None,
    *,
    is_restart: bool = False,
    login_hint: str = "",
) -> Respond:
    """Return the redirect to the provider, or an error page; performs no I/O.

    *original* overrides the original request that is derived from *request*.
    *is_restart* marks a login that replaces one whose state was lost.
    """
    original = original or context.trusted_proxies.original(request)
    looping = context.loops.login_count(request.headers)
    rd = context.redirects.choose(request, original, form)
    provider = choose_provider(context, original.host, rd, form)
    if provider is None:
        return login_failed_page(context, request, login_failure(NO_PROVIDER), rd)
    if context.redirects.is_target_too_long(request, original, form):
        failure = target_too_long_failure(MAX_TARGET_BYTES)
        return login_failed_page(context, request, failure, rd)
    entry = context.sessions.lookup(request.headers)
    if looping and entry is None:
        cleared = context.loops.clear_counter(original.host)
        browser = context.sessions.browser(
            request.headers, original.host, expires_twins=True
        )
        if browser.present:
            cleared = (*cleared, *context.sessions.clear(browser))
        failure = login_loop_failure(looping, sent_cookie=bool(browser.present))
        return login_failed_page(context, request, failure, rd, cleared)
    try:
        started = context.login_states.create(
            request.headers,
            host=original.host,
            provider=provider.id,
            rd=rd,
            redirect_uri=context.callback_url(original, provider.id),
            with_verifier=bool(provider.code_challenge_method),
            is_restart=is_restart,
            requested=provider.requested_authentication(form),
        )
        url = provider.authorization_url(
            redirect_uri=started.login.redirect_uri,
            state=started.parameter,
            nonce=started.login.nonce,
            code_verifier=started.login.code_verifier,
            requested=form,
            login_hint=login_hint,
        )
    except LoginStateError:
        failure = target_too_long_failure(MAX_TARGET_BYTES)
        return login_failed_page(context, request, failure, rd)
    except ProviderError as error:
        error = context.readiness.root_cause(provider, error)
        return login_failed_page(context, request, login_failure(error), rd)
    context.notices.login_started(
        request, original, provider.id, started.login.redirect_uri
    )
    return redirect(url, started.headers)


def callback(context: Context, provider_id: str, request: Request) -> Flow[Respond]:
    """Redeem the authorization code and create a session (OIDC Core §3.1.2.5).

    *request* came to the callback of the provider *provider_id*.
    """
    if request.method not in (b"GET", b"POST"):
        return Respond(405, ((b"allow", b"GET, POST"), *NO_CACHE), b"")
    form = yield from read_form(request)
    state, host = form.get("state", ""), context.host(request)
    try:
        consumed = context.login_states.consume(request.headers, state, host=host)
    except LoginStateError as error:
        page = login_failed_page(context, request, login_failure(error), "/")
        is_navigation = challenge.is_navigation(request.method, request.headers)
        if is_navigation and form.get("code"):
            if restarted := _restart_lost_login(context, request, state):
                return restarted
            if context.login_states.is_well_formed(state):
                return (yield from _end_loop(context, request, page))
        return page
    response = yield from _finish_login(context, provider_id, request, form, consumed)
    return (yield from _end_loop(context, request, response))


def _end_loop(context: Context, request: Request, response: Respond) -> Flow[Respond]:
    """Return *response*, with status 429 if some logins in a row were denied.

    A gateway may turn 401 and 403 into a redirect to the sign-in page, which starts the
    next login. It passes 429, so the user sees the page.
    """
    if response.status not in (401, 403):
        return response
    event = response.events[0]
    client = context.trusted_proxies.original(request).client
    count = yield from context.loops.count_denied(event.user, client)
    if count < LOOP_THRESHOLD:
        return response
    detail = f"{event.detail}; {count} logins in a row failed, so the status is 429"
    return replace(response, status=429, events=(replace(event, detail=detail),))


def _finish_login(
    context: Context,
    provider_id: str,
    request: Request,
    form: Mapping[str, str],
    consumed: ConsumedLogin,
) -> Flow[Respond]:
    login, cleared = consumed.login, consumed.headers
    host = context.host(request)
    rd = login.rd if context.redirects.allows(login.rd, host) else "/"
    try:
        _check_callback_provider(context, login, provider_id)
        yield from _wait_until_ready(context, login)
        provider = _check_callback_issuer(context, login, form)
        yield from _claim_login(context, login)
        if form.get("error"):
            failure = provider_error_failure(
                form, redirect_uri=login.redirect_uri, scope=provider.scope
            )
            return login_failed_page(context, request, failure, rd, cleared)
        return (
            yield from _redeem(context, request, provider, login, form, rd, cleared)
        )
    except AuthProxyError as error:
        return login_failed_page(context, request, login_failure(error), rd, cleared)


def _restart_lost_login(
    context: Context, request: Request, state: str
) -> Respond | None:
    """Return the redirect to a new login if the state of this one is lost.

    The state expired, was used in another tab, or was created on another host. The
    code of the callback is discarded. Returns None if an error page is due instead.
    """
    if not context.settings.restart_lost_logins:
        return None
    rd = context.login_states.restart_target(state)
    if rd is None:
        return None
    host = context.redirect_host(context.host(request), rd)
    if len(context.binding.offered_providers(host)) > 1:
        return None  # the chosen provider is lost with the state
    response = start_login(context, request, {"rd": rd}, is_restart=True)
    return response if response.status == 302 else None


def _wait_until_ready(context: Context, login: LoginState) -> Flow[None]:
    """Wait for the provider's metadata: this process may have just started."""
    provider = context.providers.get(login.provider)
    if provider is not None and provider.metadata is None:
        yield from context.readiness.wait_for(provider)


def _claim_login(context: Context, login: LoginState) -> Flow[None]:
    """Make a login state single-use across all processes that share the store.

    A provider that receives a code twice may revoke the tokens that it issued for it
    (RFC 6749 §4.1.2). Raises `LoginStateError` if the state is used, and `StoreError`
    if sessions need the store too.
    """
    if not context.sessions.has_store:
        return
    cookie = context.settings.cookie
    key = f"{cookie.name}-login:{hashlib.sha256(login.state).hexdigest()}"
    ttl = cookie.csrf_expire or FINISHED_LOGIN_TTL
    try:
        first = yield from Lock(key, ttl, 0.0)
    except StoreError:
        if context.settings.sessions.needs_store:
            raise
        return
    if not first:
        raise LoginStateError("another process has completed this login")


def _check_callback_provider(
    context: Context, login: LoginState, provider_id: str
) -> None:
    """Raise `ProviderError` if *login* was not started with this callback's provider.

    A hostile provider may send the browser on to an honest one, whose code would be
    redeemed for the hostile one's login (RFC 9700 §4.4).
    """
    if login.provider in context.providers and login.provider != provider_id:
        raise ProviderError(
            "the callback is not that of the login's provider",
            reason="callback_issuer",
            hint="another identity provider sent the callback (RFC 9700 section 4.4)",
        )


def _check_callback_issuer(
    context: Context, login: LoginState, form: Mapping[str, str]
) -> Provider:
    """Return the provider of *login* if the callback's ``iss`` is its issuer.

    ``iss`` may be absent unless the provider's metadata announces it (RFC 9207 §2.4).
    Raises `ProviderError`.
    """
    provider = context.providers.get(login.provider)
    if provider is None or provider.metadata is None:
        raise ProviderError(
            "the provider of this login is not available", reason="not_ready"
        )
    issuer = form.get("iss")
    announced = provider.metadata.authorization_response_iss_parameter_supported
    # Providers without ID tokens have no issuer to compare with.
    expected = (None, provider.metadata.issuer or issuer)
    if (issuer is None and announced) or issuer not in expected:
        raise ProviderError(
            "the iss of the callback is not the issuer of the login's provider",
            reason="callback_issuer",
            hint="another identity provider sent the callback (RFC 9207)",
        )
    return provider


def _redeem(
    context: Context,
    request: Request,
    provider: Provider,
    login: LoginState,
    form: Mapping[str, str],
    rd: str,
    cleared: Headers,
) -> Flow[Respond]:
    code = form.get("code", "")
    if not code:
        raise ProviderError("the callback has no code", reason="no_code")
    original = context.trusted_proxies.original(request)
    yield from provider.require_keys()  # before the code is spent
    tokens = yield from provider.redeem(
        code,
        login.redirect_uri or context.callback_url(original, provider.id),
        login.code_verifier,
    )
    session = yield from provider.create_session(
        tokens,
        login.nonce,
        nonce_optional=login.from_oauth2_proxy,
        requested=login.requested,
    )
    reason = context.denial_reason(session)
    if reason:
        detail = _denial_detail(provider, session, reason)
        event = Event("login_denied", session.name, reason, detail)
        return access_denied_page(context, request, event, cleared)
    context.notices.logged_in(provider, session)
    before = context.sessions.lookup(request.headers)
    created = yield from context.sessions.create(
        session, request.headers, host=original.host
    )
    counter: Headers = ()
    if before is None:  # a session in the request rules out a login loop
        counter = yield from context.loops.record_login(
            request.headers, session.name, original.client, original.host
        )
    cookies = (*created.headers, *counter)
    event = Event("logged_in", session.name, provider.id, f"authenticated: {session!r}")
    return redirect(rd, (*cleared, *cookies), (event,), session.name)


def _denial_detail(provider: Provider, session: Session, reason: str) -> str:
    if reason == "email":
        return "the email address is not allowed (email_domains)"
    cause = explain_missing_groups(provider, session)
    text = "the user has none of the allowed groups (allowed_groups, allowed_roles)"
    return f"{text}: {cause}" if cause else text
