"""The exceptions of the core.

Each class has a stable ``code`` for pages, logs and metrics, and a ``status_hint``, the
HTTP status for an exception that no flow handles.
"""

from __future__ import annotations

from typing import ClassVar


class AuthProxyError(Exception):
    """Base of all errors of the core; its text is for the operator, without secrets."""

    code: ClassVar[str] = "internal_error"
    status_hint: ClassVar[int] = 500


class SettingsError(AuthProxyError):
    """Invalid settings; ``problems`` has one line for each problem."""

    code = "settings_invalid"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class EffectError(AuthProxyError):
    """A driver could not perform an effect; thrown into the flow that yielded it."""

    status_hint = 503


class FetchError(EffectError):
    """No HTTP response from the identity provider (connection, timeout, TLS, size)."""

    code = "provider_unreachable"


class KeysUnavailableError(FetchError):
    """A token cannot be verified, because the provider's keys are not loaded."""

    code = "keys_unavailable"


class StoreError(EffectError):
    """The session store is unavailable."""

    code = "store_unavailable"


class ConflictError(AuthProxyError):
    """Another process has saved the session since it was loaded."""

    code = "session_conflict"


class BusyError(EffectError):
    """Too many computations wait already."""

    code = "busy"


class BodyTooLarge(EffectError):
    """The request's body exceeds the limit of `ReadBody`."""

    code = "body_too_large"
    status_hint = 413


class ClientGone(EffectError):
    """The client disconnected before its request body was complete."""

    code = "client_gone"
    status_hint = 400


class RequestError(AuthProxyError):
    """The client's request is malformed or ambiguous."""

    code = "bad_request"
    status_hint = 400


class CredentialsRejected(AuthProxyError):
    """The Authorization field is invalid, and no login may replace it."""

    code = "credentials_refused"
    status_hint = 403


class SealError(AuthProxyError):
    """A sealed value was forged, altered, sealed for another purpose, or is too old."""

    code = "seal_invalid"
    status_hint = 401


class LoginStateError(AuthProxyError):
    """The browser has no login state for this callback."""

    code = "login_state_lost"
    status_hint = 403


class TokenError(AuthProxyError):
    """A token failed validation (OIDC Core §3.1.3.7).

    ``reason`` is a stable reason code, ``hint`` tells the operator what to change.
    """

    code = "token_invalid"
    status_hint = 500

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


class ProviderError(AuthProxyError):
    """The identity provider sent an error or an invalid response."""

    code = "provider_error"
    status_hint = 500

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint
