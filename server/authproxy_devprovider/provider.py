"""An OpenID provider FOR DEVELOPMENT AND TESTS; it has no place in production.

It speaks the code flow (OpenID Connect Core, RFC 6749, 7636, 9207), signs with real
keys, and forgets everything when it ends. Every login shows the form: there is no
single sign-on, so that users are easily switched. Tokens look like Keycloak's
(``realm_access``, ``resource_access``), so ``keycloak-oidc`` works with it as ``oidc``
does.

In a test, over HTTP, with the provider in a thread::

    config = ProviderConfig(users=example_users("secret"))
    provider = DevProvider(config)
    with serve(provider) as running:       # running.url is the issuer now
        ...                                # client "authproxy", "demo-client-secret"

or without any network, as the peer of a flow: ``provider.fetch(effect)`` answers a
`Fetch`. Someone logs in with ``provider.log_in(authorization_url, "alice")``, which
returns the callback's URL, or by POSTing ``username``, ``password`` and ``action``
(``login`` or ``cancel``) to the authorization URL.

Knobs are fields of `ProviderConfig` and may be turned at any time::

    config.access_token_claims["aud"] = ["account"]         missing audience mapper
    config.id_token_claims["aud"] = "someone-else"          ID token for another client
    config.id_token_claims["iss"] = "https://other.test"    wrong issuer in the token
    config.id_token_claims["nonce"] = None                  no nonce (or a wrong one)
    config.clock_offset = 3600.0                            the provider's clock is wrong
    config.jwks_before = UNUSABLE_KEYS                      keys that must be ignored
    config.id_token_header["kid"] = None                    a token without key id
    config.signing_alg = "ES256"
    config.discovery["code_challenge_methods_supported"] = None
    config.authorization_response["iss"] = "https://other.test"         mix-up
    config.token_response["refresh_token"] = None
    config.userinfo_claims["sub"] = "somebody else"
    config.padding = 6000                                   session above 4 kB
    config.rotate_refresh_tokens = False
    config.id_token_filter = lambda token: token + "x"      a broken signature
    config.failing["discovery"] = 500                       or a whole Answer; del ends it
    config.authorization_error = "temporarily_unavailable"
    provider.rotate_keys(keep_old=False)
    provider.revoke("alice")                                refresh: invalid_grant

``provider.count("token")`` says how many requests an endpoint got, ``provider.seen``
lists them all.
"""

from __future__ import annotations

import hmac
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from authproxy_core.effects import Fetch
from authproxy_core.messages import Headers, Response, single_header

from . import documents
from .config import Answer, Endpoint, ProviderConfig, User, merged
from .grants import Authorization
from .pages import form_post_page, login_page, message_page
from .protocol import (
    NO_STORE,
    OAuthError,
    authenticate_client,
    error_answer,
    find_client,
    json_answer,
    parse_form,
    parse_params,
    read_authorization,
    redirect_uri_allowed,
    with_params,
)
from .tokens import TokenIssuer
from .web import Running

PATHS: dict[str, Endpoint] = {
    "/.well-known/openid-configuration": "discovery",
    "/jwks": "jwks",
    "/authorize": "authorization",
    "/token": "token",
    "/userinfo": "userinfo",
    "/logout": "end_session",
}
METHODS: dict[Endpoint, tuple[bytes, ...]] = {
    "discovery": (b"GET", b"HEAD"),
    "jwks": (b"GET", b"HEAD"),
    "authorization": (b"GET", b"HEAD", b"POST"),
    "token": (b"POST",),
    "userinfo": (b"GET", b"HEAD", b"POST"),
    "end_session": (b"GET", b"HEAD", b"POST"),
}
SEEN_LIMIT = 10_000  # requests remembered


class RecordedRequest(Struct, frozen=True):
    """A request that came in; ``endpoint`` is "" for an unknown path."""

    endpoint: Endpoint | str
    method: str
    path: str
    form: dict[str, str]
    headers: Headers


class DevProvider:
    """The provider as a pure function of its requests; see the module's text."""

    def __init__(
        self,
        config: ProviderConfig,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.config = config
        self.seen: deque[RecordedRequest] = deque(maxlen=SEEN_LIMIT)
        # Tests turn knobs and log people in while a thread serves.
        self._lock = threading.RLock()
        self._desk = TokenIssuer(
            config, lambda: clock() + config.clock_offset, random_bytes
        )
        self._endpoints: dict[Endpoint, Callable[..., Answer]] = {
            "discovery": self._discovery,
            "jwks": self._jwks,
            "authorization": self._authorization,
            "token": self._token,
            "userinfo": self._userinfo,
            "end_session": self._end_session,
        }

    # Entrances ------------------------------------------------------------------

    def handle(
        self, method: bytes, target: bytes, headers: Headers, body: bytes
    ) -> Answer:
        """The answer to one request; *target* is path and query."""
        with self._lock:
            return self._handle(method, target, headers, body)

    def _handle(
        self, method: bytes, target: bytes, headers: Headers, body: bytes
    ) -> Answer:
        path, _, query = target.partition(b"?")
        endpoint = self._endpoint(path)
        self._record(endpoint or "", method, path, headers, body)
        if endpoint is None:
            return message_page(404, "Not found", "There is nothing at this address.")
        if endpoint in self.config.failing:
            return _failure(self.config.failing[endpoint])
        if method not in METHODS[endpoint]:
            allowed = b", ".join(METHODS[endpoint])
            return 405, ((b"allow", allowed), *NO_STORE), b""
        return self._endpoints[endpoint](method, query, headers, body)

    def fetch(self, effect: Fetch) -> Response:
        """Answer an effect of the core as if it had gone over the network."""
        parts = urlsplit(effect.url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        status, headers, body = self.handle(
            effect.method.encode(), target.encode(), effect.headers, effect.body
        )
        return Response(status, headers, body)

    def log_in(self, authorization_url: str, username: str) -> str:
        """The callback URL after *username* has signed in; needs no password.

        An error that goes to the callback is returned as such; one that is shown at
        the provider raises `OAuthError`.
        """
        with self._lock:
            return self._log_in(authorization_url, username)

    def _log_in(self, authorization_url: str, username: str) -> str:
        params = parse_params(urlsplit(authorization_url).query.encode())
        client_id, redirect_uri = self._redirect_target(params)
        try:
            authorization = self._read_authorization(client_id, redirect_uri, params)
        except OAuthError as error:
            response = self._error_response(params, error)
        else:
            user = self._user(username)
            if user is None:
                raise OAuthError("access_denied", f"no user {username!r}")
            response = self._code_response(authorization, user)
        return with_params(redirect_uri, response)

    def rotate_keys(self, *, keep_old: bool = True) -> None:
        """Sign with new keys; with ``keep_old`` the old ones stay in the JWKS."""
        with self._lock:
            self._desk.keys.rotate(keep_old=keep_old)

    def revoke(self, username: str) -> None:
        """End all logins of a user: codes, access and refresh tokens."""
        with self._lock:
            self._desk.revoke(lambda login: login.user.name == username)

    def logout_token(self, username: str = "", **claims: Any) -> str:
        """A logout token (Back-Channel Logout §2.4) for a user; *claims* override it."""
        with self._lock:
            return self._desk.logout_token(self._user(username), claims)

    def count(self, endpoint: Endpoint) -> int:
        """How many requests *endpoint* got so far."""
        return sum(1 for request in self.seen if request.endpoint == endpoint)

    def url(self, endpoint: Endpoint) -> str:
        """The URL of *endpoint*."""
        path = next(path for path, name in PATHS.items() if name == endpoint)
        return self.config.issuer.rstrip("/") + path

    # Discovery and keys (OpenID Connect Discovery 1.0 §3) ------------------------

    def _discovery(self, *_request: object) -> Answer:
        return json_answer(documents.discovery(self.config, self.url))

    def _jwks(self, *_request: object) -> Answer:
        own = self._desk.keys.published()
        keys = [*self.config.jwks_before, *own, *self.config.jwks_after]
        return json_answer({"keys": keys})

    # Authorization endpoint (RFC 6749 §4.1.1, OIDC Core §3.1.2) ------------------

    def _authorization(
        self, method: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer:
        try:
            form = parse_form(headers, body) if method == b"POST" else {}
            # OIDC Core §3.1.2.1: the request itself may come as a form, too.
            params = parse_params(query) if query else form
            client_id, redirect_uri = self._redirect_target(params)
        except OAuthError as error:
            # RFC 6749 §4.1.2.1: never redirect to an address that isn't known.
            return message_page(400, "This login can't begin", str(error))
        try:
            authorization = self._read_authorization(client_id, redirect_uri, params)
        except OAuthError as error:
            response = self._error_response(params, error)
            return _respond(redirect_uri, params.get("response_mode", ""), response)
        if form.get("action") == "cancel":
            denied = OAuthError("access_denied", "the user cancelled the login")
            response = self._error_response(params, denied)
            return _respond(redirect_uri, authorization.response_mode, response)
        if "username" not in form and "action" not in form:
            return login_page(client_id, params, params.get("login_hint", ""))
        return self._check_password(authorization, params, form)

    def _check_password(
        self,
        authorization: Authorization,
        params: dict[str, str],
        form: dict[str, str],
    ) -> Answer:
        name, password = form.get("username", ""), form.get("password", "")
        user = self._user(name)
        expected = user.password if user else ""
        good = hmac.compare_digest(expected.encode(), password.encode())
        if user is None or not expected or not good:
            error = "Unknown user name or wrong password."
            return login_page(authorization.client.id, params, name, error)
        response = self._code_response(authorization, user)
        return _respond(
            authorization.redirect_uri, authorization.response_mode, response
        )

    def _redirect_target(self, params: dict[str, str]) -> tuple[str, str]:
        client = find_client(self.config, params.get("client_id", ""))
        if client is None:
            raise OAuthError("invalid_request", "The client_id is unknown.")
        redirect_uri = params.get("redirect_uri", "")
        if not redirect_uri_allowed(client.redirect_uris, redirect_uri):
            raise OAuthError("invalid_request", "The redirect_uri is not registered.")
        return client.id, redirect_uri

    def _read_authorization(
        self, client_id: str, redirect_uri: str, params: dict[str, str]
    ) -> Authorization:
        client = find_client(self.config, client_id)
        assert client is not None  # noqa: S101  # _redirect_target has found it
        if self.config.authorization_error:
            raise OAuthError(self.config.authorization_error, "as configured")
        return read_authorization(self.config, client, redirect_uri, params)

    def _code_response(
        self, authorization: Authorization, user: User
    ) -> dict[str, str]:
        code = self._desk.begin(authorization, user)
        return self._response(authorization.state, {"code": code})

    def _error_response(
        self, params: dict[str, str], error: OAuthError
    ) -> dict[str, str]:
        values = {"error": error.code, "error_description": str(error)}
        return self._response(params.get("state", ""), values)

    def _response(self, state: str, values: dict[str, str]) -> dict[str, str]:
        # RFC 9207 §2: the issuer stands in every answer, errors included.
        response = {**values, "iss": self.config.issuer}
        if state:
            response["state"] = state
        return merged(response, self.config.authorization_response)

    # Token endpoint (RFC 6749 §3.2, §5, §6) --------------------------------------

    def _token(
        self, _method: bytes, _query: bytes, headers: Headers, body: bytes
    ) -> Answer:
        try:
            form = parse_form(headers, body)
            client = authenticate_client(self.config, headers, form)
            match form.get("grant_type"):
                case "authorization_code":
                    login = self._desk.redeem(client.id, form)
                    tokens = self._desk.issue(login, refreshed=False)
                case "refresh_token":
                    login = self._desk.refresh(client.id, form)
                    tokens = self._desk.issue(login, refreshed=True)
                case None:
                    raise OAuthError("invalid_request", "grant_type is missing")
                case _:
                    raise OAuthError("unsupported_grant_type", "unknown grant_type")
        except OAuthError as error:
            return error_answer(error)
        return json_answer(merged(tokens, self.config.token_response))

    # Userinfo (OIDC Core §5.3) and logout (RP-Initiated Logout 1.0) --------------

    def _userinfo(
        self, _method: bytes, _query: bytes, headers: Headers, _body: bytes
    ) -> Answer:
        value = single_header(headers, b"authorization") or b""
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return _bearer_challenge(b"Bearer")
        text = token.strip().decode("ascii", "replace")
        login = self._desk.login_of(text)
        if login is None:
            return _bearer_challenge(b'Bearer error="invalid_token"')
        return json_answer(documents.userinfo_claims(self.config, login))

    def _end_session(
        self, method: bytes, query: bytes, headers: Headers, body: bytes
    ) -> Answer:
        try:
            post = method == b"POST"
            params = parse_form(headers, body) if post else parse_params(query)
            client_id = self._sign_out(params)
            target = params.get("post_logout_redirect_uri", "")
            if not target:
                return message_page(200, "Signed out", "You are signed out.")
            client = find_client(self.config, client_id)
            registered = client.post_logout_redirect_uris if client else ()
            if client is None or not redirect_uri_allowed(registered, target):
                raise OAuthError("invalid_request", "The address is not registered.")
        except OAuthError as error:
            return message_page(400, "Can't sign out", str(error))
        state = {"state": params["state"]} if "state" in params else {}
        return _redirect(with_params(target, state))

    def _sign_out(self, params: dict[str, str]) -> str:
        """End the login that ``id_token_hint`` names; returns the client's id."""
        hint = params.get("id_token_hint")
        if hint is None:
            return params.get("client_id", "")
        claims = self._desk.keys.verified_claims(hint)
        if claims is None:
            raise OAuthError("invalid_request", "The id_token_hint is not from here.")
        client_id = str(claims.get("azp", ""))
        if params.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "The client_id contradicts the hint.")
        self._desk.revoke(lambda login: login.sid == claims.get("sid"))
        return client_id

    # Small things ---------------------------------------------------------------

    def _endpoint(self, path: bytes) -> Endpoint | None:
        text = path.decode("latin-1")
        base = urlsplit(self.config.issuer).path.rstrip("/")
        return PATHS.get(text.removeprefix(base)) if text.startswith(base) else None

    def _record(
        self,
        endpoint: Endpoint | str,
        method: bytes,
        path: bytes,
        headers: Headers,
        body: bytes,
    ) -> None:
        try:
            form = parse_form(headers, body) if body else {}
        except OAuthError:
            form = {}
        text = path.decode("latin-1")
        self.seen.append(
            RecordedRequest(endpoint, method.decode("latin-1"), text, form, headers)
        )

    def _user(self, name: str) -> User | None:
        return next((user for user in self.config.users if user.name == name), None)


def serve(
    provider: DevProvider,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Running:
    """Serve *provider* in a thread; it becomes its own issuer unless it has one.

    An issuer such as ``/realms/demo`` (only a path) is appended to the server's URL.
    """
    running = Running(provider.handle, host, port, tls)
    if not provider.config.issuer or provider.config.issuer.startswith("/"):
        provider.config.issuer = running.url + provider.config.issuer
    return running


def _respond(redirect_uri: str, mode: str, response: dict[str, str]) -> Answer:
    if mode == "form_post":
        return form_post_page(redirect_uri, response)
    return _redirect(with_params(redirect_uri, response))


def _redirect(url: str) -> Answer:
    # 303 and never 307: the password must not be sent on (RFC 9700 §4.12).
    return 303, ((b"location", url.encode()), *NO_STORE), b""


def _bearer_challenge(value: bytes) -> Answer:
    return 401, ((b"www-authenticate", value), *NO_STORE), b""


def _failure(failing: int | Answer) -> Answer:
    if isinstance(failing, int):
        return json_answer({"error": "server_error"}, failing)
    return failing
