"""The auth check: 2xx, 401 or 403 for the auth request of a gateway.

`AuthCheck.check_session` is the hot path: one header field, one dict lookup, one
comparison, and a response that was built before.
"""

from __future__ import annotations

import contextlib

from msgspec.structs import replace

from ..access.auth_bypass import AuthBypass
from ..access.credentials import Credentials, Rejection, authenticate, with_rejection
from ..access.rules import TAIL_FIELD
from ..effects import Flow, Outcome
from ..errors import KeysUnavailableError, RequestError, StoreError
from ..identity.headers import HeaderInjector
from ..login.context import Context
from ..messages import Decision, Event, Headers, Request, Respond
from ..pages import challenge
from ..pages.outcomes import allowed_response, resolve_outcome, with_headers
from ..request.authorization import field_of
from ..request.original import OriginalRequest
from ..session import Session
from ..sessions.session_cache import SessionEntry
from ..sessions.session_resolver import clear_invalid_cookies, resolve_session
from .login_links import login_link
from .middleware import Handler
from .requirements import Requirements


class AuthCheck:
    """Checks requests by their credentials, session, rules and bypass options.

    *bypass* is None if no option can make a login unnecessary.
    """

    def __init__(
        self,
        context: Context,
        credentials: Credentials | None,
        requirements: Requirements,
        bypass: AuthBypass | None,
        response_headers: HeaderInjector,
    ) -> None:
        self._context = context
        self._clock, self._sessions = context.clock, context.sessions
        self._bound = context.binding.is_active
        self._credentials = credentials
        self._requirements = requirements
        self._has_rules = requirements.has_rules
        self._bypass = bypass
        self._response_headers = response_headers
        self._auth_path = f"{context.settings.proxy_prefix}/auth".encode()
        self._status = context.settings.auth_success_status
        self._unauthorized = replace(challenge.unauthorized_response(), reusable=True)
        self._forbidden = replace(challenge.forbidden_response(), reusable=True)

    @property
    def handler(self) -> Handler:
        """The handler of the auth endpoint, with no more steps than settings require."""
        if self._bypass is None and self._credentials is None:
            return self.check_session
        return self.check

    def check(self, request: Request) -> Outcome:
        """Check *request*; rules and bypass options see the original request."""
        if self._bypass is None or self._requirements.requires_session(request):
            return self._check_credentials(request)
        if not self._has_rules and (response := self._allow_fresh_session(request)):
            return response
        return self._check_bypass(
            request, self._context.trusted_proxies.original(request)
        )

    def check_original(self, request: Request, tail: bytes) -> Outcome:
        """Check the original request that a gateway sends to the forward-auth endpoint.

        A *tail* behind the endpoint's path is the original URI. The query is the
        client's then, and constrains nothing. Raises `RequestError`.
        """
        if not tail and self._bypass is None:
            return self._check_credentials(request)
        original = self._context.trusted_proxies.original_for_auth(request, tail)
        if tail:
            headers = (*request.headers, (TAIL_FIELD, tail))
            request = replace(request, target=self._auth_path, headers=headers)
        return self._check_bypass(request, original)

    def check_session(self, request: Request) -> Outcome:
        """Check *request* by its session alone."""
        entry = self._sessions.lookup(request.headers)
        if entry is None or (
            self._bound and self._context.is_unbound_session(request, entry)
        ):
            return self._unauthenticated(request)
        if self._clock() < entry.fresh_until:
            return self._check_entry(entry, request)
        return self._check_stale(entry, request)

    def _allow_fresh_session(self, request: Request) -> Respond | None:
        """Return the response for an authorized fresh session: it needs no bypass."""
        entry = self._cached_entry(request)
        if entry is None or self._clock() >= entry.fresh_until:
            return None
        response = self._check_entry(entry, request)
        return response if response.verdict == "allowed" else None

    def _cached_entry(self, request: Request) -> SessionEntry | None:
        """Return the entry for the request's credentials or session, fresh or stale."""
        if self._credentials is not None and field_of(request.headers) is not None:
            return self._credentials.cached(request)
        entry = self._sessions.lookup(request.headers)
        if entry and self._bound and self._context.is_unbound_session(request, entry):
            return None
        return entry

    def _check_bypass(self, request: Request, original: OriginalRequest) -> Outcome:
        if denied := self._requirements.check_deny_all(request):
            return denied
        if self._bypass is None or not self._bypass.applies(request, original):
            return self._check_credentials(request)
        return self._check_optional(request)

    def _check_credentials(self, request: Request) -> Outcome:
        """Check by the Authorization field; without one, by the session."""
        credentials = self._credentials
        if credentials is None or field_of(request.headers) is None:
            return self.check_session(request)
        entry = credentials.cached(request)
        if entry is not None:
            return self._check_entry(entry, request)
        return self._verify_credentials(request, credentials)

    def _verify_credentials(
        self, request: Request, credentials: Credentials
    ) -> Flow[Decision]:
        verified = yield from credentials.verify(request)
        if isinstance(verified, SessionEntry):
            return self._check_entry(verified, request)
        decision = yield from resolve_outcome(self.check_session(request))
        return with_rejection(decision, verified)

    def _check_optional(self, request: Request) -> Flow[Decision]:
        """Allow a request that needs no session, with the headers of one if present."""
        rejected: Rejection | None = None
        try:
            session, headers, rejected = yield from authenticate(
                self._context, self._credentials, request
            )
        except (StoreError, KeysUnavailableError):
            session, headers = None, ()
        return with_rejection(self._allow(request, session, headers), rejected)

    def _allow(
        self, request: Request, session: Session | None, headers: Headers
    ) -> Respond:
        if session is None:
            fields = (*self._response_headers.headers(None), *headers)
            return allowed_response(self._status, fields, "", "skipped")
        if denied := self._requirements.check(request, session):
            return with_headers(denied, headers)
        fields = (*self._response_headers.headers(session), *headers)
        return allowed_response(self._status, fields, session.name, "skipped")

    def _check_entry(self, entry: SessionEntry, request: Request) -> Respond:
        """Return the response for a fresh session; it is built once per entry."""
        response = entry.response
        if response is None:
            response = entry.response = self._respond(entry.session, entry.cached)
        if self._has_rules or b"?" in request.target:
            return self._requirements.check(request, entry.session) or response
        return response

    def _respond(self, session: Session, reusable: bool) -> Respond:
        """Build the response for a fresh session, regardless of rules and query."""
        reason = self._context.denial_reason(session)
        if reason:
            return replace(
                self._forbidden,
                events=(Event("denied", session.name, reason),),
                user=session.name,
                reusable=reusable,
                reason=reason,
            )
        injector = self._response_headers
        build = injector.headers if reusable else injector.build
        return allowed_response(
            self._status, build(session), session.name, "session", reusable
        )

    def _unauthenticated(
        self, request: Request, cookies: Headers | None = None
    ) -> Respond:
        """Return 401 with *cookies*, by default those that clear invalid ones.

        A browser gets a link to the login, for gateways that show it the response.
        """
        if cookies is None:
            cookies = clear_invalid_cookies(self._context, request)
        if challenge.accepts_html(request.headers) and request.target.startswith(
            self._auth_path
        ):
            # Ambiguous forwarded headers only leave the link out.
            with contextlib.suppress(RequestError):
                if link := login_link(self._context, request):
                    return challenge.login_link_response(link, cookies)
        if cookies:
            return challenge.unauthorized_response(cookies)
        return self._unauthorized

    def _check_stale(self, entry: SessionEntry, request: Request) -> Flow[Decision]:
        resolved = yield from resolve_session(self._context, request, entry)
        if resolved.entry is None:
            return self._unauthenticated(request, resolved.headers)
        return with_headers(
            self._check_entry(resolved.entry, request), resolved.headers
        )
