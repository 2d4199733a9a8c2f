"""The gate: which requests need no login, whoever sends them.

A rule is tried on the path as a program behind us would decode it. Programs differ in
what they make of dots, doubled or encoded separators and the like, so a path that can be
read in two ways passes by no rule; it needs a login like any other.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from ..go_regex import compile_pattern
from ..messages import Request, Respond
from ..pages.challenge import plain_response
from ..request.original import AddressSet, OriginalRequest, TrustedProxies
from ..settings.auth_bypass import AuthBypassSettings, skip_rules

# Separators and what else ends or changes a path for some program, plain or encoded.
_AMBIGUOUS = re.compile(rb"[\\;#\x00-\x20\x7f]|//|%(?:2[fF]|5[cC]|(?![0-9A-Fa-f]{2}))")
_DOTS = re.compile(r"(?:^|/)[. ]+(?:/|$)")
_DECODED = re.compile(r"[\\;#?\x00-\x1f\x7f-\x9f]|//")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


def unambiguous_path(uri: bytes) -> str | None:
    """The decoded path of *uri* (origin-form), None when it can be read in two ways."""
    path = uri.partition(b"?")[0]
    if not path.startswith(b"/") or _AMBIGUOUS.search(path):
        return None
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return None
    if _ESCAPE.search(decoded):  # encoded twice: some decode once more
        return None
    readings = [decoded]
    if not decoded.isascii():  # full-width slashes and dots become plain ones somewhere
        readings.append(unicodedata.normalize("NFKC", decoded))
    if any(_DECODED.search(one) or _DOTS.search(one) for one in readings):
        return None
    return decoded


class AuthBypass:
    """Judges requests by the rules of *settings*, which are valid."""

    def __init__(self, settings: AuthBypassSettings, trust: TrustedProxies) -> None:
        self._trust = trust
        self._preflight = settings.skip_auth_preflight
        self._rules = skip_rules(settings)
        self._addresses = AddressSet(settings.trusted_ips)
        self._any_address = bool(settings.trusted_ips)
        self._api = tuple(map(compile_pattern, settings.api_routes))

    def applies(self, request: Request, original: OriginalRequest) -> bool:
        """Whether *request*, which stands for *original*, passes without a login."""
        if self._preflight and original.method == b"OPTIONS":
            return True
        if (
            self._any_address
            and self._trust.client_for_rules(request) in self._addresses
        ):
            return True
        if not self._rules or self._trust.is_contradicted(request, original):
            return False
        return self._passes(original.method, original.uri)

    def applies_as_forwarded(self, request: Request, original: OriginalRequest) -> bool:
        """The same about *request* itself, which we pass on as it is.

        What a gateway says of another URI is not what the application will get.
        """
        if (request.method, request.target) == (original.method, original.uri):
            return True
        own = OriginalRequest(
            request.method,
            original.scheme,
            original.host,
            request.target,
            original.client,
        )
        return self.applies(request, own)

    def _passes(self, method: bytes, uri: bytes) -> bool:
        path = unambiguous_path(uri)
        return path is not None and any(
            rule.matches(method, path) for rule in self._rules
        )

    def is_api(self, original: OriginalRequest) -> bool:
        """Whether *original* is for a script: it gets 401 in the place of a page."""
        if not self._api:
            return False
        uri = original.uri.decode("utf-8", "replace")
        return any(pattern.search(uri) for pattern in self._api)


class HttpsRedirect:
    """Sends plain requests to https (``force_https``)."""

    def __init__(self, settings: AuthBypassSettings) -> None:
        self._port = "" if settings.https_port == 443 else f":{settings.https_port}"

    def redirect(self, original: OriginalRequest) -> Respond | None:
        """308 for a request that did not come over https, else None."""
        if original.scheme == "https":
            return None
        host, separator, port = original.host.rpartition(":")
        if not separator or port.endswith("]"):  # no port, be it behind an address
            host = original.host
        else:
            host += self._port
        location = f"https://{host}".encode() + original.uri
        return plain_response(308, b"", ((b"location", location),))
