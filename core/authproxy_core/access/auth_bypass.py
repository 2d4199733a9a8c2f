"""Auth bypass: requests that need no login (``skip_auth_*``, ``trusted_ips``).

Rules match the decoded path, as the application will see it. Servers decode dots and
doubled or encoded separators differently, so an ambiguous path matches no rule and needs
a login.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from ..go_regex import compile_pattern
from ..messages import Request, Respond, first_header
from ..pages.challenge import redirect_response
from ..request.original import AddressSet, OriginalRequest, TrustedProxies
from ..settings.auth_bypass import AuthBypassSettings, skip_rules
from .candidates import PatternIndex

# Separators and characters that end or change the path in some servers, raw or encoded.
_AMBIGUOUS = re.compile(rb"[\\;#\x00-\x20\x7f]|//|%(?:2[fF]|5[cC]|(?![0-9A-Fa-f]{2}))")
_PADDED = re.compile(r"/ |[. ](?:/|$)")  # spaces and dots that some servers remove
_DECODED = re.compile(r"[\\;#?\x00-\x1f\x7f-\x9f]|//")
# Characters that programs ignore in comparisons (Default_Ignorable_Code_Point of Unicode),
# and its line and paragraph separators, for a character class.
IGNORED_CHARACTERS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IGNORED = re.compile(f"[{IGNORED_CHARACTERS}]")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


def unambiguous_path(uri: bytes) -> str | None:
    """Return the decoded path of *uri* (origin-form), None if it is ambiguous."""
    path = uri.partition(b"?")[0]
    if not path.startswith(b"/") or _AMBIGUOUS.search(path):
        return None
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return None
    if _ESCAPE.search(decoded):  # encoded twice: some servers decode again
        return None
    if _DECODED.search(decoded) or _PADDED.search(decoded):
        return None
    # Some servers map characters to others, such as a full-width slash to a slash.
    if not decoded.isascii() and (
        _IGNORED.search(decoded) or unicodedata.normalize("NFKC", decoded) != decoded
    ):
        return None
    return decoded


class AuthBypass:
    """The bypass options of valid *settings*, compiled."""

    def __init__(
        self, settings: AuthBypassSettings, trust: TrustedProxies, prefix: str
    ) -> None:
        self._trust = trust
        self._auth_endpoints = auth_endpoints(prefix)
        self._preflight = settings.skip_auth_preflight
        self._rules = skip_rules(settings)
        self._index = PatternIndex(
            # A negated rule is for the paths that its pattern does not match.
            "" if rule.negated else rule.text
            for rule in self._rules
        )
        self._addresses = AddressSet(settings.trusted_ips)
        self._any_address = bool(settings.trusted_ips)
        self._api = tuple(map(compile_pattern, settings.api_routes))
        self._api_index = PatternIndex(settings.api_routes)

    def applies(self, request: Request, original: OriginalRequest) -> bool:
        """Return whether *request*, sent for *original*, needs no login.

        If *original* has the URI of an auth endpoint, the gateway did not send the path
        that the client asks for, and no rule matches: a negated one would match any.
        """
        if self._preflight and _is_preflight(request, original):
            return True
        if (
            self._any_address
            and self._trust.client_for_rules(request) in self._addresses
        ):
            return True
        if not self._rules or self._trust.is_contradicted(request, original):
            return False
        return self._matches_rule(original.method, original.uri)

    def applies_as_forwarded(self, request: Request, original: OriginalRequest) -> bool:
        """Return whether *request* needs no login by its own method and target.

        The upstream receives these, not the URI in the gateway's headers.
        """
        if (request.method, request.target) == (original.method, original.uri):
            return True
        forwarded = OriginalRequest(
            request.method,
            original.scheme,
            original.host,
            request.target,
            original.client,
        )
        return self.applies(request, forwarded)

    def _matches_rule(self, method: bytes, uri: bytes) -> bool:
        path = unambiguous_path(uri)
        if path is None or path in self._auth_endpoints:
            return False
        return any(
            self._rules[number].matches(method, path)
            for number in self._index.find(path)
        )

    def is_api(self, original: OriginalRequest) -> bool:
        """Return whether *original* matches ``api_routes``: it gets 401, never a page."""
        if not self._api:
            return False
        uri = original.uri.decode("utf-8", "replace")
        return any(
            self._api[number].search(uri) for number in self._api_index.find(uri)
        )


def auth_endpoints(prefix: str) -> tuple[str, ...]:
    """Return the paths at which gateways send auth checks."""
    return f"{prefix}/auth", f"{prefix}/forward_auth"


def _is_preflight(request: Request, original: OriginalRequest) -> bool:
    """Return whether *request* is a CORS preflight (Fetch §4.8), not any OPTIONS."""
    return (
        original.method == b"OPTIONS"
        and first_header(request.headers, b"origin") is not None
        and first_header(request.headers, b"access-control-request-method") is not None
    )


class HttpsRedirect:
    """Redirects http requests to https (``force_https``)."""

    def __init__(self, settings: AuthBypassSettings) -> None:
        self._port = "" if settings.https_port == 443 else f":{settings.https_port}"

    def redirect(self, original: OriginalRequest) -> Respond | None:
        """Return 308 for a request that was not sent over https, else None."""
        if original.scheme == "https":
            return None
        host, separator, port = original.host.rpartition(":")
        if not separator or port.endswith("]"):  # no port, or an IPv6 address
            host = original.host
        else:
            host += self._port
        location = f"https://{host}".encode() + original.uri
        return redirect_response(308, location)
