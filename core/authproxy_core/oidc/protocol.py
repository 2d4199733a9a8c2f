"""What is said to an identity provider, and what its answers mean.

Pure functions: settings and values in, a `Fetch` or a URL out; a `Response` in, a typed
value out or a `ProviderError`. Nothing that the provider sent is put into an error's
text unless it is a short code.
"""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import msgspec
from msgspec import Struct

from ..effects import Fetch
from ..encoding import header_text
from ..errors import ProviderError
from ..messages import Headers, Response, first_header

ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM_HEADERS: Headers = (
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"accept", b"application/json"),
)
FORM_TYPES = (b"application/x-www-form-urlencoded", b"text/plain")
JSON_HEADERS: Headers = ((b"accept", b"application/json"),)


class Metadata(Struct, frozen=True, kw_only=True):
    """The provider's endpoints and abilities (OIDC Discovery §3)."""

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
    """A token endpoint's answer (RFC 6749 §5.1); ``expires_in`` in seconds, 0: unknown."""

    access_token: str
    id_token: str = ""
    refresh_token: str = ""
    expires_in: float = 0.0

    def __repr__(self) -> str:
        return f"Tokens(expires_in={self.expires_in})"


def discovery_request(issuer: str) -> Fetch:
    """Ask for the provider's metadata (OIDC Discovery §4)."""
    base = issuer.removesuffix("/")
    url = f"{base}/.well-known/openid-configuration"
    return Fetch("GET", url, JSON_HEADERS, purpose="discovery")


def parse_metadata(response: Response, issuer: str | None) -> Metadata:
    """Read the metadata; with an *issuer*, it must be exactly that (Discovery §4.3)."""
    if response.status == 404:
        raise ProviderError(
            "there is no discovery document: status 404",
            reason="discovery_invalid",
            hint="check oidc_issuer_url, for Keycloak 'https://HOST/realms/REALM'",
        )
    document = _json_object(response, "the discovery document", "discovery")
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
            hint="set oidc_issuer_url to exactly the issuer that the provider uses",
        )
    metadata = Metadata(
        issuer=document["issuer"],
        authorization_endpoint=document["authorization_endpoint"],
        token_endpoint=document["token_endpoint"],
        jwks_uri=document["jwks_uri"],
        userinfo_endpoint=_text(document, "userinfo_endpoint"),
        end_session_endpoint=_text(document, "end_session_endpoint"),
        revocation_endpoint=_text(document, "revocation_endpoint"),
        id_token_signing_alg_values_supported=_names(
            document, "id_token_signing_alg_values_supported"
        ),
        code_challenge_methods_supported=_names(
            document, "code_challenge_methods_supported"
        ),
        token_endpoint_auth_methods_supported=_names(
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
    """Refuse endpoints that step down from https (RFC 9700 §4.4 and plain sense)."""
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
                "the discovery document names an endpoint without https",
                reason="discovery_invalid",
                hint="all endpoints of an https issuer must be https URLs",
            )


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _names(document: dict[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _json_object(response: Response, what: str, reason: str) -> dict[str, Any]:
    if response.status != 200:
        raise ProviderError(
            f"{what} answered with status {response.status}, expected 200",
            reason=f"{reason}_failed",
        )
    document = _decoded(response.body)
    if document is None:
        raise ProviderError(f"{what} is not a JSON object", reason=f"{reason}_invalid")
    return document


def _decoded(body: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def with_query(url: str, params: list[tuple[str, str]]) -> str:
    """*url* with *params* added to its query, form-encoded (RFC 6749 §3.1)."""
    if not params:
        return url
    joint = "&" if urlsplit(url).query else "?"
    return f"{url}{joint}{urlencode(params)}"


def token_request(
    endpoint: str,
    params: list[tuple[str, str]],
    *,
    client_id: str,
    client_secret: bytes,
    in_body: bool,
) -> Fetch:
    """A request to the token endpoint with client authentication (RFC 6749 §2.3.1).

    The credentials go into the Authorization field, form-encoded, or into the body.
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
    """The same with a signed assertion in place of a secret (RFC 7523 §2.2)."""
    params = [
        *params,
        ("client_assertion", assertion),
        ("client_assertion_type", ASSERTION_TYPE),
    ]
    return Fetch(
        "POST", endpoint, FORM_HEADERS, urlencode(params).encode(), purpose="token"
    )


def parse_tokens(response: Response, now: float = 0.0) -> Tokens:
    """Read a token endpoint's answer (RFC 6749 §5); raises `ProviderError`.

    The error's reason is the ``error`` code that the provider gave, when it is one.
    Answers older than the standard are understood too: form-encoded ones, and
    ``expires_on``, which is a moment and needs *now*.
    """
    document = _decoded(response.body)
    if document is None:
        document = _decoded_form(response)
    code = (document or {}).get("error")
    if isinstance(code, str) and code:
        # RFC 6749 §5.2: some providers send the error with status 200.
        raise ProviderError(
            f"the token endpoint refused the request with {safe_error_code(code)!r}",
            reason=safe_error_code(code),
            hint=TOKEN_HINTS.get(code, ""),
        )
    if not 200 <= response.status < 300:
        raise ProviderError(
            f"the token endpoint answered with status {response.status}",
            reason="token_endpoint_failed",
        )
    if document is None:
        raise ProviderError(
            "the token endpoint's answer is not a JSON object",
            reason="token_endpoint_invalid",
        )
    access_token = document.get("access_token")
    if not isinstance(access_token, str) or not access_token:
        raise ProviderError(
            "the token endpoint's answer has no access_token",
            reason="token_endpoint_invalid",
        )
    return Tokens(
        access_token,
        _text(document, "id_token"),
        _text(document, "refresh_token"),
        _seconds(document.get("expires_in"))
        or max(_seconds(document.get("expires_on"), 1e12) - now, 0.0),
    )


def _decoded_form(response: Response) -> dict[str, Any] | None:
    """The fields of a form-encoded answer, None when it is of another type."""
    kind = first_header(response.headers, b"content-type") or b""
    if kind.partition(b";")[0].strip().lower() not in FORM_TYPES:
        return None
    try:
        pairs = parse_qsl(response.body.decode(), max_num_fields=100)
    except ValueError:
        return None
    return dict(pairs)


TOKEN_HINTS = {
    "invalid_client": "check client_id and client_secret against the provider's "
    "client (in Keycloak: Clients -> the client -> Credentials -> Client Secret)",
    "unauthorized_client": "check client_id and client_secret, and that the client may "
    "use the authorization code flow (in Keycloak: Client authentication On, Standard "
    "flow ticked; the secret is in Clients -> the client -> Credentials)",
    "invalid_grant": "the code or refresh token was used before, has expired, or the "
    "redirect_uri differs between the two requests",
    "redirect_uri_mismatch": "register the callback address at the provider",
}


def _seconds(value: object, largest: float = 10.0 * 365 * 86400) -> float:
    """expires_in as a number, or as a text of digits as some providers send it."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return min(max(float(value), 0.0), largest)


def safe_error_code(text: str) -> str:
    """An OAuth error code when it looks like one (RFC 6749 §4.1.2.1), else a stand-in."""
    return text if ERROR_CODE.fullmatch(text) else "an unreadable error code"


def userinfo_request(endpoint: str, access_token: str) -> Fetch:
    """Ask for the user's claims (OIDC Core §5.3.1)."""
    bearer = b"Bearer " + header_text(access_token)
    headers = (*JSON_HEADERS, (b"authorization", bearer))
    return Fetch("GET", endpoint, headers, purpose="userinfo")


def parse_userinfo(response: Response, subject: str) -> dict[str, Any]:
    """The claims of userinfo; their ``sub`` must be *subject* (OIDC Core §5.3.2)."""
    kind = first_header(response.headers, b"content-type") or b""
    if kind.split(b";")[0].strip().lower() == b"application/jwt":
        raise ProviderError(
            "userinfo is a signed JWT, expected JSON",
            reason="userinfo_invalid",
            hint="have the provider answer userinfo as plain JSON, or set "
            "skip_claims_from_profile_url",
        )
    claims = _json_object(response, "userinfo", "userinfo")
    if claims.get("sub") != subject:
        raise ProviderError(
            "the sub of userinfo is not the sub of the ID token",
            reason="userinfo_subject",
        )
    return claims
