"""`AuthProxy`: routes a request to its decision.

The usual auth check is the hot path: one header, one dict, two comparisons and an
object that stands ready. Whatever needs the identity provider is a flow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from msgspec.structs import replace

from .access.credentials import Credentials, authenticate, by_field, credentials_of
from .access.rules import TAIL_FIELD
from .build import build_context
from .effects import Flow, Outcome
from .endpoints.clear_forbidden import with_session_clearing
from .endpoints.forward_auth import forward_auth_response
from .endpoints.health import NOT_READY, OK, STORE_UNAVAILABLE, health_routes
from .endpoints.middleware import Handler, restore_query, wrap_handler
from .endpoints.requirements import Requirements
from .endpoints.session_recheck import is_session_valid
from .errors import CredentialsRefused, RequestError, StoreError
from .identity.headers import HeaderInjector
from .login.flow import (
    callback,
    deny,
    raw_query,
    read_form,
    sign_in_page,
    start_login_when_ready,
)
from .login.sign_in import sign_in
from .logout.provider_initiated import logout_routes
from .logout.sign_out import sign_out
from .messages import Decision, Event, Forward, Headers, Request, Respond
from .pages import challenge
from .pages.outcomes import (
    allowed_response,
    anonymous_userinfo_response,
    as_challenge,
    bad_request_response,
    resolve_outcome,
    userinfo_response,
    with_error_handling,
    with_headers,
)
from .pages.stylesheet import NOT_FOUND
from .request.authorization import field_of
from .request.forms import parse_form, semicolons_read
from .request.original import OriginalRequest
from .session import Session
from .sessions.session_cache import SessionEntry
from .sessions.session_resolver import (
    clear_invalid_cookies,
    resolve_session,
    session_of_request,
)
from .settings.root import Settings, check
from .store_hooks import StoreHooks
from .upstreams.routes import Upstreams
from .upstreams.signing import with_signing


def _ignore(event: Event) -> None:
    """Where events outside of decisions go when nobody wants them."""


class AuthProxy(StoreHooks):
    """Decides about requests; belongs to one thread or event loop.

    *clock* gives seconds since the epoch, *random_bytes* as many random bytes as asked
    for, *on_event* gets facts that belong to no single answer. Raises `SettingsError`.

    A driver with a store sets ``store_available`` whenever an exchange with it begins to
    fail or to succeed; see also `store_changed` and `store_trusted`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        on_event: Callable[[Event], None] = _ignore,
    ) -> None:
        check(settings)
        self.settings = settings
        self._clock, self._random_bytes, self._on_event = clock, random_bytes, on_event
        self._context, access = build_context(settings, clock, random_bytes, on_event)
        context = self._context
        self._providers, self._sessions = context.providers, context.sessions
        self._pages, self._readiness = context.pages, context.readiness
        self._credentials = credentials_of(context, context.htpasswd, random_bytes)
        self._demands, self._ruled = Requirements(access), access is not None
        self._bound = context.binding.is_active
        self._response_headers = HeaderInjector(
            settings.inject_response_headers, named=True
        )
        self._upstreams = Upstreams(settings, self._sessions.is_session_cookie)
        self._unauthorized = replace(challenge.unauthorized_response(), reusable=True)
        self._forbidden = replace(challenge.forbidden_response(), reusable=True)
        self._own_prefix = settings.proxy_prefix.encode() + b"/"
        self._gate = (
            context.auth_bypass if settings.auth_bypass.skips or self._ruled else None
        )
        self._guarded = self._gate is not None or self._credentials is not None
        self._routes = self._routing(settings)
        self._needs_store = settings.sessions.needs_store

    def with_settings(self, settings: Settings) -> AuthProxy:
        """A new one for *settings*; raises `SettingsError`, and `self` stays as it is.

        Metadata and keys are taken over from providers that are reached as before, and
        so is what is remembered of refreshes, for flows of the old one may still run.
        Equal settings need no new one.
        """
        if settings == self.settings:
            return self
        fresh = AuthProxy(
            settings,
            clock=self._clock,
            random_bytes=self._random_bytes,
            on_event=self._on_event,
        )
        for name, provider in fresh._providers.items():
            if name in self._providers:
                provider.adopt_cache(self._providers[name])
        fresh._sessions.adopt_cache(self._sessions)
        fresh.store_available = self.store_available
        return fresh

    def _routing(self, settings: Settings) -> dict[bytes, Handler]:
        prefix = settings.proxy_prefix.encode()
        tailed, proxy = (
            with_signing(settings, self._route_prefix),
            with_signing(settings, self.proxy),
        )
        routes: dict[bytes, Handler] = {
            **health_routes(
                settings,
                self._context.trusted_proxies,
                ready=self._readiness_answer,
                robots=self._pages.robots(),
                elsewhere=proxy,
            ),
            prefix + b"/auth": self.check if self._guarded else self._check_session,
            prefix + b"/forward_auth": self.forward_auth,
            prefix + b"/sign_in": self.sign_in,
            prefix + b"/start": self.start,
            prefix + b"/callback": self.callback,
            prefix + b"/sign_out": self.sign_out,
            **dict(logout_routes(self._context)),
            prefix + b"/userinfo": self.userinfo,
        }
        if settings.allow_query_semicolons:
            routes = {path: semicolons_read(route) for path, route in routes.items()}
        if settings.forbidden_session == "clear":
            routes, tailed = with_session_clearing(self._context, routes, tailed)
        self._elsewhere = wrap_handler(settings, tailed, self._original)
        return {
            path: wrap_handler(settings, handler, self._original)
            for path, handler in routes.items()
        }

    def _original(self, request: Request) -> OriginalRequest:
        """The original request, also at the forward-auth endpoint with a path behind."""
        endpoint = self._own_prefix + b"forward_auth"
        if not request.target.startswith(endpoint):
            return self._context.trusted_proxies.original(request)
        tail = request.target[len(endpoint) :]
        return self._context.trusted_proxies.original_for_auth(
            request, tail if tail[:1] == b"/" else b""
        )

    # -- routing

    def handle(self, request: Request) -> Outcome:
        """The decision about a request, or the flow that leads to it."""
        target = request.target
        path = target.partition(b"?")[0] if b"?" in target else target
        route = self._routes.get(path, self._elsewhere)
        try:
            outcome = route(request)
        except RequestError as error:
            return bad_request_response(error)
        if type(outcome) is Respond or isinstance(outcome, Decision):
            return outcome
        return with_error_handling(outcome)

    def _route_prefix(self, request: Request) -> Outcome:
        """An own endpoint that is not found by its whole path, or all the rest."""
        prefix = self._own_prefix
        if request.target.startswith(prefix):
            tail = request.target[len(prefix) :]
            if tail.startswith(b"static/"):
                return NOT_FOUND
            if tail.startswith(b"forward_auth/"):
                return self.forward_auth(request, tail[len(b"forward_auth") :])
            name, _, query = tail.partition(b"%")
            if name in (b"auth", b"forward_auth") and query[:2].upper() == b"3F":
                return self.handle(restore_query(request, prefix + name, query[2:]))
        return self.proxy(request)

    def _readiness_answer(self) -> Respond:
        if self._needs_store and not self.store_available:
            return STORE_UNAVAILABLE
        return OK if self.ready else NOT_READY

    @property
    def ready(self) -> bool:
        """Whether every provider's metadata and keys are there, and the store if needed."""
        if self._needs_store and not self.store_available:
            return False
        return self._readiness.is_ready

    def warm_up(self) -> Flow[None]:
        """Discovery and key sets of all providers, with back-off; ends when all stand."""
        return self._readiness.warm_up()

    # -- the auth check

    def check(self, request: Request) -> Outcome:
        """The answer for a gateway's auth request: 2xx, 401 or 403."""
        if self._gate is None or self._demands.requires_session(request):
            return self._check_field(request)
        if not self._ruled and (answer := self._allow_fresh_session(request)):
            return answer
        return self._check_at_gate(
            request, self._context.trusted_proxies.original(request)
        )

    def _allow_fresh_session(self, request: Request) -> Respond | None:
        """The answer for a fresh session that may come in, which needs no gate."""
        entry = self._recalled(request)
        if entry is None or self._clock() >= entry.fresh_until:
            return None
        answer = self._checked(entry, request)
        return answer if answer.verdict == "allowed" else None

    def _recalled(self, request: Request) -> SessionEntry | None:
        """What is remembered of who sends a request, be it stale."""
        if self._credentials is not None and field_of(request.headers) is not None:
            return self._credentials.cached(request)
        entry = self._sessions.lookup(request.headers)
        if entry and self._bound and self._context.is_unbound_session(request, entry):
            return None
        return entry

    def _check_at_gate(self, request: Request, original: OriginalRequest) -> Outcome:
        if barred := self._demands.check_deny_all(request):
            return barred
        if self._gate is None or not self._gate.applies(request, original):
            return self._check_field(request)
        return self._check_skipped(request)

    def _check_field(self, request: Request) -> Outcome:
        """The answer by the Authorization field, or by the session without one."""
        credentials = self._credentials
        if credentials is None or field_of(request.headers) is None:
            return self._check_session(request)
        entry = credentials.cached(request)
        if entry is not None:
            return self._checked(entry, request)
        return self._check_unknown(request, credentials)

    def _check_unknown(
        self, request: Request, credentials: Credentials
    ) -> Flow[Decision]:
        entry = yield from credentials.verify(request)
        if entry is None:
            return (yield from resolve_outcome(self._check_session(request)))
        return self._checked(entry, request)

    def _check_skipped(self, request: Request) -> Flow[Decision]:
        """The answer for a request that needs no session; one that is there counts."""
        try:
            session, headers = yield from authenticate(
                self._context, self._credentials, request
            )
        except StoreError:
            session, headers = None, ()
        status = self.settings.auth_success_status
        if session is None:
            fields = (*self._response_headers.headers(None), *headers)
            return allowed_response(status, fields, "", "skipped")
        if unmet := self._demands.check(request, session):
            return with_headers(unmet, headers)
        fields = (*self._response_headers.headers(session), *headers)
        return allowed_response(status, fields, session.name, "skipped")

    def _check_session(self, request: Request) -> Outcome:
        entry = self._sessions.lookup(request.headers)
        if entry is None or (
            self._bound and self._context.is_unbound_session(request, entry)
        ):
            return self._anonymous(request)
        if self._clock() < entry.fresh_until:
            return self._checked(entry, request)
        return self._check_stale(entry, request)

    def _checked(self, entry: SessionEntry, request: Request) -> Respond:
        answer = entry.response
        if answer is None:
            answer = entry.response = self._answer(entry.session, entry.cached)
        if self._ruled or b"?" in request.target:
            return self._demands.check(request, entry.session) or answer
        return answer

    def _answer(self, session: Session, kept: bool) -> Respond:
        """The answer for a session that is fresh, whatever the query demands."""
        refusal = self._context.denial_reason(session)
        if refusal:
            event = Event("denied", session.name, refusal)
            return replace(
                self._forbidden,
                events=(event,),
                user=session.name,
                reusable=kept,
                reason=refusal,
            )
        headers = self._response_headers.headers(session)
        status = self.settings.auth_success_status
        return allowed_response(status, headers, session.name, "session", kept)

    def _anonymous(self, request: Request) -> Respond:
        cleared = clear_invalid_cookies(self._context, request)
        return (
            challenge.unauthorized_response(cleared) if cleared else self._unauthorized
        )

    def _check_stale(self, entry: SessionEntry, request: Request) -> Flow[Decision]:
        found = yield from resolve_session(self._context, request, entry)
        if found.entry is None:
            return challenge.unauthorized_response(found.headers)
        answer = self._checked(found.entry, request)
        return with_headers(answer, found.headers)

    # -- the check that also says what to do without a login

    def forward_auth(self, request: Request, tail: bytes = b"") -> Outcome:
        """2xx as the auth check; else a redirect to the login, or 401 as JSON.

        *tail* is the original URI where a gateway appends it to the endpoint's path;
        its query is the client's then, and demands nothing.
        """
        checked = request
        if tail:
            headers = (*request.headers, (TAIL_FIELD, tail))
            target = self._own_prefix + b"auth"
            checked = replace(request, target=target, headers=headers)
        if not tail and self._gate is None:
            return forward_auth_response(
                self._context, request, tail, self._check_field(request)
            )
        original = self._context.trusted_proxies.original_for_auth(request, tail)
        check = self._check_at_gate(checked, original)
        return forward_auth_response(self._context, request, tail, check)

    # -- pages and the login

    def sign_in(self, request: Request) -> Outcome:
        """The sign-in page, or the way to the provider when there is no button."""
        cleared = clear_invalid_cookies(self._context, request)
        return sign_in(self._context, request, cleared)

    def start(self, request: Request) -> Outcome:
        """302 to the provider, with the login's cookie."""
        if request.method == b"POST":
            return self._start_posted(request)
        return start_login_when_ready(
            self._context, request, parse_form(raw_query(request))
        )

    def _start_posted(self, request: Request) -> Flow[Decision]:
        form = yield from read_form(request)
        return (
            yield from resolve_outcome(
                start_login_when_ready(self._context, request, form)
            )
        )

    def callback(self, request: Request) -> Flow[Decision]:
        """Back from the provider: redeem the code, save the session."""
        return (yield from callback(self._context, request))

    def sign_out(self, request: Request) -> Flow[Decision]:
        """End the session."""
        return (yield from sign_out(self._context, request))

    def userinfo(self, request: Request) -> Flow[Decision]:
        """Who is logged in, as JSON; no tokens."""
        session, headers = yield from authenticate(
            self._context, self._credentials, request
        )
        if self._gate and self._gate.applies(request, self._original(request)):
            return (
                userinfo_response(session, headers)
                if session
                else anonymous_userinfo_response(headers)
            )
        if session is None:
            return challenge.unauthorized_response(headers)
        if refusal := self._context.denial_reason(session):
            return challenge.forbidden_response(headers, refusal)
        return userinfo_response(session, headers)

    # -- everything else

    def identify(self, request: Request) -> Session | Flow[Session | None] | None:
        """Who sends this request; a flow when the session can't be used as it stands.

        Cookies of a refresh are lost here: use `handle` where answers are written. The
        flow raises `RequestError` and `StoreError`.
        """
        if self._credentials is not None and field_of(request.headers) is not None:
            return self._identify_later(request)
        entry = self._sessions.lookup(request.headers)
        if entry is None or (
            self._bound and self._context.is_unbound_session(request, entry)
        ):
            return None
        if self._clock() < entry.fresh_until:
            return self._permitted(entry.session)
        return self._identify_later(request)

    def _permitted(self, session: Session) -> Session | None:
        return None if self._context.denial_reason(session) else session

    def _identify_later(self, request: Request) -> Flow[Session | None]:
        try:
            session, _ = yield from authenticate(
                self._context, self._credentials, request
            )
        except CredentialsRefused:
            return None
        return self._permitted(session) if session else None

    def proxy(self, request: Request) -> Outcome:
        """Pass the request on, or ask for a login."""
        credentials = self._credentials
        if credentials is not None and field_of(request.headers) is not None:
            entry = credentials.cached(request)
            if entry is None:
                return self._proxy_unknown(request, credentials)
            return by_field(self._proxied(request, entry.session, ()), entry)
        entry = self._recalled(request)
        if entry is not None and self._clock() < entry.fresh_until:
            return self._proxied(request, entry.session, ())
        return self._proxy(request)

    def _proxy_unknown(
        self, request: Request, credentials: Credentials
    ) -> Flow[Decision]:
        entry = yield from credentials.verify(request)
        if entry is None:
            return (yield from self._proxy(request))
        outcome = by_field(self._proxied(request, entry.session, ()), entry)
        return (yield from resolve_outcome(outcome))

    def _proxy(self, request: Request) -> Flow[Decision]:
        try:
            session, headers = yield from session_of_request(self._context, request)
        except StoreError:
            # What needs no session goes on without one.
            original = self._context.trusted_proxies.original(request)
            if self._gate is None or not self._gate.applies(request, original):
                raise
            session, headers = None, ()
        return (yield from resolve_outcome(self._proxied(request, session, headers)))

    def _proxied(
        self, request: Request, session: Session | None, headers: Headers
    ) -> Outcome:
        if barred := self._demands.check_deny_all(request):
            return deny(self._context, request, barred.events[0], headers)
        refusal = self._context.denial_reason(session) if session else "none"
        # Without rules, the gate is only for who could not come in.
        if self._gate is not None and (refusal or self._ruled):
            original = self._context.trusted_proxies.original(request)
            if self._gate.applies(request, original):
                decision = self._forward(request, original, session, headers)
                # Only an answer of our own may pass for what a gateway names.
                if isinstance(decision, Respond) or self._gate.applies_as_forwarded(
                    request, original
                ):
                    return decision
        if session is None:
            return self._challenge(request, headers)
        if refusal:
            return deny(
                self._context, request, Event("denied", session.name, refusal), headers
            )
        original = self._context.trusted_proxies.original(request)
        return self._forward(request, original, session, headers)

    def _forward(
        self,
        request: Request,
        original: OriginalRequest,
        session: Session | None,
        headers: Headers,
    ) -> Decision:
        if session is not None and (unmet := self._demands.check(request, session)):
            if unmet.events:
                return deny(self._context, request, unmet.events[0], headers)
            return with_headers(unmet, headers)
        own = self._response_headers.headers(session)
        decision = self._upstreams.forward(
            request,
            original,
            session,
            (*own, *headers) if headers else own,
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

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Whether what *request* began by *forward*, and goes on, may go on."""
        return (yield from is_session_valid(self._context, request, forward))

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """The page for an upstream that did not answer."""
        return self._pages.upstream_error(request.id, forward, reason)
