"""Google Workspace directory (Admin SDK): groups and organization ID of a user.

A service account with domain-wide delegation impersonates an administrator: it
exchanges a signed assertion for an access token (RFC 7523). The assertion is signed
with the account's key or, for credentials without a key, by Google on behalf of
``target_principal``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
import orjson

from ...effects import Fetch, Flow
from ...encoding import header_text
from ...errors import ProviderError, SettingsError
from ...messages import Headers, Response
from ...oidc.protocol import FORM_HEADERS, parse_tokens, with_query
from ...settings.providers import GoogleSettings
from ..api import MAX_PAGES, objects_in, quote_segment, string_at, too_many_pages_error
from .assertion import SigningKey, load_signing_key

SCOPE_PREFIX = "https://www.googleapis.com/auth"
DIRECTORY_URL = "https://admin.googleapis.com/admin/directory/v1"
TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
METADATA_URL = (
    "http://metadata.google.internal/computeMetadata/v1/instance/"
    "service-accounts/default"
)
CREDENTIALS_URL = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Tried in order until one is granted. The last two, which allow writes, are not needed.
GROUP_SCOPES = (
    "admin.directory.group.member.readonly",
    "admin.directory.group.readonly",
    "admin.directory.group.member",
    "admin.directory.group",
)
TOKEN_LIFETIME = 3600  # seconds
EXPIRY_MARGIN = 60.0  # seconds before expiry at which a token is replaced


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials: a service account with its key, or a user's refresh token."""

    email: str = ""
    key: SigningKey | None = None
    token_uri: str = TOKEN_URI
    refresh: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Account(email={self.email!r})"


class Directory:
    """Client of one Workspace directory; caches its access token.

    Raises `SettingsError` for invalid credentials.
    """

    def __init__(self, settings: GoogleSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._account = _load_account(settings)
        self._token = ""
        self._expires_at = 0.0

    @property
    def is_reached(self) -> bool:
        """Return whether Google has granted an access token."""
        return bool(self._token)

    # -- queries

    def read_groups(self, email: str) -> Flow[tuple[str, ...]]:
        """Return the configured groups that *email* is in, or all its groups.

        Raises `ProviderError` or `FetchError`.
        """
        if not self._settings.groups:
            return (yield from self._all_groups(email))
        found = []
        for group in self._settings.groups:
            if (yield from self._has_member(group, email)):
                found.append(group)
        return tuple(found)

    def _all_groups(self, email: str) -> Flow[tuple[str, ...]]:
        found: list[str] = []
        query = [("userKey", email), ("maxResults", "200")]
        page = ""
        for _ in range(MAX_PAGES):
            params = [*query, ("pageToken", page)] if page else query
            url = with_query(f"{DIRECTORY_URL}/groups", params)
            document = yield from self._fetch(url, "the list of groups")
            groups = objects_in(document.get("groups"))
            found += [string_at(group, "email") for group in groups]
            page = string_at(document, "nextPageToken")
            if not page:
                return tuple(found)
        raise too_many_pages_error("the list of groups")

    def _has_member(self, group: str, email: str) -> Flow[bool]:
        """Return whether *email* is in *group*, directly or through other groups.

        Google returns 400 for users outside the domain; for them only direct
        membership is checked.
        """
        base = f"{DIRECTORY_URL}/groups/{quote_segment(group)}"
        headers = yield from self._headers()
        url = f"{base}/hasMember/{quote_segment(email)}"
        response = yield from Fetch("GET", url, headers, purpose="groups")
        if response.status == 404:
            return False
        if response.status != 400:
            document = _parse(response, "hasMember")
            return document.get("isMember") is True
        url = f"{base}/members/{quote_segment(email)}"
        response = yield from Fetch("GET", url, headers, purpose="groups")
        if response.status in (400, 404):
            return False
        return _parse(response, "the member").get("status") == "ACTIVE"

    def organization_id(self, email: str) -> Flow[str]:
        """Return the external ID of type "organization".

        Raises `ProviderError` if the user has none.
        """
        url = f"{DIRECTORY_URL}/users/{quote_segment(email)}"
        document = yield from self._fetch(url, "the user")
        for entry in objects_in(document.get("externalIds")):
            if entry.get("type") == "organization" and string_at(entry, "value"):
                return string_at(entry, "value")
        raise ProviderError(
            "the user has no organization ID in the directory",
            reason="profile_invalid",
            hint="set it, or set google_use_organization_id = false",
        )

    def _fetch(self, url: str, what: str) -> Flow[dict[str, Any]]:
        headers = yield from self._headers()
        response = yield from Fetch("GET", url, headers, purpose="groups")
        return _parse(response, what)

    def _headers(self) -> Flow[Headers]:
        return _bearer((yield from self.access_token()))

    # -- access token

    def access_token(self) -> Flow[str]:
        """Return an access token; raises `ProviderError` or `FetchError`."""
        if self._clock() < self._expires_at:
            return self._token
        rejection = ""
        for scope in self._scopes():
            assertion = yield from self._assertion(scope)
            params = [("grant_type", GRANT), ("assertion", assertion)]
            try:
                token, lifetime = yield from _request_token(
                    self._account.token_uri, params
                )
            except ProviderError as error:
                rejection = str(error)
                continue
            self._token = token
            self._expires_at = self._clock() + lifetime - EXPIRY_MARGIN
            return token
        raise ProviderError(
            f"Google grants no token for the directory: {rejection}",
            reason="directory_refused",
            hint="delegate one of these scopes to the service account in the admin "
            f"console (domain-wide delegation): {', '.join(GROUP_SCOPES)}",
        )

    def _scopes(self) -> list[str]:
        """Return the ``scope`` values to try, for groups and if needed for users."""
        if not self._settings.use_organization_id:
            return [f"{SCOPE_PREFIX}/{scope}" for scope in GROUP_SCOPES]
        user = {
            "cloud": "cloud-platform",
            "user": "admin.directory.user",
        }.get(self._settings.admin_api_user_scope, "admin.directory.user.readonly")
        return [
            f"{SCOPE_PREFIX}/{scope} {SCOPE_PREFIX}/{user}" for scope in GROUP_SCOPES
        ]

    def _assertion(self, scope: str) -> Flow[str]:
        """Return a signed assertion that impersonates the administrator (RFC 7523 §3)."""
        now = int(self._clock())
        claims = {
            "iss": self._account.email or self._settings.target_principal,
            "sub": self._settings.admin_email,
            "scope": scope,
            "aud": self._account.token_uri,
            "iat": now,
            "exp": now + TOKEN_LIFETIME,
        }
        if self._account.key is not None:
            return self._account.key.sign(claims)
        return (yield from self._sign_with_google(claims))

    def _sign_with_google(self, claims: dict[str, Any]) -> Flow[str]:
        headers = _bearer((yield from self._credentials_token()))
        if not claims["iss"]:
            url = f"{METADATA_URL}/email"
            response = yield from Fetch(
                "GET", url, METADATA_HEADERS, purpose="directory"
            )
            _check_status(response, "the metadata server")
            claims = {**claims, "iss": response.body.decode("ascii", "replace")}
        url = f"{CREDENTIALS_URL}/{quote_segment(claims['iss'])}:signJwt"
        body = orjson.dumps({"payload": orjson.dumps(claims).decode()})
        headers = (*headers, (b"content-type", b"application/json"))
        response = yield from Fetch("POST", url, headers, body, purpose="directory")
        signed = string_at(_parse(response, "signJwt"), "signedJwt")
        if not signed:
            raise ProviderError(
                "signJwt: the response has no JWT", reason="directory_invalid"
            )
        return signed

    def _credentials_token(self) -> Flow[str]:
        """Return a token of the credentials themselves, for the signJwt request."""
        if self._account.refresh:
            params = [("grant_type", "refresh_token"), *self._account.refresh]
            token, _ = yield from _request_token(self._account.token_uri, params)
            return token
        url = f"{METADATA_URL}/token"
        response = yield from Fetch("GET", url, METADATA_HEADERS, purpose="directory")
        return string_at(_parse(response, "the metadata server"), "access_token")


METADATA_HEADERS: Headers = ((b"metadata-flavor", b"Google"),)


def _bearer(token: str) -> Headers:
    return (
        (b"accept", b"application/json"),
        (b"authorization", b"Bearer " + header_text(token)),
    )


def _request_token(url: str, params: list[tuple[str, str]]) -> Flow[tuple[str, float]]:
    """Request an access token; return it and its lifetime in seconds."""
    body = urlencode(params).encode()
    response = yield from Fetch("POST", url, FORM_HEADERS, body, purpose="directory")
    tokens = parse_tokens(response)
    return tokens.access_token, tokens.expires_in or TOKEN_LIFETIME


def _check_status(response: Response, what: str) -> None:
    """Raise `ProviderError` unless the status is 200.

    Never `TokenError`: the token is the service account's, not the user's, so its
    rejection ends no session.
    """
    if response.status != 200:
        raise ProviderError(
            f"{what}: got status {response.status}, expected 200",
            reason="directory_failed",
            hint="check the permissions of the service account and google_admin_email",
        )


def _parse(response: Response, what: str) -> dict[str, Any]:
    """Return the JSON object of *response*; raises `ProviderError`."""
    _check_status(response, what)
    try:
        document = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ProviderError(
            f"{what}: the response is not a JSON object", reason="directory_invalid"
        )
    return document


def _load_account(settings: GoogleSettings) -> Account:
    """Return the account of the configured credentials; raises `SettingsError`."""
    if settings.metadata_server:
        return Account(email=settings.target_principal)
    try:
        document = msgspec.json.decode(settings.credentials.value)
        return _parse_account(document, settings.target_principal)
    except (ValueError, RecursionError) as error:
        is_malformed = isinstance(error, msgspec.DecodeError)
        reason = "expected JSON" if is_malformed else error
        raise SettingsError((f"google_service_account_json: {reason}",)) from None


def _parse_account(document: Any, principal: str) -> Account:
    """Return the account in *document*; raises `ValueError` for unsupported types."""
    match string_at(document, "type"):
        case "service_account":
            pem = string_at(document, "private_key").encode()
            email = string_at(document, "client_email")
            if not email:
                raise ValueError("client_email is missing")
            return Account(
                email=email,
                key=load_signing_key(pem, string_at(document, "private_key_id")),
                token_uri=string_at(document, "token_uri") or TOKEN_URI,
            )
        case "authorized_user" if principal:
            names = ("client_id", "client_secret", "refresh_token")
            refresh = tuple((name, string_at(document, name)) for name in names)
            return Account(email=principal, refresh=refresh)
        case "authorized_user":
            raise ValueError("type authorized_user requires google_target_principal")
    raise ValueError("expected credentials of type service_account or authorized_user")
