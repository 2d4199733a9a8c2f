"""Requests to an identity provider, and parsers of its responses.

All functions are pure: they return a `Fetch` or a URL, or parse a `Response` into a typed
value and raise `ProviderError`. Error texts contain provider data only if it is an issuer
or an error made safe by `provider_errors`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import msgspec
from msgspec import Struct

from ..effects import Fetch
from ..encoding import header_text
from ..errors import ProviderError
from ..messages import Headers, Response, first_header
from .provider_errors import (
    TOKEN_HINTS,
    bearer_error,
    error_text,
    safe_description,
    safe_error_code,
)

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM_HEADERS: Headers = (
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"accept", b"application/json"),
)
FORM_TYPES = (b"application/x-www-form-urlencoded", b"text/plain")
JSON_HEADERS: Headers = ((b"accept", b"application/json"),)


class Metadata(Struct, frozen=True, kw_only=True):
    """The provider's endpoints and capabilities (OIDC Discovery §3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    revocation_endpoint: str = ""
    id_token_signing_alg_values_supported: tuple[str, ...] = ()
    code_challenge_methods_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False


class Tokens(Struct, frozen=True):
    """A token response (RFC 6749 §5.1); ``expires_in`` in seconds, 0: unknown.

    ``code`` is the redeemed authorization code, "" for another grant.
    """

    access_token: str
    id_token: str = ""
    refresh_token: str = ""
    expires_in: float = 0.0
    code: str = ""

    def __repr__(self) -> str:
        return f"Tokens(expires_in={self.expires_in})"


def discovery_request(issuer: str) -> Fetch:
    """Return the request for the provider's metadata (OIDC Discovery §4)."""
    base = issuer.removesuffix("/")
    url = f"{base}/.well-known/openid-configuration"
    return Fetch("GET", url, JSON_HEADERS, purpose="discovery")


def parse_metadata(response: Response, issuer: str | None) -> Metadata:
    """Parse the metadata; its issuer must be *issuer*, if given (Discovery §4.3).

    Raises `ProviderError`.
    """
    if response.status == 404:
        raise ProviderError(
            "discovery document not found: status 404",
            reason="discovery_invalid",
            hint="check oidc_issuer_url; Keycloak: 'https://HOST/realms/REALM'",
        )
    document = _json_object(response, "discovery document", "discovery")
    for name in (
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
    ):
        if not isinstance(document.get(name), str) or not document[name]:
            raise ProviderError(
                f"the discovery document has no {name}", reason="discovery_invalid"
            )
    if issuer is not None and document["issuer"] != issuer:
        raise ProviderError(
            f"expected issuer {issuer!r} in the discovery document, got "
            f"{document['issuer'][:200]!r}",
            reason="issuer",
            hint="set oidc_issuer_url to the exact issuer of the provider",
        )
    metadata = Metadata(
        issuer=document["issuer"],
        authorization_endpoint=document["authorization_endpoint"],
        token_endpoint=document["token_endpoint"],
        jwks_uri=document["jwks_uri"],
        userinfo_endpoint=_string(document, "userinfo_endpoint"),
        end_session_endpoint=_string(document, "end_session_endpoint"),
        revocation_endpoint=_string(document, "revocation_endpoint"),
        id_token_signing_alg_values_supported=_strings(
            document, "id_token_signing_alg_values_supported"
        ),
        code_challenge_methods_supported=_strings(
            document, "code_challenge_methods_supported"
        ),
        token_endpoint_auth_methods_supported=_strings(
            document, "token_endpoint_auth_methods_supported"
        ),
        authorization_response_iss_parameter_supported=document.get(
            "authorization_response_iss_parameter_supported"
        )
        is True,
    )
    _check_schemes(metadata)
    return metadata


def _check_schemes(metadata: Metadata) -> None:
    """Reject endpoints without https if the issuer has it (see also RFC 9700 §4.4)."""
    secure = metadata.issuer.startswith("https://")
    for url in (
        metadata.authorization_endpoint,
        metadata.token_endpoint,
        metadata.jwks_uri,
        metadata.userinfo_endpoint,
        metadata.end_session_endpoint,
        metadata.revocation_endpoint,
    ):
        allowed = ("https://",) if secure else ("https://", "http://")
        if url and not url.startswith(allowed):
            raise ProviderError(
                "the discovery document has an endpoint without https",
                reason="discovery_invalid",
                hint="all endpoints of an https issuer must have https URLs",
            )


def _string(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _strings(document: dict[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _json_object(
    response: Response, subject: str, reason: str, hint: str = ""
) -> dict[str, Any]:
    if response.status != 200:
        raise ProviderError(
            f"{subject}: got status {response.status}, expected 200",
            reason=f"{reason}_failed",
            hint=hint,
        )
    document = _parse_json(response.body)
    if document is None:
        raise ProviderError(
            f"{subject}: expected a JSON object", reason=f"{reason}_invalid"
        )
    return document


def _parse_json(body: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def with_query(url: str, params: list[tuple[str, str]]) -> str:
    """Return *url* with *params* form-encoded in its query (RFC 6749 §3.1)."""
    if not params:
        return url
    separator = "&" if urlsplit(url).query else "?"
    return f"{url}{separator}{urlencode(params)}"


def token_request(
    endpoint: str,
    params: list[tuple[str, str]],
    *,
    client_id: str,
    client_secret: bytes,
    in_body: bool,
) -> Fetch:
    """Return a token request with client authentication (RFC 6749 §2.3.1).

    The credentials are in the body or, form-encoded, in the Authorization field.
    """
    secret = client_secret.decode("utf-8", "surrogateescape")
    headers = FORM_HEADERS
    if in_body:
        params = [*params, ("client_id", client_id), ("client_secret", secret)]
    else:
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
        headers = (
            *FORM_HEADERS,
            (b"authorization", b"Basic " + base64.b64encode(pair)),
        )
    body = urlencode(params).encode()
    return Fetch("POST", endpoint, headers, body, purpose="token")


def assertion_request(
    endpoint: str, params: list[tuple[str, str]], assertion: str
) -> Fetch:
    """Return a token request with a signed client assertion (RFC 7523 §2.2)."""
    params = [
        *params,
        ("client_assertion", assertion),
        ("client_assertion_type", ASSERTION_TYPE),
    ]
    return Fetch(
        "POST", endpoint, FORM_HEADERS, urlencode(params).encode(), purpose="token"
    )


def parse_tokens(
    response: Response, now: float = 0.0, secrets: Iterable[str] = ()
) -> Tokens:
    """Parse a token response (RFC 6749 §5); raises `ProviderError`.

    The reason of the error is the provider's ``error`` code, if any; its text does not
    contain *secrets*. Two nonstandard forms are accepted: a form-encoded body, and
    ``expires_on`` in place of ``expires_in``. ``expires_on`` and *now* are in seconds
    since the epoch.
    """
    document = _parse_json(response.body)
    if document is None:
        document = _parse_form(response)
    code = (document or {}).get("error")
    if document and isinstance(code, str) and code:
        # Unlike RFC 6749 §5.2, some providers send the error with status 200.
        safe_code = safe_error_code(code)
        text = safe_description(document.get("error_description"), secrets)
        raise ProviderError(
            f"the token endpoint returned the error {error_text(safe_code, text)}",
            reason=safe_code,
            hint=TOKEN_HINTS.get(code, ""),
        )
    if not 200 <= response.status < 300:
        # 400 is the status of a rejected code; some providers send no error code.
        rejected = response.status == 400
        raise ProviderError(
            f"token endpoint: got status {response.status}, expected 2xx",
            reason="token_endpoint_rejected" if rejected else "token_endpoint_failed",
        )
    if document is None:
        raise ProviderError(
            "token endpoint: expected a JSON object",
            reason="token_endpoint_invalid",
        )
    access_token = document.get("access_token")
    if not isinstance(access_token, str) or not access_token:
        raise ProviderError(
            "token endpoint: the response has no access_token",
            reason="token_endpoint_invalid",
        )
    return Tokens(
        access_token,
        _string(document, "id_token"),
        _string(document, "refresh_token"),
        _seconds(document.get("expires_in"))
        or max(_seconds(document.get("expires_on"), 1e12) - now, 0.0),
    )


def _parse_form(response: Response) -> dict[str, Any] | None:
    """Return the fields of a form-encoded response; None for another type."""
    kind = first_header(response.headers, b"content-type") or b""
    if kind.partition(b";")[0].strip().lower() not in FORM_TYPES:
        return None
    try:
        pairs = parse_qsl(response.body.decode(), max_num_fields=100)
    except ValueError:
        return None
    return dict(pairs)


def _seconds(value: object, maximum: float = 10.0 * 365 * 86400) -> float:
    """Return *value* in seconds: a number, or a string of digits; 0 if it is neither."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(min(max(value, 0), maximum))  # also for integers beyond all floats


def userinfo_request(endpoint: str, access_token: str) -> Fetch:
    """Return the request for the user's claims (OIDC Core §5.3.1)."""
    bearer = b"Bearer " + header_text(access_token)
    headers = (*JSON_HEADERS, (b"authorization", bearer))
    return Fetch("GET", endpoint, headers, purpose="userinfo")


USERINFO_HINT = (
    "if the ID token has all claims that you need, set skip_claims_from_profile_url; "
    "Keycloak's lightweight access tokens do not work there: for the mappers of these "
    "claims, Add to ID token: On"
)


def signed_userinfo(response: Response) -> str:
    """Return the JWT of a successful signed response, "" for another type or status."""
    kind = first_header(response.headers, b"content-type") or b""
    is_jwt = kind.partition(b";")[0].strip().lower() == b"application/jwt"
    if not is_jwt or response.status != 200:
        return ""
    return response.body.decode("ascii", "replace").strip()


def parse_userinfo(response: Response, access_token: str) -> dict[str, Any]:
    """Return the claims of a JSON response; raises `ProviderError`.

    Its text has the reason that the provider names for rejecting *access_token*.
    """
    if response.status != 200 and (error := bearer_error(response, access_token)):
        raise ProviderError(
            f"userinfo: got status {response.status}, expected 200 (error {error})",
            reason="userinfo_failed",
            hint=USERINFO_HINT,
        )
    return _json_object(response, "userinfo", "userinfo", USERINFO_HINT)


def check_userinfo_subject(claims: dict[str, Any], subject: str) -> None:
    """Raise `ProviderError` unless ``sub`` is *subject* (OIDC Core §5.3.2)."""
    if claims.get("sub") != subject:
        raise ProviderError(
            "the sub of userinfo differs from the sub of the ID token",
            reason="userinfo_subject",
        )
