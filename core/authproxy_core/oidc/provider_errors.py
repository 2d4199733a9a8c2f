"""Error responses of a provider (RFC 6749 §4.1.2.1, §5.2; RFC 6750 §3).

Codes, descriptions and hints are for the log, not for pages: the text is the
provider's, or that of a client that forged a callback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..messages import Response, first_header

MAX_DESCRIPTION_LENGTH = 300  # characters
MIN_SECRET_LENGTH = 6  # characters; replacing shorter ones makes texts unreadable
MASK = "..."
_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Longer than a UUID; tokens are, names and hosts are not.
_TOKEN = re.compile(r"[A-Za-z0-9_~+=-]{40,}")
_CHALLENGE_PARAMETER = re.compile(
    r'\b(error|error_description)\s*=\s*"((?:[^"\\]|\\.){0,1000})"', re.IGNORECASE
)

CREDENTIALS_HINT = (
    "compare client_id and client_secret with the client at the provider (Keycloak: "
    "Clients -> the client -> Credentials -> Client Secret)"
)
CLIENT_HINT = (
    "check client_id and client_secret, and that the client may use the authorization "
    "code flow (Keycloak: Client authentication: On; Standard flow: checked; the secret "
    "is in Clients -> the client -> Credentials)"
)
TOKEN_HINTS: Mapping[str, str] = {
    "invalid_client": CREDENTIALS_HINT,
    "unauthorized_client": CLIENT_HINT,
    "invalid_grant": "the code or refresh token has expired or was already used, or the "
    "redirect_uri of the two requests differs",
}


def safe_error_code(text: str) -> str:
    """Return *text* if it looks like an OAuth error code, else a fixed text."""
    return text if _ERROR_CODE.fullmatch(text) else "invalid error code"


def safe_description(value: object, secrets: Iterable[str] = ()) -> str:
    """Return the description *value* as one bounded line; "" if it is no text.

    *secrets* and other long tokens are masked: a provider may repeat what it received.
    """
    if not isinstance(value, str):
        return ""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_LENGTH:
            value = value.replace(secret, MASK)
    line = " ".join(value.split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    line = _TOKEN.sub(MASK, line)
    if len(line) > MAX_DESCRIPTION_LENGTH:
        line = line[:MAX_DESCRIPTION_LENGTH] + MASK
    return line


def error_text(code: str, description: str) -> str:
    """Return a safe *code* and a safe *description* as one text."""
    return f"{code!r}: {description!r}" if description else repr(code)


def bearer_error(response: Response, token: str) -> str:
    """Return the error in a rejected request's challenge (RFC 6750 §3), "" without one.

    *token* is the access token of the request.
    """
    field = first_header(response.headers, b"www-authenticate") or b""
    found = {
        name.lower(): value
        for name, value in _CHALLENGE_PARAMETER.findall(field.decode("latin-1"))
    }
    if "error" not in found:
        return ""
    description = safe_description(found.get("error_description"), (token,))
    return error_text(safe_error_code(found["error"]), description)


def redirect_uri_hint(code: str, description: str, redirect_uri: str) -> str:
    """Return a hint if the error is about *redirect_uri*, which was sent, else ""."""
    is_mismatch = code == "redirect_uri_mismatch" or "redirect" in description.lower()
    if not is_mismatch:
        return ""
    return f"register the callback URL that was sent: {redirect_uri}"


def authorization_hint(
    code: str, description: str, *, redirect_uri: str, scope: str
) -> str:
    """Return what the operator can do about an error in the callback, or "".

    *redirect_uri* and *scope* are those of the authorization request.
    """
    if code == "invalid_scope":
        return (
            f"the provider does not offer one of the scopes {scope!r}; Keycloak, for "
            "groups: Client scopes -> Create client scope: Name: groups; Mappers -> "
            "Configure a new mapper -> Group Membership: Token Claim Name: groups; Full "
            "group path: Off; then Clients -> the client -> Client scopes -> Add client "
            "scope"
        )
    if code in ("unauthorized_client", "invalid_client"):
        return CLIENT_HINT
    return redirect_uri_hint(code, description, redirect_uri)
