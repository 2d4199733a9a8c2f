"""`AuthProxy`: routes each request to the code that decides it.

An auth check with a fresh session takes no flow (see `endpoints.auth_check`). Decisions
that need the identity provider, the session store or the request's body are flows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from .access.attempts import AttemptMemory
from .access.credentials import (
    Credentials,
    authenticate,
    by_field,
    credentials_of,
    with_rejection,
)
from .build import build_context
from .effects import Flow, Outcome
from .endpoints.auth_check import AuthCheck
from .endpoints.clear_forbidden import with_session_clearing
from .endpoints.forward_auth import forward_auth
from .endpoints.health import (
    NOT_READY,
    OK,
    OTHER_WORKER_NOT_READY,
    STORE_UNAVAILABLE,
    health_routes,
)
from .endpoints.middleware import Handler, restore_query, wrap_handler
from .endpoints.requirements import Requirements
from .endpoints.session_recheck import is_session_valid
from .endpoints.userinfo import userinfo
from .errors import (
    CredentialsRejected,
    KeysUnavailableError,
    RequestError,
    StoreError,
)
from .identity.headers import HeaderInjector
from .key_hooks import KeyHooks
from .login.context import callback_paths
from .login.error_pages import deny
from .login.flow import (
    callback,
    raw_query,
    read_form,
    sign_in_page,
    start_login_when_ready,
)
from .login.sign_in import sign_in
from .login.third_party import start_requested_login
from .logout.provider_initiated import logout_routes
from .logout.sign_out import sign_out, signed_out
from .messages import Decision, Event, Forward, Headers, Request, Respond
from .pages import challenge
from .pages.outcomes import (
    as_challenge,
    bad_request_response,
    resolve_outcome,
    with_error_handling,
    with_headers,
)
from .pages.stylesheet import NOT_FOUND
from .request.authorization import field_of
from .request.forms import parse_form, semicolons_read
from .request.original import OriginalRequest
from .session import Session
from .sessions.session_cache import SessionEntry
from .sessions.session_resolver import clear_invalid_cookies, session_of_request
from .settings.root import Settings, check
from .store_hooks import StoreHooks
from .upstreams.routes import Upstreams
from .upstreams.signing import with_signing


def _ignore(event: Event) -> None:
    """Drop *event*: the default of ``on_event``."""


ASTERISK = b"*"  # target of OPTIONS for the server itself (RFC 9110 §9.3.7)
NO_RESOURCE = Respond(200)


class AuthProxy(StoreHooks, KeyHooks):
    """Decides about requests. An instance belongs to one thread or event loop.

    *clock* returns seconds since the epoch, *random_bytes* the requested number of random
    bytes. *on_event* receives events that belong to no decision. *attempts* is where
    password attempts are counted, for several processes. Raises `SettingsError`.

    A driver with a store sets ``store_available`` when the store becomes available or
    unavailable, and reports changes of keys (see `StoreHooks`). One with several workers
    sets ``other_workers_ready``, so that ``/ready`` answers for all of them, and reports
    withdrawn keys (see `KeyHooks`).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        on_event: Callable[[Event], None] = _ignore,
        attempts: AttemptMemory | None = None,
    ) -> None:
        check(settings)
        self.settings = settings
        self._clock, self._random_bytes, self._on_event = clock, random_bytes, on_event
        self._context, rules = build_context(
            settings, clock, random_bytes, on_event, attempts
        )
        context = self._context
        htpasswd = context.htpasswd
        self._attempts = htpasswd.attempts if htpasswd else attempts
        self._providers, self._sessions = context.providers, context.sessions
        self._pages, self._readiness = context.pages, context.readiness
        self._credentials = credentials_of(context, htpasswd, random_bytes)
        self._watch_keys()
        self._requirements = Requirements(rules, settings.proxy_prefix)
        self._bypass = (
            context.auth_bypass if settings.auth_bypass.is_active or rules else None
        )
        self._bound = context.binding.is_active
        self._response_headers = HeaderInjector(
            settings.inject_response_headers, named=True
        )
        self._auth_check = AuthCheck(
            context,
            self._credentials,
            self._requirements,
            self._bypass,
            self._response_headers,
        )
        self._upstreams = Upstreams(settings, self._sessions.is_session_cookie)
        self.other_workers_ready: Callable[[], bool] = lambda: True
        self._needs_store = settings.sessions.needs_store
        self._prefix = settings.proxy_prefix.encode() + b"/"
        self._routes, self._default_route = self._build_routes()

    def with_settings(self, settings: Settings) -> AuthProxy:
        """Return an `AuthProxy` for *settings*; `self` if they are equal to its own.

        It takes over the metadata and keys of unchanged providers, and the results of
        recent refreshes, because flows of `self` may still run. Raises `SettingsError`;
        `self` is not changed.
        """
        if settings == self.settings:
            return self
        fresh = AuthProxy(
            settings,
            clock=self._clock,
            random_bytes=self._random_bytes,
            on_event=self._on_event,
            attempts=self._attempts,
        )
        for name, provider in fresh._providers.items():
            if name in self._providers:
                provider.adopt_cache(self._providers[name])
        fresh._watch_keys()
        fresh._sessions.adopt_cache(self._sessions)
        fresh.store_available = self.store_available
        fresh.other_workers_ready = self.other_workers_ready
        return fresh

    # -- routing

    def handle(self, request: Request) -> Outcome:
        """Return the decision about *request*, or the flow that makes it.

        The flow raises no `AuthProxyError`: errors become responses.
        """
        target = request.target
        path = target.partition(b"?")[0] if b"?" in target else target
        route = self._routes.get(path, self._default_route)
        try:
            outcome = route(request)
        except RequestError as error:
            return bad_request_response(error)
        if type(outcome) is Respond or isinstance(outcome, Decision):
            return outcome
        return with_error_handling(outcome)

    @property
    def endpoint_paths(self) -> frozenset[bytes]:
        """The paths of the proxy endpoints and the health checks."""
        return frozenset(self._routes)

    def _build_routes(self) -> tuple[dict[bytes, Handler], Handler]:
        """Return the handlers by exact path, and the handler of all other paths."""
        settings, context, prefix = self.settings, self._context, self._prefix
        default = with_signing(settings, self._route_prefix)
        routes: dict[bytes, Handler] = {
            **health_routes(
                settings,
                context.trusted_proxies,
                ready=self._readiness_response,
                robots=self._pages.robots(),
                elsewhere=with_signing(settings, self._proxy),
            ),
            prefix + b"auth": self._auth_check.handler,
            prefix + b"forward_auth": partial(forward_auth, context, self._auth_check),
            prefix + b"sign_in": self._sign_in,
            prefix + b"start": self._start,
            **{
                path: partial(callback, context, provider_id)
                for path, provider_id in callback_paths(prefix, self._providers)
            },
            prefix + b"sign_out": partial(sign_out, context),
            prefix + b"signed_out": partial(signed_out, context),
            **dict(logout_routes(context)),
            prefix + b"userinfo": partial(
                userinfo, context, self._credentials, self._bypass
            ),
        }
        if settings.allow_query_semicolons:
            routes = {path: semicolons_read(route) for path, route in routes.items()}
        if settings.forbidden_session == "clear":
            routes, default = with_session_clearing(context, routes, default)
        return (
            {
                ASTERISK: lambda request: (
                    NO_RESOURCE if request.method == b"OPTIONS" else default(request)
                ),
                **{
                    path: wrap_handler(settings, handler, self._original)
                    for path, handler in routes.items()
                },
            },
            wrap_handler(settings, default, self._original),
        )

    def _original(self, request: Request) -> OriginalRequest:
        """Return the original request, also at the forward-auth endpoint with a tail."""
        endpoint = self._prefix + b"forward_auth"
        if not request.target.startswith(endpoint):
            return self._context.trusted_proxies.original(request)
        tail = request.target[len(endpoint) :]
        return self._context.trusted_proxies.original_for_auth(
            request, tail if tail[:1] == b"/" else b""
        )

    def _route_prefix(self, request: Request) -> Outcome:
        """Handle endpoints whose path continues after their name; forward the rest."""
        prefix = self._prefix
        if request.target.startswith(prefix):
            tail = request.target[len(prefix) :]
            if tail.startswith(b"static/"):
                return NOT_FOUND
            if tail.startswith(b"forward_auth/"):
                uri = tail[len(b"forward_auth") :]
                return forward_auth(self._context, self._auth_check, request, uri)
            name, _, query = tail.partition(b"%")
            if name in (b"auth", b"forward_auth") and query[:2].upper() == b"3F":
                return self.handle(restore_query(request, prefix + name, query[2:]))
        return self._proxy(request)

    # -- readiness

    @property
    def ready(self) -> bool:
        """Whether all providers' metadata and keys are loaded, and the store available.

        The store counts only if sessions need it.
        """
        if self._needs_store and not self.store_available:
            return False
        return self._readiness.is_ready

    def warm_up(self) -> Flow[None]:
        """Load the metadata and keys of all providers, with back-off, until all are."""
        return self._readiness.warm_up()

    def _readiness_response(self) -> Respond:
        if self._needs_store and not self.store_available:
            return STORE_UNAVAILABLE
        if not self.ready:
            return NOT_READY
        return OK if self.other_workers_ready() else OTHER_WORKER_NOT_READY

    # -- sessions

    def check(self, request: Request) -> Outcome:
        """Return the outcome of an auth check: 2xx, 401 or 403.

        Unlike `handle`, it ignores the path and lets errors of a flow through.
        """
        return self._auth_check.check(request)

    def identify(self, request: Request) -> Session | Flow[Session | None] | None:
        """Return the authorized session of *request*, or a flow that resolves it.

        The cookies of a refreshed session are lost: call `handle` where a response is
        written. The flow raises `RequestError`, `StoreError` and `KeysUnavailableError`.
        """
        if self._credentials is not None and field_of(request.headers) is not None:
            return self._resolve_identity(request)
        entry = self._sessions.lookup(request.headers)
        if entry is None or (
            self._bound and self._context.is_unbound_session(request, entry)
        ):
            return None
        if self._clock() < entry.fresh_until:
            return self._authorized(entry.session)
        return self._resolve_identity(request)

    def _authorized(self, session: Session) -> Session | None:
        return None if self._context.denial_reason(session) else session

    def _resolve_identity(self, request: Request) -> Flow[Session | None]:
        try:
            session, _, rejected = yield from authenticate(
                self._context, self._credentials, request
            )
        except CredentialsRejected:
            return None
        for event in rejected.events if rejected else ():
            self._on_event(event)
        return self._authorized(session) if session else None

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Return whether the tunnel that *request* opened by *forward* may stay open."""
        return is_session_valid(self._context, request, forward)

    # -- login

    def _sign_in(self, request: Request) -> Outcome:
        cookies = clear_invalid_cookies(self._context, request)
        return sign_in(self._context, request, cookies)

    def _start(self, request: Request) -> Outcome:
        if request.method == b"POST":
            return self._start_posted(request)
        form = parse_form(raw_query(request))
        return start_requested_login(self._context, request, form)

    def _start_posted(self, request: Request) -> Flow[Decision]:
        form = yield from read_form(request)
        return (
            yield from resolve_outcome(
                start_requested_login(self._context, request, form)
            )
        )

    # -- proxied requests

    def _proxy(self, request: Request) -> Outcome:
        """Forward *request*, or ask the client to log in."""
        credentials = self._credentials
        if credentials is not None and field_of(request.headers) is not None:
            entry = credentials.cached(request)
            if entry is None:
                return self._proxy_unverified(request, credentials)
            return by_field(self._proxy_session(request, entry.session, ()), entry)
        entry = self._sessions.lookup(request.headers)
        if (
            entry is not None
            and self._clock() < entry.fresh_until
            and not (self._bound and self._context.is_unbound_session(request, entry))
        ):
            return self._proxy_session(request, entry.session, ())
        return self._proxy_unresolved(request)

    def _proxy_unverified(
        self, request: Request, credentials: Credentials
    ) -> Flow[Decision]:
        try:
            verified = yield from credentials.verify(request)
        except KeysUnavailableError:
            # A request that needs no session is forwarded without one.
            original = self._context.trusted_proxies.original(request)
            if self._bypass is None or not self._bypass.applies(request, original):
                raise
            verified = None
        if isinstance(verified, SessionEntry):
            outcome = self._proxy_session(request, verified.session, ())
            return (yield from resolve_outcome(by_field(outcome, verified)))
        decision = yield from self._proxy_unresolved(request)
        return with_rejection(decision, verified)

    def _proxy_unresolved(self, request: Request) -> Flow[Decision]:
        try:
            session, headers = yield from session_of_request(self._context, request)
        except StoreError:
            # A request that needs no session is forwarded without one.
            original = self._context.trusted_proxies.original(request)
            if self._bypass is None or not self._bypass.applies(request, original):
                raise
            session, headers = None, ()
        outcome = self._proxy_session(request, session, headers)
        return (yield from resolve_outcome(outcome))

    def _proxy_session(
        self, request: Request, session: Session | None, headers: Headers
    ) -> Outcome:
        """Forward *request* if its session, rules or bypass options allow it.

        *headers* are the cookies to set.
        """
        if denied := self._requirements.check_deny_all(request):
            return deny(self._context, request, denied.events[0], headers)
        reason = self._context.denial_reason(session) if session else "no_session"
        # Without rules, bypass options matter only for requests that would be denied.
        if self._bypass is not None and (reason or self._requirements.has_rules):
            original = self._context.trusted_proxies.original(request)
            if self._bypass.applies(request, original):
                decision = self._forward(request, original, session, headers)
                # A forwarded request must be exempt by its own method and path too.
                if isinstance(decision, Respond) or self._bypass.applies_as_forwarded(
                    request, original
                ):
                    return decision
        if session is None:
            return self._challenge(request, headers)
        if reason:
            event = Event("denied", session.name, reason)
            return deny(self._context, request, event, headers)
        original = self._context.trusted_proxies.original(request)
        return self._forward(request, original, session, headers)

    def _forward(
        self,
        request: Request,
        original: OriginalRequest,
        session: Session | None,
        headers: Headers,
    ) -> Decision:
        if session and (denied := self._requirements.check(request, session)):
            if denied.reason == "rule":
                return deny(self._context, request, denied.events[0], headers)
            # Of a constraint in the query; as plain as oauth2-proxy's response.
            return with_headers(denied, headers)
        injected = self._response_headers.headers(session)
        decision = self._upstreams.forward(
            request,
            original,
            session,
            (*injected, *headers) if headers else injected,
            reusable=not headers,
        )
        if decision is not None:
            return decision
        event = Event("denied", session.name if session else "", "upstream")
        return deny(self._context, request, event, headers)

    def _challenge(self, request: Request, headers: Headers) -> Outcome:
        if (
            self.settings.force_json_errors
            or challenge.wants_json(request.headers)
            or challenge.is_upgrade(request)
            or self._context.auth_bypass.is_api(self._original(request))
        ):
            return challenge.unauthorized_json_response(headers)
        form: dict[str, str] = {}
        if self.settings.skip_provider_button:
            return start_login_when_ready(
                self._context, request, form, headers, challenge=True
            )
        return as_challenge(sign_in_page(self._context, request, 403, form, headers))

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """Return the error page for an upstream that sent no response."""
        return self._pages.upstream_error(request, forward, reason)
