"""`AuthProxy`: routes a request to its decision.

The usual auth check is the hot path: one header, one dict, two comparisons and an
object that stands ready. Whatever needs the identity provider is a flow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from msgspec.structs import replace

from . import challenge
from .access import ConstraintCache, EmailRule
from .effects import Flow, Outcome
from .encoding import header_text
from .errors import EffectError, RequestError
from .flows.context import Context, challenging, settled, with_headers
from .flows.forward_auth import passed
from .flows.login import begin, callback, denied, form_of, query_of
from .flows.ready import Readiness
from .flows.refresh import renew
from .flows.sign_out import sign_out
from .forms import parse_form, semicolons_read
from .headers import Injector, extra_claims
from .health import HealthChecks
from .login_state import LoginStates
from .messages import Decision, Event, Forward, Headers, Request, Respond
from .original import Trust
from .pages import NO_CACHE, Pages
from .providers.table import build
from .recall import Entry
from .redirects import RedirectPolicy
from .session import Session
from .session_stores import CookieSessions
from .settings import Settings, check
from .upstream_heads import UpstreamHeads
from .upstreams import Upstreams

OK = Respond(200, ((b"content-type", b"text/plain; charset=utf-8"),), b"OK")
NOT_READY = challenge.plain(
    503, b"identity provider not ready\n", ((b"retry-after", b"5"),)
)
STORE_AWAY = challenge.plain(
    503, b"session store not available\n", ((b"retry-after", b"1"),)
)


def _ignore(event: Event) -> None:
    """Where events outside of decisions go when nobody wants them."""


class AuthProxy:
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
        rules = (*settings.inject_request_headers, *settings.inject_response_headers)
        self._providers = {
            provider.id: build(
                provider,
                clock=clock,
                leeway=settings.clock_skew,
                extra_claims=extra_claims(rules),
            )
            for provider in settings.providers
        }
        ids = list(self._providers)
        self._sessions = CookieSessions(
            settings, provider_ids=ids, clock=clock, random_bytes=random_bytes
        )
        self._pages = Pages(
            settings, [(one.id, one.name) for one in self._providers.values()]
        )
        self._readiness = Readiness(self._providers, clock=clock, on_event=on_event)
        self._context = Context(
            settings=settings,
            clock=clock,
            on_event=on_event,
            trust=Trust(settings),
            redirects=RedirectPolicy(settings),
            sessions=self._sessions,
            login_states=LoginStates(
                settings, provider_ids=ids, clock=clock, random_bytes=random_bytes
            ),
            providers=self._providers,
            emails=EmailRule(settings),
            pages=self._pages,
            readiness=self._readiness,
        )
        self._constraints = ConstraintCache()
        self._response_headers = Injector(settings.inject_response_headers)
        self._upstreams = Upstreams(
            settings,
            UpstreamHeads(
                Injector(settings.inject_request_headers),
                self._sessions.is_own_cookie,
                strips_identity=settings.strip_identity_headers,
                via=settings.via.encode(),
            ),
        )
        self._unauthorized = replace(challenge.unauthorized(), kept=True)
        self._forbidden = replace(challenge.forbidden(), kept=True)
        self._own_prefix = settings.proxy_prefix.encode() + b"/"
        self._health = HealthChecks(settings)
        self._routes = self._routing(settings)
        self._needs_store = settings.sessions.needs_store
        self.store_available = True

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
                provider.inherit(self._providers[name])
        fresh._sessions.inherit(self._sessions)
        return fresh

    def _routing(self, settings: Settings) -> dict[bytes, Callable[[Request], Outcome]]:
        prefix = settings.proxy_prefix.encode()
        routes: dict[bytes, Callable[[Request], Outcome]] = {
            b"/robots.txt": lambda request: self._pages.robots(),
            prefix + b"/auth": self.check,
            prefix + b"/forward_auth": self.forward_auth,
            prefix + b"/sign_in": self.sign_in,
            prefix + b"/start": self.start,
            prefix + b"/callback": self.callback,
            prefix + b"/sign_out": self.sign_out,
            prefix + b"/userinfo": self.userinfo,
        }
        if settings.ready_path:
            routes[settings.ready_path.encode()] = self._ready
        routes |= dict.fromkeys(self._health.paths, self._ping)
        if settings.allow_query_semicolons:
            return {path: semicolons_read(route) for path, route in routes.items()}
        return routes

    # -- routing

    def handle(self, request: Request) -> Outcome:
        """The decision about a request, or the flow that leads to it."""
        target = request.target
        path = target.partition(b"?")[0] if b"?" in target else target
        route = self._routes.get(path, self._elsewhere)
        try:
            outcome = route(request)
        except RequestError as error:
            return _bad_request(error)
        if type(outcome) is Respond or isinstance(outcome, Decision):
            return outcome
        return _guarded(outcome)

    def _elsewhere(self, request: Request) -> Outcome:
        """An own endpoint that is not found by its whole path, or all the rest."""
        prefix = self._own_prefix
        if request.target.startswith(prefix):
            tail = request.target[len(prefix) :]
            if tail.startswith(b"forward_auth/"):
                return self.forward_auth(request, tail[len(b"forward_auth") :])
            name, _, query = tail.partition(b"%")
            if name in (b"auth", b"forward_auth") and query[:2].upper() == b"3F":
                return self.handle(_with_query(request, prefix + name, query[2:]))
        return self.proxy(request)

    def _ping(self, request: Request) -> Outcome:
        return OK if self._health.asks(request) else self.proxy(request)

    def _ready(self, request: Request) -> Respond:
        if self._needs_store and not self.store_available:
            return STORE_AWAY
        return OK if self.ready else NOT_READY

    @property
    def ready(self) -> bool:
        """Whether every provider's metadata and keys are there, and the store if needed."""
        if self._needs_store and not self.store_available:
            return False
        return self._readiness.complete

    @property
    def sessions_unsealed(self) -> int:
        """How many sessions no cache held so far, so that they had to be unsealed."""
        return self._sessions.unsealed

    # -- what the driver says about its store

    @property
    def store_trusted(self) -> bool:
        """Whether the store tells of every change, so that what it said may be kept."""
        return self._sessions.store_trusted

    @store_trusted.setter
    def store_trusted(self, trusted: bool) -> None:
        self._sessions.store_trusted = trusted

    def store_changed(self, key: str | None) -> None:
        """The value under *key* was written or deleted by anybody; None: any may be."""
        self._sessions.store_changed(key)

    def warm_up(self) -> Flow[None]:
        """Discovery and key sets of all providers, with back-off; ends when all stand."""
        return self._readiness.warm_up()

    # -- the auth check

    def check(self, request: Request) -> Outcome:
        """The answer for a gateway's auth request: 2xx, 401 or 403."""
        entry = self._sessions.recall(request.headers)
        if entry is None:
            return self._anonymous(request)
        if self._clock() < entry.fresh_until:
            return self._checked(entry, request)
        return self._check_stale(entry, request)

    def _checked(self, entry: Entry, request: Request) -> Respond:
        answer = entry.answer
        if answer is None:
            answer = entry.answer = self._answer(entry.session, entry.kept)
        if b"?" in request.target and not self._meets_query(request, entry.session):
            return self._forbidden
        return answer

    def _meets_query(self, request: Request, session: Session) -> bool:
        return self._constraints.get(query_of(request)).permits(session)

    def _answer(self, session: Session, kept: bool) -> Respond:
        """The answer for a session that is fresh, whatever the query demands."""
        refusal = self._context.refusal(session)
        if refusal:
            event = Event("denied", session.name, refusal)
            return Respond(
                403,
                self._forbidden.headers,
                self._forbidden.body,
                (event,),
                session.name,
                kept,
                "denied",
                refusal,
            )
        headers = self._identity(session)
        status = self.settings.auth_success_status
        return Respond(
            status,
            headers,
            user=session.name,
            kept=kept,
            verdict="allowed",
            reason="session",
        )

    def _identity(self, session: Session) -> Headers:
        """The answer's headers that say who it is."""
        name = (b"gap-auth", header_text(session.name))
        return (name, *self._response_headers.headers(session))

    def _anonymous(self, request: Request) -> Respond:
        cleared = self._cleared_if_broken(request)
        return challenge.unauthorized(cleared) if cleared else self._unauthorized

    def _cleared_if_broken(self, request: Request) -> Headers:
        """Cookies that end a session's cookies which hold none; () without any."""
        present = self._sessions.present(request.headers)
        if not present or self._sessions.recall(request.headers) is not None:
            return ()
        return self._sessions.clear(host=self._context.host(request), present=present)

    def _check_stale(self, entry: Entry, request: Request) -> Flow[Decision]:
        renewal = yield from renew(self._context, request, entry)
        if renewal.entry is None:
            return challenge.unauthorized(renewal.headers)
        answer = self._checked(renewal.entry, request)
        return with_headers(answer, renewal.headers)

    # -- the check that also says what to do without a login

    def forward_auth(self, request: Request, tail: bytes = b"") -> Outcome:
        """2xx as the auth check; else a redirect to the login, or 401 as JSON.

        *tail* is the original URI where a gateway appends it to the endpoint's path;
        its query is the client's then, and demands nothing.
        """
        checked = request
        if tail:
            self._context.trust.asked(request, tail)  # or it is an error, for all
            checked = replace(request, target=self._own_prefix + b"auth")
        return passed(self._context, request, tail, self.check(checked))

    # -- pages and the login

    def sign_in(self, request: Request) -> Outcome:
        """The sign-in page, or the way to the provider when there is no button."""
        form = parse_form(query_of(request))
        if self.settings.skip_provider_button:
            return begin(self._context, request, form)
        # A cookie that holds no session is cleared, a good one stays.
        cleared = self._cleared_if_broken(request)
        return self._sign_in_page(request, 200, form, cleared)

    def _sign_in_page(
        self, request: Request, status: int, form: dict[str, str], headers: Headers
    ) -> Respond:
        target = self._context.redirect_target(request, form)
        return self._pages.sign_in(status=status, redirect=target, headers=headers)

    def start(self, request: Request) -> Outcome:
        """302 to the provider, with the login's cookie."""
        if request.method == b"POST":
            return self._start_posted(request)
        return begin(self._context, request, parse_form(query_of(request)))

    def _start_posted(self, request: Request) -> Flow[Decision]:
        form = yield from form_of(request)
        return (yield from settled(begin(self._context, request, form)))

    def callback(self, request: Request) -> Flow[Decision]:
        """Back from the provider: redeem the code, save the session."""
        return (yield from callback(self._context, request))

    def sign_out(self, request: Request) -> Flow[Decision]:
        """End the session."""
        return (yield from sign_out(self._context, request))

    def userinfo(self, request: Request) -> Flow[Decision]:
        """Who is logged in, as JSON; no tokens."""
        session, headers = yield from self._identified(request)
        if session is None:
            return challenge.unauthorized(headers)
        if refusal := self._context.refusal(session):
            return challenge.forbidden(headers, refusal)
        document: dict[str, Any] = {"user": session.user, "email": session.email}
        if session.groups:
            document["groups"] = session.groups
        if session.preferred_username:
            document["preferredUsername"] = session.preferred_username
        if session.claims:
            document["additionalClaims"] = session.claims
        return Respond(
            200,
            (*challenge.JSON, *NO_CACHE, *headers),
            orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE),
            user=session.name,
        )

    # -- everything else

    def identify(self, request: Request) -> Session | Flow[Session | None] | None:
        """Who sends this request; a flow when the session has to be refreshed.

        Cookies of a refresh are lost here: use `handle` where answers are written.
        """
        entry = self._sessions.recall(request.headers)
        if entry is None:
            return None
        if self._clock() < entry.fresh_until:
            return self._permitted(entry.session)
        return self._identify_stale(request)

    def _permitted(self, session: Session) -> Session | None:
        return None if self._context.refusal(session) else session

    def _identify_stale(self, request: Request) -> Flow[Session | None]:
        session, _ = yield from self._identified(request)
        return self._permitted(session) if session else None

    def _identified(self, request: Request) -> Flow[tuple[Session | None, Headers]]:
        """The session, renewed if it was stale, and the cookies for the client."""
        entry = self._sessions.recall(request.headers)
        if entry is None:
            return None, self._cleared_if_broken(request)
        if self._clock() < entry.fresh_until:
            return entry.session, ()
        renewal = yield from renew(self._context, request, entry)
        return (renewal.entry.session if renewal.entry else None), renewal.headers

    def proxy(self, request: Request) -> Flow[Decision]:
        """Pass the request on, or ask for a login."""
        session, headers = yield from self._identified(request)
        if session is None:
            return (yield from settled(self._challenge(request, headers)))
        refusal = self._context.refusal(session)
        if refusal:
            return denied(
                self._context, request, Event("denied", session.name, refusal), headers
            )
        if b"?" in request.target and not self._meets_query(request, session):
            return challenge.forbidden(headers)
        original = self._context.trust.original(request)
        own = (*self._identity(session), *headers)
        return self._upstreams.pass_on(request, original, session, own)

    def _challenge(self, request: Request, headers: Headers) -> Outcome:
        if (
            self.settings.force_json_errors
            or challenge.wants_json(request.headers)
            or challenge.is_upgrade(request)
        ):
            return challenge.unauthorized_json(headers)
        form: dict[str, str] = {}
        if self.settings.skip_provider_button:
            return begin(self._context, request, form, headers, challenge=True)
        return challenging(self._sign_in_page(request, 403, form, headers))

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """The page for an upstream that did not answer."""
        timed_out = reason == "timeout"
        return self._pages.error(
            status=504 if timed_out else 502,
            message="The application behind this login did not answer in time."
            if timed_out
            else "There was a problem connecting to the application behind this login.",
            request_id=request.id,
            detail=reason,
            headers=forward.response_headers,
            events=(
                Event("upstream_failed", forward.user, reason, forward.upstream.id),
            ),
        )


def _with_query(request: Request, path: bytes, query: bytes) -> Request:
    """*request* at *path* with the query that was escaped as a part of the path.

    nginx takes the ``?`` of an ``auth_request`` for a letter of the path and escapes it.
    Raises `RequestError` when there is a query besides: which one is the gateway's?
    """
    if b"?" in request.target:
        raise RequestError("expected one query, got one in the path besides")
    return replace(request, target=path + b"?" + unquote_to_bytes(query))


def _guarded(flow: Flow[Decision]) -> Flow[Decision]:
    """The outer guard: what a flow left over becomes a denial."""
    try:
        return (yield from flow)
    except RequestError as error:
        return _bad_request(error)
    except EffectError as error:
        event = Event("effect_failed", reason=error.code, detail=str(error))
        answer = challenge.plain(
            error.status_hint, b"the request could not be answered\n"
        )
        return replace(answer, events=(event,), verdict="failed", reason=error.code)


def _bad_request(error: RequestError) -> Respond:
    answer = challenge.plain(400, b"Bad Request\n")
    event = Event("bad_request", reason=error.code, detail=str(error))
    return Respond(400, answer.headers, answer.body, (event,))
