"""Logging in: off to the provider, and back with a code (OIDC Core §3.1.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from ..effects import Flow, Lock, Outcome, ReadBody
from ..errors import AuthProxyError, LoginStateError, ProviderError, StoreError
from ..messages import Decision, Event, Headers, Request, Respond, first_header
from ..pages import challenge
from ..pages.outcomes import as_challenge, with_headers
from ..pages.pages import NO_CACHE
from ..providers.base import Provider
from ..request.forms import parse_form
from ..request.original import OriginalRequest
from .context import Context, redirect
from .failures import Failure, login_failure, login_loop_failure, provider_error_failure
from .state import LoginState

MAX_FORM_BYTES = 64 << 10  # bytes
LOGIN_TTL = 3600.0  # seconds that a finished login is remembered at least
NO_PROVIDER = ProviderError(
    "no provider is offered on this host",
    reason="no_provider",
    hint="bind one to it (hosts), or leave one unbound",
)
RETRY_AFTER: Headers = ((b"retry-after", b"5"),)


def raw_query(request: Request) -> bytes:
    """The raw query of a request's target."""
    return request.target.partition(b"?")[2]


def read_form(request: Request) -> Flow[dict[str, str]]:
    """The form values of a request: query, and the body of an urlencoded POST.

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
    """The provider that a login's form names, else the first that is offered.

    What counts is the host that the login leads back to, if that is not *host*.
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
    """The page with the providers that are offered."""
    rd = context.redirect_target(request, form)
    host = context.redirect_host(context.host(request), rd)
    return context.pages.sign_in(
        status=status,
        redirect=rd,
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
) -> Outcome:
    """Start a login as soon as its provider is ready; *headers* go with the answer.

    A *challenge* is for somebody who had asked for something else.
    """

    def begun() -> Respond:
        answer = with_headers(start_login(context, request, form, original), headers)
        return as_challenge(answer) if challenge else answer

    seen = original or context.trusted_proxies.original(request)
    rd = context.redirects.choose(request, seen, form)
    provider = choose_provider(context, seen.host, rd, form)
    if provider is not None and provider.metadata is None:
        return _wait_and_start(context, provider, begun)
    return begun()


def _wait_and_start(
    context: Context, provider: Provider, begun: Callable[[], Respond]
) -> Flow[Decision]:
    yield from context.readiness.wait_for(provider)
    return begun()


def start_login(
    context: Context,
    request: Request,
    form: Mapping[str, str],
    original: OriginalRequest | None = None,
    *,
    again: bool = False,
) -> Respond:
    """302 to the provider, with a login state; no I/O.

    *original* is the original request where the caller knows it better. *again* says
    that the login takes the place of one that was lost.
    """
    original = original or context.trusted_proxies.original(request)
    looping = context.loops.login_count(request.headers)
    rd = context.redirects.choose(request, original, form)
    provider = choose_provider(context, original.host, rd, form)
    if provider is None:
        return login_failed_page(context, request, login_failure(NO_PROVIDER), rd)
    if looping and context.sessions.lookup(request.headers) is None:
        forgotten = context.loops.clear_counter(original.host)
        return login_failed_page(
            context, request, login_loop_failure(looping), rd, forgotten
        )
    try:
        begun = context.login_states.create(
            request.headers,
            host=original.host,
            provider=provider.id,
            rd=rd,
            redirect_uri=context.callback_url(original),
            with_verifier=bool(provider.code_challenge_method),
            again=again,
        )
        url = provider.authorization_url(
            redirect_uri=begun.login.redirect_uri,
            state=begun.parameter,
            nonce=begun.login.nonce,
            code_verifier=begun.login.code_verifier,
            asked=form,
        )
    except ProviderError as error:
        error = context.readiness.root_cause(provider, error)
        return login_failed_page(context, request, login_failure(error), rd)
    return redirect(url, begun.headers)


def callback(context: Context, request: Request) -> Flow[Respond]:
    """Redeem the authorization code and begin a session (OIDC Core §3.1.2.5)."""
    if request.method not in (b"GET", b"POST"):
        return Respond(405, ((b"allow", b"GET, POST"), *NO_CACHE), b"")
    form = yield from read_form(request)
    host = context.host(request)
    try:
        taken = context.login_states.consume(
            request.headers, form.get("state", ""), host=host
        )
    except LoginStateError as error:
        return _restart_lost_login(context, request, form) or login_failed_page(
            context, request, login_failure(error), "/"
        )
    login, ended = taken.login, taken.headers
    rd = login.rd if context.redirects.allows(login.rd, host) else "/"
    try:
        yield from _wait_until_ready(context, login)
        provider = _check_callback_issuer(context, login, form)
        yield from _claim_login(context, login)
        if form.get("error"):
            refusal = provider_error_failure(form["error"])
            return login_failed_page(context, request, refusal, rd, ended)
        return (yield from _redeem(context, request, provider, login, form, rd, ended))
    except AuthProxyError as error:
        return login_failed_page(context, request, login_failure(error), rd, ended)


def _restart_lost_login(
    context: Context, request: Request, form: Mapping[str, str]
) -> Respond | None:
    """A new login in the place of one that this browser does not know (any more).

    It took too long, was finished in another tab, or began on another host. The code
    that came with it is not used. None where a page has to say what is wrong.
    """
    if not context.settings.restart_lost_logins:
        return None
    rd = context.login_states.restart_target(form.get("state", ""))
    navigates = challenge.is_navigation(request.method, request.headers)
    if rd is None or not navigates or not form.get("code"):
        return None
    host = context.redirect_host(context.host(request), rd)
    if len(context.binding.offered_providers(host)) > 1:
        return None  # with the state it is lost which provider was chosen
    again = start_login(context, request, {"rd": rd}, again=True)
    return again if again.status == 302 else None


def _wait_until_ready(context: Context, login: LoginState) -> Flow[None]:
    """Wait a moment for the provider: this process may have just been started."""
    provider = context.providers.get(login.provider)
    if provider is not None and provider.metadata is None:
        yield from context.readiness.wait_for(provider)


def _claim_login(context: Context, login: LoginState) -> Flow[None]:
    """Finish a login in one process only, where there is a store that tells.

    A provider that sees a code twice may end what it gave for it (RFC 6749 §4.1.2).
    Raises `LoginStateError`, and `StoreError` where no session can be kept either.
    """
    if not context.sessions.has_store:
        return
    cookie = context.settings.cookie
    key = f"{cookie.name}:login:{hashlib.sha256(login.state).hexdigest()}"
    try:
        first = yield from Lock(key, cookie.csrf_expire or LOGIN_TTL, 0.0)
    except StoreError:
        if context.settings.sessions.needs_store:
            raise
        return
    if not first:
        raise LoginStateError("this login was finished by another process")


def _check_callback_issuer(
    context: Context, login: LoginState, form: Mapping[str, str]
) -> Provider:
    """The provider that the login began with; it must be the one that answers.

    RFC 9207 §2.4: an ``iss`` must be its issuer, and may only lack where the provider
    does not announce it.
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
            "the callback's iss is not the issuer that the login began with",
            reason="issuer",
            hint="the answer came from another identity provider (RFC 9207)",
        )
    return provider


def _redeem(
    context: Context,
    request: Request,
    provider: Provider,
    login: LoginState,
    form: Mapping[str, str],
    rd: str,
    ended: Headers,
) -> Flow[Respond]:
    code = form.get("code", "")
    if not code:
        raise ProviderError("the callback has no code", reason="no_code")
    original = context.trusted_proxies.original(request)
    tokens = yield from provider.redeem(
        code, login.redirect_uri or context.callback_url(original), login.code_verifier
    )
    session = yield from provider.create_session(
        tokens, login.nonce, nonce_optional=login.from_oauth2_proxy
    )
    refusal = context.denial_reason(session)
    if refusal:
        event = Event("login_denied", session.name, refusal, _denial_detail(refusal))
        return access_denied_page(context, request, event, ended)
    before = context.sessions.lookup(request.headers)
    kept = yield from context.sessions.create(
        session, request.headers, host=original.host
    )
    counted: Headers = ()
    if before is None:  # else the browser does bring sessions back
        counted = context.loops.record_login(
            request.headers, session.name, original.client, original.host
        )
    cookies = (*kept.headers, *counted)
    event = Event("logged_in", session.name, provider.id, f"authenticated: {session!r}")
    return redirect(rd, (*ended, *cookies), (event,), session.name)


def _denial_detail(refusal: str) -> str:
    if refusal == "email":
        return "the e-mail address is not among those that are let in (email_domains)"
    return "the user has none of the allowed groups (allowed_groups, allowed_roles)"


def deny(context: Context, request: Request, event: Event, headers: Headers) -> Respond:
    """The answer for a page that a user may not see: JSON by option, else a page."""
    if context.settings.force_json_errors:
        fields = (*challenge.JSON_HEADERS, *NO_CACHE, *headers)
        answer = Respond(403, fields, b"{}", (event,))
        return replace(answer, verdict="denied", reason=event.reason)
    target = context.redirect_target(request, {})
    return access_denied_page(context, request, event, headers, target)


def access_denied_page(
    context: Context,
    request: Request,
    event: Event,
    headers: Headers = (),
    redirect: str = "/",
) -> Respond:
    """A page for a user who is known but may not come in, or for what nobody may see."""
    message = (
        "You are logged in, but your account has no permission to use this "
        "application. Please ask the administrator for access."
    )
    page = context.pages.error(
        status=403,
        title="No access",
        message=message if event.user else "Nobody may see this page.",
        request_id=request.id,
        redirect=redirect,
        detail=event.detail,
        headers=headers,
        events=(event,),
    )
    return replace(page, verdict="denied", reason=event.reason)


def login_failed_page(
    context: Context,
    request: Request,
    failure: Failure,
    rd: str,
    headers: Headers = (),
) -> Respond:
    """The page of a failed login; when the cause may pass, it says when to try again."""
    if failure.status == 503:
        headers = (*headers, *RETRY_AFTER)
    return context.pages.error(
        status=failure.status,
        title="Login failed",
        message=failure.message,
        request_id=request.id,
        redirect=rd,
        detail=failure.event.detail,
        headers=headers,
        events=(failure.event,),
    )
