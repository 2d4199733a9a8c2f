"""Parsing and validation of requests to the provider: forms, clients, PKCE.

All functions are pure. They raise `OAuthError`, with the code and text that are sent to
the client.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from authproxy_core.encoding import b64url
from authproxy_core.messages import Headers, single_header

from .config import Client, HttpResponse, ProviderConfig
from .grants import Authorization

# RFC 7636 §4.1: 43 to 128 unreserved characters, in a verifier and in a challenge.
PKCE_VALUE = re.compile(r"[A-Za-z0-9._~-]{43,128}")
LOOPBACK = re.compile(r"127\.0\.0\.1|::1|localhost|(?:[a-z0-9-]+\.)+localhost")
NO_STORE: Headers = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))


class OAuthError(Exception):
    """An error response: a registered ``code``, a description and an HTTP status."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


def json_response(
    value: Any, status: int = 200, headers: Headers = NO_STORE
) -> HttpResponse:
    """Return *value* as a JSON response."""
    body = json.dumps(value).encode()
    return status, ((b"content-type", b"application/json"), *headers), body


def error_response(error: OAuthError) -> HttpResponse:
    """Return the JSON error response (RFC 6749 §5.2)."""
    headers = NO_STORE
    if error.status == 401:
        headers = (*headers, (b"www-authenticate", b'Basic realm="token endpoint"'))
    value = {"error": error.code, "error_description": str(error)}
    return json_response(value, error.status, headers)


def parse_params(text: bytes) -> dict[str, str]:
    """Parse a query or form; a repeated parameter is an error (RFC 6749 §3.1)."""
    try:
        pairs = parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=100,
        )
    except ValueError:
        raise OAuthError("invalid_request", "malformed parameters") from None
    params = dict(pairs)
    if len(params) != len(pairs):
        raise OAuthError("invalid_request", "a parameter is repeated")
    # RFC 6749 §3.1: a parameter without a value is treated as omitted.
    return {name: value for name, value in params.items() if value}


def parse_form(headers: Headers, body: bytes) -> dict[str, str]:
    """Parse the parameters of a form body."""
    kind = single_header(headers, b"content-type") or b""
    if kind.split(b";")[0].strip().lower() != b"application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "expected a form (urlencoded) as body")
    return parse_params(body)


def add_params(url: str, params: dict[str, str]) -> str:
    """Return *url* with *params* added to its query."""
    separator = "&" if urlsplit(url).query else "?"
    return f"{url}{separator}{urlencode(params)}" if params else url


def find_client(config: ProviderConfig, client_id: str) -> Client | None:
    """Return the client with *client_id*; None if it is unknown."""
    return next((client for client in config.clients if client.id == client_id), None)


def is_redirect_uri_allowed(registered: tuple[str, ...], uri: str) -> bool:
    """Return whether *uri* is registered, or loopback if *registered* is empty."""
    if registered:
        return uri in registered
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.fragment or parts.username or not uri.isprintable():
        return False
    return parts.scheme in ("http", "https") and bool(LOOPBACK.fullmatch(host))


def parse_authorization(
    config: ProviderConfig, client: Client, redirect_uri: str, params: dict[str, str]
) -> Authorization:
    """Parse an authorization request with a valid client and redirect URI.

    Raises `OAuthError`, to be sent to the redirect URI.
    """
    for name in ("request", "request_uri"):
        if name in params:
            raise OAuthError(f"{name}_not_supported", f"{name} is not supported")
    if params.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "expected response_type=code")
    if params.get("response_mode", "query") not in ("query", "form_post"):
        raise OAuthError("invalid_request", "expected query or form_post")
    prompts = params.get("prompt", "").split()
    if prompts == ["none"]:
        raise OAuthError("login_required", "every login requires the form")
    if "none" in prompts:
        raise OAuthError("invalid_request", "prompt=none with another value")
    scopes = tuple(params.get("scope", "").split())
    if not set(scopes) <= set(config.scopes):
        raise OAuthError("invalid_scope", "unknown scope")
    challenge, method = _code_challenge(client, params)
    return Authorization(
        client=client,
        redirect_uri=redirect_uri,
        scopes=scopes,
        state=params.get("state", ""),
        nonce=params.get("nonce", ""),
        code_challenge=challenge,
        code_challenge_method=method,
        response_mode=params.get("response_mode", "query"),
        acr_values=params.get("acr_values", ""),
    )


def _code_challenge(client: Client, params: dict[str, str]) -> tuple[str, str]:
    challenge = params.get("code_challenge", "")
    method = params.get("code_challenge_method", "plain" if challenge else "")
    if not challenge:
        if method or client.require_pkce or not client.secret:
            raise OAuthError("invalid_request", "code_challenge is missing")
    elif method not in ("S256", "plain") or not PKCE_VALUE.fullmatch(challenge):
        raise OAuthError("invalid_request", "malformed code_challenge or method")
    return challenge, method


def check_verifier(authorization: Authorization, verifier: str) -> None:
    """Verify PKCE (RFC 7636 §4.6); reject a verifier without challenge (RFC 9700)."""
    if not authorization.code_challenge:
        if verifier:
            raise OAuthError("invalid_grant", "code_verifier without a challenge")
        return
    if not PKCE_VALUE.fullmatch(verifier):
        raise OAuthError("invalid_grant", "code_verifier is missing or malformed")
    derived = verifier.encode()
    if authorization.code_challenge_method == "S256":
        derived = b64url(hashlib.sha256(derived).digest())
    if not hmac.compare_digest(derived, authorization.code_challenge.encode()):
        raise OAuthError("invalid_grant", "code_verifier does not match")


def authenticate_client(
    config: ProviderConfig, headers: Headers, form: dict[str, str]
) -> Client:
    """Return the client of a token request (RFC 6749 §2.3.1)."""
    basic = single_header(headers, b"authorization")
    if basic is None:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    elif "client_secret" in form:
        raise OAuthError("invalid_request", "two methods of client authentication")
    else:
        client_id, secret = _basic_credentials(basic)
        if form.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "client_id contradicts Authorization")
    client = find_client(config, client_id)
    expected = client.secret if client is not None else ""
    matches = hmac.compare_digest(expected.encode(), secret.encode())
    if client is None or not matches:
        raise OAuthError("invalid_client", "unknown client or wrong secret", 401)
    return client


def _basic_credentials(value: bytes) -> tuple[str, str]:
    scheme, _, encoded = value.partition(b" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    name, colon, secret = text.partition(":")
    if scheme.lower() != b"basic" or not colon:
        raise OAuthError("invalid_client", "malformed Authorization header", 401)
    # Both halves are form-encoded before they are joined (RFC 6749 §2.3.1).
    return unquote_plus(name), unquote_plus(secret)
