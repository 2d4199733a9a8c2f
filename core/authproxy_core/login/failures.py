"""What a failed login says: plain words for the user, a remedy for the operator."""

from __future__ import annotations

from msgspec import Struct

from ..errors import (
    AuthProxyError,
    FetchError,
    LoginStateError,
    ProviderError,
    SealError,
    TokenError,
)
from ..messages import Event
from ..oidc.protocol import safe_error_code


class Failure(Struct, frozen=True):
    """A page's status and sentence, and the event for the log."""

    status: int
    message: str
    event: Event


CONTACT_ADMIN = "Please contact the administrator and name the request ID below."
RETRY_LATER = (
    "The identity provider did not say who you are, or which groups you are in. Please "
    f"try again in a moment. If it happens again: {CONTACT_ADMIN[0].lower()}{CONTACT_ADMIN[1:]}"
)
MESSAGES = {
    "audience": "The identity provider issued a token that is not meant for this "
    "application: its audience does not include it. The administrator has to add an "
    f"audience mapper at the identity provider. {CONTACT_ADMIN}",
    "authorized_party": "The identity provider issued a token that was made for "
    f"another application. {CONTACT_ADMIN}",
    "issuer": "The token comes from another issuer than the configured one. The "
    f"administrator has to correct the issuer URL. {CONTACT_ADMIN}",
    "wrong_issuer": "The identity provider answers, but not as the issuer that is "
    "configured here, so nobody can log in. The administrator has to correct the issuer "
    f"URL. {CONTACT_ADMIN}",
    "expired": "The token has expired by this server's clock. The clocks of this "
    f"server and of the identity provider differ too much. {CONTACT_ADMIN}",
    "clock_skew": "The token was issued in the future by this server's clock. The "
    f"clocks of this server and of the identity provider differ too much. {CONTACT_ADMIN}",
    "nonce": "The answer of the identity provider does not belong to this login. "
    "Please try again.",
    "email_missing": "The identity provider did not name an e-mail address for your "
    f"account. {CONTACT_ADMIN}",
    "email_unverified": "Your e-mail address is not verified at the identity "
    "provider. Please verify it there, then try again.",
    "not_allowed": "You are logged in at the identity provider, but your account has no "
    "permission to use this application. Please ask the administrator for access.",
    "no_provider": f"There is no login under this address. {CONTACT_ADMIN}",
    "profile_failed": RETRY_LATER,
    "groups_failed": RETRY_LATER,
    "directory_failed": RETRY_LATER,
    "groups_too_many": "You are in more groups than can be looked through. "
    + CONTACT_ADMIN,
    "tenant": "Your account belongs to an organisation that has no access to this "
    "application. Please ask the administrator for access.",
    "invalid_client": "The identity provider refused this application's credentials. "
    f"The administrator has to check the client secret. {CONTACT_ADMIN}",
    "unauthorized_client": "The identity provider refused this application's "
    f"credentials. The administrator has to check the client secret. {CONTACT_ADMIN}",
    "invalid_grant": "The identity provider did not accept the login any more; it may "
    "have taken too long. Please try again.",
    "access_denied": "The login was cancelled, or consent was not given. Without it "
    "the identity provider does not say who you are.",
    "login_required": "The identity provider wants you to log in. Please try again.",
    "temporarily_unavailable": "The identity provider is not available right now. "
    "Please try again in a moment.",
    "not_ready": "The identity provider can't be reached at the moment, so nobody can "
    "log in. Please try again in a moment.",
    "provider_unreachable": "The identity provider can't be reached at the moment. "
    "Please try again in a moment.",
    "login_state_lost": "This login was not started in this browser, was finished "
    "before, or took too long. Please try again; if it fails again, check that cookies "
    "are allowed.",
    "store_unavailable": "Logins can't be kept at the moment. Please try again in a "
    "moment.",
    "session_too_large": "The identity provider puts more into your session than "
    f"cookies can hold. {CONTACT_ADMIN}",
}
STATUSES = {
    "not_ready": 503,
    "wrong_issuer": 503,
    "not_allowed": 403,
    "tenant": 403,
    "no_provider": 404,
    "profile_failed": 502,
    "groups_failed": 502,
    "directory_failed": 502,
}
LOGIN_LOOP = (
    "You were logged in several times just now, but your browser does not bring the "
    "login back. Please check that it accepts cookies from this site, then try again. "
    f"If it happens again: {CONTACT_ADMIN[0].lower()}{CONTACT_ADMIN[1:]}"
)
DEFAULT = f"The login failed. {CONTACT_ADMIN}"


def login_failure(error: AuthProxyError) -> Failure:
    """What to show and to log for an error that ended a login."""
    match error:
        case LoginStateError():
            reason, status, hint = "login_state_lost", 403, ""
        case FetchError():
            reason, status, hint = "provider_unreachable", 502, ""
        case SealError():
            reason, status = "session_too_large", 500
            hint = (
                "keep sessions in a store (session_store_type), or have the provider "
            )
            hint += "put fewer groups and claims into its tokens"
        case TokenError() | ProviderError():
            reason, status, hint = error.reason, 500, error.hint
            status = STATUSES.get(reason, status)
        case _:
            reason, status, hint = error.code, error.status_hint, ""
    return _build_failure(reason, status, f"{error}; {hint}" if hint else str(error))


def provider_error_failure(code: str) -> Failure:
    """The same for an ``error`` in the callback (RFC 6749 §4.1.2.1)."""
    code = safe_error_code(code)
    detail = f"the identity provider ended the login with {code!r}"
    return _build_failure(
        code if code in MESSAGES else "provider_error", 403, detail, code
    )


def _build_failure(reason: str, status: int, detail: str, code: str = "") -> Failure:
    message = MESSAGES.get(reason)
    if message is None:
        message = (
            f"The identity provider ended the login ({code}). {CONTACT_ADMIN}"
            if code
            else DEFAULT
        )
    return Failure(
        status, message, Event("login_failed", reason=code or reason, detail=detail)
    )


def login_loop_failure(count: int) -> Failure:
    """What to show for *count* logins in a row that left no session."""
    detail = (
        f"logged in {count} times within a minute, yet no session came back: compare "
        "cookie_domains, cookie_path, cookie_secure and cookie_samesite with the "
        "address in the browser, and see that the gateway passes Set-Cookie and Cookie "
        "on"
    )
    return Failure(
        403, LOGIN_LOOP, Event("login_failed", reason="login_loop", detail=detail)
    )
