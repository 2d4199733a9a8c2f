"""Reading and checking what arrives at the provider: forms, clients, PKCE.

Pure functions. What is wrong is raised as `OAuthError`, whose code and text go to the
client as they are.
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

from .config import Answer, Client, ProviderConfig
from .grants import Authorization

# RFC 7636 §4.1: 43 to 128 unreserved characters; the challenge looks the same.
PKCE_VALUE = re.compile(r"[A-Za-z0-9._~-]{43,128}")
LOOPBACK = re.compile(r"127\.0\.0\.1|::1|localhost|(?:[a-z0-9-]+\.)+localhost")
NO_STORE: Headers = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))


class OAuthError(Exception):
    """An error answer: ``code`` as registered, a sentence, and an HTTP status."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


def json_answer(value: Any, status: int = 200, headers: Headers = NO_STORE) -> Answer:
    """*value* as a JSON answer."""
    body = json.dumps(value).encode()
    return status, ((b"content-type", b"application/json"), *headers), body


def error_answer(error: OAuthError) -> Answer:
    """The JSON error of RFC 6749 §5.2."""
    headers = NO_STORE
    if error.status == 401:
        headers = (*headers, (b"www-authenticate", b'Basic realm="token endpoint"'))
    value = {"error": error.code, "error_description": str(error)}
    return json_answer(value, error.status, headers)


def parse_params(text: bytes) -> dict[str, str]:
    """Parameters of a query or a form; none may come twice (RFC 6749 §3.1)."""
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
        raise OAuthError("invalid_request", "a parameter was sent twice")
    # RFC 6749 §3.1: a parameter without a value counts as omitted.
    return {name: value for name, value in params.items() if value}


def parse_form(headers: Headers, body: bytes) -> dict[str, str]:
    """Parameters of a form body."""
    kind = single_header(headers, b"content-type") or b""
    if kind.split(b";")[0].strip().lower() != b"application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "expected a form (urlencoded) as body")
    return parse_params(body)


def with_params(url: str, params: dict[str, str]) -> str:
    """*url* with more query parameters."""
    separator = "&" if urlsplit(url).query else "?"
    return f"{url}{separator}{urlencode(params)}" if params else url


def find_client(config: ProviderConfig, client_id: str) -> Client | None:
    """The client of that id."""
    return next((client for client in config.clients if client.id == client_id), None)


def redirect_uri_allowed(registered: tuple[str, ...], uri: str) -> bool:
    """Whether *uri* is registered; on this machine anything goes if nothing is."""
    if registered:
        return uri in registered
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return False
    plain = not parts.fragment and not parts.username and uri.isprintable()
    return (
        plain and parts.scheme in ("http", "https") and bool(LOOPBACK.fullmatch(host))
    )


def read_authorization(
    config: ProviderConfig, client: Client, redirect_uri: str, params: dict[str, str]
) -> Authorization:
    """The authorization request, once client and redirect URI are known to be good.

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
        raise OAuthError("login_required", "every login needs the form here")
    if "none" in prompts:
        raise OAuthError("invalid_request", "prompt none goes with no other")
    scopes = tuple(params.get("scope", "").split())
    if not set(scopes) <= set(config.scopes):
        raise OAuthError("invalid_scope", "an unknown scope was asked for")
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
    """RFC 7636 §4.6; also refuses a verifier without a challenge (RFC 9700 §4.8.2)."""
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
    """The client of a token request (RFC 6749 §2.3.1), or ``invalid_client``."""
    basic = single_header(headers, b"authorization")
    if basic is None:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    elif "client_secret" in form:
        raise OAuthError("invalid_request", "two ways of client authentication")
    else:
        client_id, secret = _basic_credentials(basic)
        if form.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "client_id contradicts Authorization")
    client = find_client(config, client_id)
    good = client is not None and hmac.compare_digest(
        client.secret.encode(), secret.encode()
    )
    if client is None or not good:
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
