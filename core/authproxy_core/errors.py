"""What can go wrong, as one small tree.

An error is raised where the fact is known and caught where the decision is made.
Each class carries a stable ``code`` for pages, logs and metrics, and a
``status_hint`` for the outer guard that answers what nobody caught.
"""

from __future__ import annotations

from typing import ClassVar


class AuthProxyError(Exception):
    """Base of all errors of the core; its text is for the operator, never a secret."""

    code: ClassVar[str] = "internal_error"
    status_hint: ClassVar[int] = 500


class SettingsError(AuthProxyError):
    """The settings contradict themselves; ``problems`` lists every one of them."""

    code = "settings_invalid"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class EffectError(AuthProxyError):
    """A driver could not perform an effect; thrown into the flow that asked."""

    status_hint = 503


class FetchError(EffectError):
    """No HTTP answer came from the identity provider (refused, timeout, TLS, size)."""

    code = "provider_unreachable"


class StoreError(EffectError):
    """The session store did not answer."""

    code = "store_unavailable"


class BodyTooLarge(EffectError):
    """The request's body is above the limit that the flow asked for."""

    code = "body_too_large"
    status_hint = 413


class ClientGone(EffectError):
    """The client left before its body had arrived."""

    code = "client_gone"
    status_hint = 400


class RequestError(AuthProxyError):
    """The client's request is malformed or ambiguous."""

    code = "bad_request"
    status_hint = 400


class CredentialsRejected(AuthProxyError):
    """The Authorization field can't be used, and nothing else may stand in for it."""

    code = "credentials_refused"
    status_hint = 403


class SealError(AuthProxyError):
    """A sealed value is not ours, was changed, is of another purpose, or too old."""

    code = "seal_invalid"
    status_hint = 401


class LoginStateError(AuthProxyError):
    """The login that this callback belongs to is unknown to this browser."""

    code = "login_state_lost"
    status_hint = 403


class TokenError(AuthProxyError):
    """A token fails its checks (OIDC Core §3.1.3.7).

    ``reason`` is a stable word for metrics and tests, ``hint`` says what the
    operator can change.
    """

    code = "token_invalid"
    status_hint = 500

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


class ProviderError(AuthProxyError):
    """The identity provider answered, but with an error or with nonsense."""

    code = "provider_error"
    status_hint = 500

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint
