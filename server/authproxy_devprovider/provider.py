"""An OpenID provider FOR DEVELOPMENT AND TESTS; do not use it in production.

It implements the code flow (OpenID Connect Core, RFC 6749, 7636, 9207), signs with real
keys and keeps its state in memory. Every login shows the form, because without single
sign-on it is easy to switch users. Tokens have Keycloak's format (``realm_access``,
``resource_access``), so the provider types ``oidc`` and ``keycloak-oidc`` both work.

In a test, over HTTP, with the provider in a thread::

    config = ProviderConfig(users=example_users("secret"))
    provider = DevProvider(config)
    with serve(provider) as server:        # server.url is now the issuer
        ...                                # client "authproxy", "demo-client-secret"

or without a network: ``provider.fetch(effect)`` performs a `Fetch` of a flow.

To log in, call ``provider.log_in(authorization_url, "alice")``, which returns the
callback URL, or POST ``username``, ``password`` and ``action`` (``login`` or
``cancel``) to the authorization URL.

Faults are fields of `ProviderConfig` and may be changed at any time::

    config.access_token_claims["aud"] = ["account"]         missing audience mapper
    config.id_token_claims["aud"] = "other-client"          ID token for another client
    config.id_token_claims["iss"] = "https://other.test"    wrong issuer in the token
    config.id_token_claims["nonce"] = None                  no nonce (or a wrong one)
    config.clock_offset = 3600.0                            wrong clock of the provider
    config.jwks_before = UNUSABLE_KEYS                      keys that must be ignored
    config.id_token_header["kid"] = None                    a token without key id
    config.signing_alg = "ES256"
    config.discovery["code_challenge_methods_supported"] = None
    config.authorization_response["iss"] = "https://other.test"         mix-up
    config.token_response["refresh_token"] = None
    config.userinfo_claims["sub"] = "other-subject"
    config.padding = 6000                                   session above 4 kB
    config.rotate_refresh_tokens = False
    config.id_token_filter = lambda token: token + "x"      an invalid signature
    config.failing["discovery"] = 500                       or a whole HttpResponse
    config.authorization_error = "temporarily_unavailable"
    provider.rotate_keys(keep_old=False)
    provider.revoke("alice")                                refresh: invalid_grant

``provider.count("token")`` returns the number of requests to an endpoint;
``provider.requests`` lists all requests.
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
from .config import Endpoint, HttpResponse, ProviderConfig, User, merge
from .grants import Authorization
from .pages import form_post_page, message_page, sign_in_page
from .protocol import (
    NO_STORE,
    OAuthError,
    add_params,
    authenticate_client,
    error_response,
    find_client,
    is_redirect_uri_allowed,
    json_response,
    parse_authorization,
    parse_form,
    parse_params,
)
from .tokens import TokenIssuer
from .web import RunningServer

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
MAX_RECORDED_REQUESTS = 10_000


class RecordedRequest(Struct, frozen=True):
    """A received request; ``endpoint`` is "" for an unknown path."""

    endpoint: Endpoint | str
    method: str
    path: str
    form: dict[str, str]
    headers: Headers


class DevProvider:
    """The provider, without I/O; see the module docstring."""

    def __init__(
        self,
        config: ProviderConfig,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.config = config
        self.requests: deque[RecordedRequest] = deque(maxlen=MAX_RECORDED_REQUESTS)
        # Tests rotate keys and log users in while a thread serves.
        self._lock = threading.RLock()
        self.tokens = TokenIssuer(
            config, lambda: clock() + config.clock_offset, random_bytes
        )
        self._endpoints: dict[Endpoint, Callable[..., HttpResponse]] = {
            "discovery": self._discovery,
            "jwks": self._jwks,
            "authorization": self._authorization,
            "token": self._token,
            "userinfo": self._userinfo,
            "end_session": self._end_session,
        }

    def handle(
        self, method: bytes, target: bytes, headers: Headers, body: bytes
    ) -> HttpResponse:
        """Return the response to a request; *target* is path and query."""
        with self._lock:
            return self._handle(method, target, headers, body)

    def _handle(
        self, method: bytes, target: bytes, headers: Headers, body: bytes
    ) -> HttpResponse:
        path, _, query = target.partition(b"?")
        endpoint = self._endpoint(path)
        self._record(endpoint or "", method, path, headers, body)
        if endpoint is None:
            return message_page(404, "Not found", "This page does not exist.")
        if endpoint in self.config.failing:
            return _failure(self.config.failing[endpoint])
        if method not in METHODS[endpoint]:
            allowed = b", ".join(METHODS[endpoint])
            return 405, ((b"allow", allowed), *NO_STORE), b""
        return self._endpoints[endpoint](method, query, headers, body)

    def fetch(self, effect: Fetch) -> Response:
        """Perform a fetch of the core without a network."""
        parts = urlsplit(effect.url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        status, headers, body = self.handle(
            effect.method.encode(), target.encode(), effect.headers, effect.body
        )
        return Response(status, headers, body)

    def log_in(self, authorization_url: str, username: str) -> str:
        """Return the callback URL of a login of *username*, without a password.

        The URL may contain an error. Raises `OAuthError` for an error that the provider
        would show on a page.
        """
        with self._lock:
            return self._log_in(authorization_url, username)

    def _log_in(self, authorization_url: str, username: str) -> str:
        params = parse_params(urlsplit(authorization_url).query.encode())
        client_id, redirect_uri = self._redirect_target(params)
        try:
            authorization = self._parse_authorization(client_id, redirect_uri, params)
        except OAuthError as error:
            response = self._error_response(params, error)
        else:
            user = self._user(username)
            if user is None:
                raise OAuthError("access_denied", f"no user {username!r}")
            response = self._code_response(authorization, user)
        return add_params(redirect_uri, response)

    def rotate_keys(self, *, keep_old: bool = True) -> None:
        """Sign with new keys; with *keep_old* the old ones stay in the JWKS."""
        with self._lock:
            self.tokens.keys.rotate(keep_old=keep_old)

    def revoke(self, username: str) -> None:
        """Revoke all logins of a user: codes, access and refresh tokens."""
        with self._lock:
            self.tokens.revoke(lambda login: login.user.name == username)

    def logout_token(self, username: str = "", **claims: Any) -> str:
        """Return a logout token (Back-Channel Logout §2.4); *claims* override it."""
        with self._lock:
            return self.tokens.logout_token(self._user(username), claims)

    def count(self, endpoint: Endpoint) -> int:
        """Return the number of requests to *endpoint*."""
        return sum(1 for request in self.requests if request.endpoint == endpoint)

    def url(self, endpoint: Endpoint) -> str:
        """Return the URL of *endpoint*."""
        path = next(path for path, name in PATHS.items() if name == endpoint)
        return self.config.issuer.rstrip("/") + path

    # Discovery and keys (OpenID Connect Discovery 1.0 §3) ------------------------

    def _discovery(self, *_request: object) -> HttpResponse:
        return json_response(documents.discovery_document(self.config, self.url))

    def _jwks(self, *_request: object) -> HttpResponse:
        keys = self.tokens.keys.public_keys()
        keys = [*self.config.jwks_before, *keys, *self.config.jwks_after]
        return json_response({"keys": keys})

    # Authorization endpoint (RFC 6749 §4.1.1, OIDC Core §3.1.2) ------------------

    def _authorization(
        self, method: bytes, query: bytes, headers: Headers, body: bytes
    ) -> HttpResponse:
        try:
            form = parse_form(headers, body) if method == b"POST" else {}
            # OIDC Core §3.1.2.1: the request may be sent as a form, too.
            params = parse_params(query) if query else form
            client_id, redirect_uri = self._redirect_target(params)
        except OAuthError as error:
            # RFC 6749 §4.1.2.1: no redirect to an unregistered URI.
            return message_page(400, "Invalid sign-in request", str(error))
        try:
            authorization = self._parse_authorization(client_id, redirect_uri, params)
        except OAuthError as error:
            response = self._error_response(params, error)
            return _respond(redirect_uri, params.get("response_mode", ""), response)
        if form.get("action") == "cancel":
            denied = OAuthError("access_denied", "the user canceled the login")
            response = self._error_response(params, denied)
            return _respond(redirect_uri, authorization.response_mode, response)
        if "username" not in form and "action" not in form:
            return sign_in_page(client_id, params, params.get("login_hint", ""))
        return self._check_password(authorization, params, form)

    def _check_password(
        self,
        authorization: Authorization,
        params: dict[str, str],
        form: dict[str, str],
    ) -> HttpResponse:
        name, password = form.get("username", ""), form.get("password", "")
        user = self._user(name)
        expected = user.password if user else ""
        matches = hmac.compare_digest(expected.encode(), password.encode())
        if user is None or not expected or not matches:
            error = "Incorrect username or password."
            return sign_in_page(authorization.client.id, params, name, error)
        response = self._code_response(authorization, user)
        return _respond(
            authorization.redirect_uri, authorization.response_mode, response
        )

    def _redirect_target(self, params: dict[str, str]) -> tuple[str, str]:
        client = find_client(self.config, params.get("client_id", ""))
        if client is None:
            raise OAuthError("invalid_request", "The client_id is unknown.")
        redirect_uri = params.get("redirect_uri", "")
        if not is_redirect_uri_allowed(client.redirect_uris, redirect_uri):
            raise OAuthError("invalid_request", "The redirect_uri is not registered.")
        return client.id, redirect_uri

    def _parse_authorization(
        self, client_id: str, redirect_uri: str, params: dict[str, str]
    ) -> Authorization:
        client = find_client(self.config, client_id)
        assert client is not None  # noqa: S101  # checked by _redirect_target
        if self.config.authorization_error:
            raise OAuthError(self.config.authorization_error, "as configured")
        return parse_authorization(self.config, client, redirect_uri, params)

    def _code_response(
        self, authorization: Authorization, user: User
    ) -> dict[str, str]:
        code = self.tokens.start_login(authorization, user)
        return self._response(authorization.state, {"code": code})

    def _error_response(
        self, params: dict[str, str], error: OAuthError
    ) -> dict[str, str]:
        values = {"error": error.code, "error_description": str(error)}
        return self._response(params.get("state", ""), values)

    def _response(self, state: str, values: dict[str, str]) -> dict[str, str]:
        # RFC 9207 §2: every response has the issuer, errors included.
        response = {**values, "iss": self.config.issuer}
        if state:
            response["state"] = state
        return merge(response, self.config.authorization_response)

    # Token endpoint (RFC 6749 §3.2, §5, §6) --------------------------------------

    def _token(
        self, _method: bytes, _query: bytes, headers: Headers, body: bytes
    ) -> HttpResponse:
        try:
            form = parse_form(headers, body)
            client = authenticate_client(self.config, headers, form)
            match form.get("grant_type"):
                case "authorization_code":
                    login = self.tokens.redeem(client.id, form)
                    response = self.tokens.issue(login, refreshed=False)
                case "refresh_token":
                    login = self.tokens.refresh(client.id, form)
                    response = self.tokens.issue(login, refreshed=True)
                case None:
                    raise OAuthError("invalid_request", "grant_type is missing")
                case _:
                    raise OAuthError("unsupported_grant_type", "unknown grant_type")
        except OAuthError as error:
            return error_response(error)
        return json_response(merge(response, self.config.token_response))

    # Userinfo (OIDC Core §5.3) and logout (RP-Initiated Logout 1.0) --------------

    def _userinfo(
        self, _method: bytes, _query: bytes, headers: Headers, _body: bytes
    ) -> HttpResponse:
        value = single_header(headers, b"authorization") or b""
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return _bearer_challenge(b"Bearer")
        text = token.strip().decode("ascii", "replace")
        login = self.tokens.login_of(text)
        if login is None:
            return _bearer_challenge(b'Bearer error="invalid_token"')
        return json_response(documents.userinfo_claims(self.config, login))

    def _end_session(
        self, method: bytes, query: bytes, headers: Headers, body: bytes
    ) -> HttpResponse:
        try:
            post = method == b"POST"
            params = parse_form(headers, body) if post else parse_params(query)
            client_id = self._sign_out(params)
            target = params.get("post_logout_redirect_uri", "")
            if not target:
                return message_page(200, "Signed out", "You are signed out.")
            client = find_client(self.config, client_id)
            registered = client.post_logout_redirect_uris if client else ()
            if client is None or not is_redirect_uri_allowed(registered, target):
                raise OAuthError(
                    "invalid_request", "The post_logout_redirect_uri is not registered."
                )
        except OAuthError as error:
            return message_page(400, "Invalid sign-out request", str(error))
        state = {"state": params["state"]} if "state" in params else {}
        return _redirect(add_params(target, state))

    def _sign_out(self, params: dict[str, str]) -> str:
        """Revoke the login that ``id_token_hint`` names; returns the client ID."""
        hint = params.get("id_token_hint")
        if hint is None:
            return params.get("client_id", "")
        claims = self.tokens.keys.verify(hint)
        if claims is None:
            raise OAuthError(
                "invalid_request", "The id_token_hint was not issued by this provider."
            )
        client_id = str(claims.get("azp", ""))
        if params.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "The client_id contradicts the hint.")
        self.tokens.revoke(lambda login: login.sid == claims.get("sid"))
        return client_id

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
        self.requests.append(
            RecordedRequest(endpoint, method.decode("latin-1"), text, form, headers)
        )

    def _user(self, name: str) -> User | None:
        return next((user for user in self.config.users if user.name == name), None)


def serve(
    provider: DevProvider,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> RunningServer:
    """Serve *provider* in a thread; its URL becomes the issuer if none is set.

    If the issuer is only a path, such as ``/realms/demo``, it is appended to the URL.
    """
    server = RunningServer(provider.handle, host, port, tls)
    if not provider.config.issuer or provider.config.issuer.startswith("/"):
        provider.config.issuer = server.url + provider.config.issuer
    return server


def _respond(redirect_uri: str, mode: str, response: dict[str, str]) -> HttpResponse:
    if mode == "form_post":
        return form_post_page(redirect_uri, response)
    return _redirect(add_params(redirect_uri, response))


def _redirect(url: str) -> HttpResponse:
    # 303, because 307 would forward the password (RFC 9700 §4.12).
    return 303, ((b"location", url.encode()), *NO_STORE), b""


def _bearer_challenge(value: bytes) -> HttpResponse:
    return 401, ((b"www-authenticate", value), *NO_STORE), b""


def _failure(failing: int | HttpResponse) -> HttpResponse:
    if isinstance(failing, int):
        return json_response({"error": "server_error"}, failing)
    return failing
