"""Client of a provider's token endpoint (RFC 6749 §3.2) and of ``validate_url``."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ..effects import Fetch, Flow
from ..encoding import header_text
from ..errors import ProviderError
from ..messages import Headers
from ..oidc.protocol import (
    Metadata,
    Tokens,
    parse_tokens,
    token_request,
    with_query,
)
from ..oidc.provider_errors import redirect_uri_hint
from ..session import Session
from ..settings.provider_types import PROVIDER_TYPES
from ..settings.root import ProviderSettings
from .api import status_error

SECRET_NAMES = frozenset({"code", "code_verifier", "refresh_token"})


class TokenClient:
    """Sends token and validation requests; ``metadata`` is None until it is discovered."""

    metadata: Metadata | None

    def __init__(self, settings: ProviderSettings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.kind = PROVIDER_TYPES[settings.type]
        self._clock = clock
        self._secret_in_body = self.kind.in_body

    def _require_metadata(self) -> Metadata:
        if self.metadata is None:
            raise ProviderError("metadata is not loaded yet", reason="not_ready")
        return self.metadata

    def redeem(self, code: str, redirect_uri: str, code_verifier: str) -> Flow[Tokens]:
        """Redeem an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
        params = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
        ]
        if code_verifier:
            params.append(("code_verifier", code_verifier))
        try:
            tokens = yield from self._request_tokens(params)
        except ProviderError as error:
            if hint := redirect_uri_hint(error.reason, str(error), redirect_uri):
                error.hint = hint
            raise
        return replace(tokens, code=code)

    def _request_tokens(self, params: list[tuple[str, str]]) -> Flow[Tokens]:
        """Send a token request with the client authentication that worked last.

        If the provider rejects the client, retry once with the other method: metadata
        may be missing or wrong about it, and a rejected request does not use the code.
        """
        params = [*params, *self.token_parameters()]
        request = yield from self.client_request(params)
        response = yield from request
        secrets = self._secrets_in(params)
        try:
            return parse_tokens(response, self._clock(), secrets)
        except ProviderError as error:
            if error.reason != "invalid_client":
                raise
            first_error = error
        request = yield from self._token_request(
            params, in_body=not self._secret_in_body
        )
        response = yield from request
        try:
            tokens = parse_tokens(response, self._clock(), secrets)
        except ProviderError:
            try:
                raise first_error from None
            finally:
                del first_error  # it refers to this frame by its traceback
        self._secret_in_body = not self._secret_in_body
        return tokens

    def _secrets_in(self, params: list[tuple[str, str]]) -> list[str]:
        """Return the secrets of a token request that its response may repeat."""
        client_secret = self.settings.client_secret.value.decode("utf-8", "replace")
        return [client_secret, *(text for name, text in params if name in SECRET_NAMES)]

    def token_parameters(self) -> list[tuple[str, str]]:
        """Return parameters that this provider type adds to token requests."""
        return []

    def client_request(self, params: list[tuple[str, str]]) -> Flow[Fetch]:
        """Return a POST with the client authentication that worked last."""
        return (yield from self._token_request(params, in_body=self._secret_in_body))

    def _token_request(
        self, params: list[tuple[str, str]], *, in_body: bool
    ) -> Flow[Fetch]:
        yield from ()  # overrides may need effects
        return token_request(
            self._require_metadata().token_endpoint,
            params,
            client_id=self.settings.client_id,
            client_secret=self.settings.client_secret.value,
            in_body=in_body,
        )

    # -- validation

    def _validate_access_token(self, session: Session) -> Flow[None]:
        """Check the access token with ``validate_url``, if there is one.

        Raises `TokenError` if the provider rejects the token, and `ProviderError` if
        the provider fails or throttles the request.
        """
        url = self.settings.validate_url or self.kind.validate_url
        if not url:
            return
        headers = self.api_headers(session)
        if self.kind.token_in_query:
            headers = self.kind.api_headers
            url = with_query(url, [("access_token", session.access_token)])
        response = yield from Fetch("GET", url, headers, purpose="validate")
        if response.status != 200:
            raise status_error(response, "validate_url", "validate")

    def api_headers(self, session: Session) -> Headers:
        """Return the header fields of an API request with the access token."""
        token = header_text(session.access_token)
        scheme = self.kind.token_scheme
        return (*self.kind.api_headers, (b"authorization", scheme + b" " + token))
