"""Failures of a login: the page text for the user, the detail for the operator."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from ..errors import (
    AuthProxyError,
    FetchError,
    KeysUnavailableError,
    LoginStateError,
    ProviderError,
    SealError,
    TokenError,
)
from ..messages import Event
from ..oidc.provider_errors import (
    authorization_hint,
    error_text,
    safe_description,
    safe_error_code,
)


class Failure(Struct, frozen=True):
    """Status, title and message of an error page, and the event for the log."""

    status: int
    title: str
    message: str
    event: Event
    values: Mapping[str, str] = {}


FAILED = "Sign-in failed"
UNAVAILABLE = "Sign-in unavailable"
DENIED = "Access denied"
TARGET_TOO_LONG = "Address too long"

CONTACT_ADMIN = "Contact your administrator and include the request ID below."
NO_ACCESS_FOR_USER = (
    "You are signed in as {user}, but your account does not have access to this "
    "application. Ask your administrator for access, or sign in with another account."
)
NOT_AVAILABLE = "This page is not available."
PROVIDER_ERROR = (
    "The identity provider returned an error ({code}). Try again. " + CONTACT_ADMIN
)
NO_ACCESS = (
    "You are signed in, but your account does not have access to this application. Ask "
    "your administrator for access, or sign in with another account."
)
LOGIN_EXPIRED = (
    "This sign-in attempt expired or was already used. Try again. If it fails again, "
    "allow cookies for this site."
)
PROVIDER_UNAVAILABLE = (
    "The identity provider is currently unavailable. Try again in a minute."
)
PROFILE_UNAVAILABLE = (
    "Your account details could not be loaded from the identity provider. Try again in "
    f"a minute. {CONTACT_ADMIN}"
)
WRONG_ISSUER = (
    "The identity provider's issuer URL does not match the configured one. An "
    f"administrator must correct the issuer URL. {CONTACT_ADMIN}"
)
CLOCKS_DIFFER = (
    f"The clocks of this server and the identity provider differ. {CONTACT_ADMIN}"
)
CREDENTIALS_REJECTED = (
    "The identity provider rejected this application's credentials. An administrator "
    f"must check the client secret. {CONTACT_ADMIN}"
)
RESPONSE_MISMATCH = (
    "The identity provider's response does not match this sign-in. Try again."
)
LOGIN_LOOP = (
    "Sign-in succeeded several times, but your browser did not keep the session. Allow "
    f"cookies for this site, then try again. {CONTACT_ADMIN}"
)
TOO_LONG = (
    "The address of this page is too long to return to it after sign-in. Sign in first, "
    "then open the page again."
)
TWIN_COOKIES = (
    "Sign-in succeeded several times, but your browser sent an older session cookie of "
    "this site that is not valid. The cookie was deleted: try again. If it fails again, "
    f"delete the cookies of this site. {CONTACT_ADMIN}"
)
DEFAULT = f"Sign-in failed. Try again. {CONTACT_ADMIN}"

# Reason code → page title and message.
PAGES_BY_REASON = {
    "not_allowed": (DENIED, NO_ACCESS),
    "tenant": (
        DENIED,
        "Your organization does not have access to this application. Ask your "
        "administrator for access.",
    ),
    "access_denied": (
        FAILED,
        "Sign-in was canceled or consent was not given. Try again and accept the "
        "request of the identity provider.",
    ),
    "login_state_lost": (FAILED, LOGIN_EXPIRED),
    "invalid_grant": (FAILED, LOGIN_EXPIRED),
    "bad_verification_code": (FAILED, LOGIN_EXPIRED),  # invalid_grant of GitHub
    "no_code": (FAILED, RESPONSE_MISMATCH),
    "callback_issuer": (FAILED, RESPONSE_MISMATCH),
    "nonce": (FAILED, RESPONSE_MISMATCH),
    "login_required": (
        FAILED,
        "Your identity provider requires a new sign-in. Try again.",
    ),
    "acr": (
        FAILED,
        "This application requires another sign-in method than you used. Try again "
        f"with the required one. {CONTACT_ADMIN}",
    ),
    "auth_time": (
        FAILED,
        "This application requires a recent sign-in. Sign out at the identity "
        "provider, then try again.",
    ),
    "temporarily_unavailable": (UNAVAILABLE, PROVIDER_UNAVAILABLE),
    "not_ready": (UNAVAILABLE, PROVIDER_UNAVAILABLE),
    "keys_unavailable": (UNAVAILABLE, PROVIDER_UNAVAILABLE),
    "provider_unreachable": (UNAVAILABLE, PROVIDER_UNAVAILABLE),
    "profile_failed": (UNAVAILABLE, PROFILE_UNAVAILABLE),
    "groups_failed": (UNAVAILABLE, PROFILE_UNAVAILABLE),
    "directory_failed": (UNAVAILABLE, PROFILE_UNAVAILABLE),
    "store_unavailable": (
        UNAVAILABLE,
        "Sign-in is temporarily unavailable. Try again in a minute.",
    ),
    "email_missing": (
        FAILED,
        "Your account has no email address at the identity provider. Ask your "
        "administrator to add one, then try again.",
    ),
    "email_invalid": (
        FAILED,
        "Your account does not have exactly one email address at the identity provider. "
        "Ask your administrator to correct it, then try again.",
    ),
    "email_unverified": (
        FAILED,
        "Your email address is not verified. Verify it at the identity provider, then "
        "try again.",
    ),
    "third_party": (
        FAILED,
        "The link that you followed does not name an identity provider of this site. "
        "Open the application and sign in there.",
    ),
    "no_provider": (
        UNAVAILABLE,
        f"There is no sign-in at this address. Check the URL. {CONTACT_ADMIN}",
    ),
    "audience": (
        FAILED,
        "The identity provider issued a token that is not intended for this "
        "application. An administrator must add an audience mapper. " + CONTACT_ADMIN,
    ),
    "authorized_party": (
        FAILED,
        "The identity provider issued this token to a different application. "
        + CONTACT_ADMIN,
    ),
    "issuer": (FAILED, WRONG_ISSUER),
    "wrong_issuer": (FAILED, WRONG_ISSUER),
    "expired": (FAILED, f"The token has already expired. {CLOCKS_DIFFER}"),
    "clock_skew": (FAILED, f"The token is not valid yet. {CLOCKS_DIFFER}"),
    "invalid_client": (FAILED, CREDENTIALS_REJECTED),
    "unauthorized_client": (FAILED, CREDENTIALS_REJECTED),
    "invalid_scope": (
        FAILED,
        "The identity provider does not know a scope that this application requests. "
        f"An administrator must add it there. {CONTACT_ADMIN}",
    ),
    "session_too_large": (
        FAILED,
        f"Your account data is too large for a session cookie. {CONTACT_ADMIN}",
    ),
    "groups_too_many": (
        FAILED,
        f"Your account belongs to too many groups to check. {CONTACT_ADMIN}",
    ),
}
# Statuses of token and provider errors other than 500.
STATUSES = {
    # A client alone can cause these, with a forged callback or another login's code.
    "no_code": 400,
    "third_party": 400,
    "callback_issuer": 403,
    "invalid_grant": 403,
    "bad_verification_code": 403,
    "invalid_request": 403,
    "token_endpoint_rejected": 403,
    "nonce": 403,
    "acr": 403,
    "auth_time": 403,
    "email_missing": 403,
    "email_invalid": 403,
    # As in oauth2-proxy 7.15.6.
    "audience": 403,
    "authorized_party": 403,
    "email_unverified": 403,
    "not_ready": 503,
    "wrong_issuer": 503,
    "not_allowed": 403,
    "tenant": 403,
    "no_provider": 404,
    "profile_failed": 502,
    "groups_failed": 502,
    "directory_failed": 502,
}


def login_failure(error: AuthProxyError) -> Failure:
    """Return the page and the event for an *error* that ended a login."""
    match error:
        case LoginStateError():
            reason, status, hint = "login_state_lost", 403, ""
        case KeysUnavailableError():
            reason, status, hint = error.code, error.status_hint, ""
        case FetchError():
            reason, status, hint = "provider_unreachable", 502, ""
        case SealError():
            reason, status = "session_too_large", 500
            hint = (
                "store sessions on the server (session_store_type), or have the "
                "provider put fewer groups and claims into its tokens"
            )
        case TokenError() | ProviderError():
            reason, status, hint = error.reason, 500, error.hint
            status = STATUSES.get(reason, status)
        case _:
            reason, status, hint = error.code, error.status_hint, ""
    title, message = PAGES_BY_REASON.get(reason, (FAILED, DEFAULT))
    return _failure(
        status, title, message, reason, f"{error}; {hint}" if hint else str(error)
    )


def provider_error_failure(
    form: Mapping[str, str], *, redirect_uri: str, scope: str
) -> Failure:
    """Return the page and the event for an OAuth error in the callback's *form*.

    *redirect_uri* and *scope* are those of the authorization request. See RFC 6749
    §4.1.2.1; the description is for the log only.
    """
    code = safe_error_code(form["error"])
    description = safe_description(form.get("error_description"))
    title, message = PAGES_BY_REASON.get(code, (FAILED, PROVIDER_ERROR))
    detail = f"the identity provider returned the error {error_text(code, description)}"
    hint = authorization_hint(code, description, redirect_uri=redirect_uri, scope=scope)
    failure = _failure(
        403, title, message, code, f"{detail}; {hint}" if hint else detail
    )
    return msgspec.structs.replace(failure, values={"code": code})


def target_too_long_failure(limit: int) -> Failure:
    """Return the page and the event for a redirect target of more than *limit* bytes."""
    detail = f"the redirect target is longer than {limit} bytes"
    return _failure(414, TARGET_TOO_LONG, TOO_LONG, "target_too_long", detail)


def login_loop_failure(count: int, *, sent_cookie: bool = False) -> Failure:
    """Return the page and the event for *count* logins in a row without a session.

    *sent_cookie* is whether the browser sent a session cookie that is not valid. The
    status is not 401 or 403, for which gateways may start the next login.
    """
    if sent_cookie:
        detail = (
            f"logged in {count} times within a minute, but no session cookie that the "
            "browser sent is valid: an older cookie of another cookie_domains or "
            "cookie_path, or another instance with this cookie_name and another secret"
        )
        return _failure(429, FAILED, TWIN_COOKIES, "login_loop", detail)
    detail = (
        f"logged in {count} times within a minute, but the browser sent no session: "
        "compare cookie_domains, cookie_path, cookie_secure and cookie_samesite with "
        "the URL in the browser, and check that the gateway forwards Set-Cookie and "
        "Cookie"
    )
    return _failure(429, FAILED, LOGIN_LOOP, "login_loop", detail)


def denied_loop_failure(count: int) -> Failure:
    """Return the page and the event for *count* logins in a row despite a session."""
    detail = (
        f"started {count} logins within a minute with a valid session: a constraint of "
        "the auth endpoint's URL or an access rule denies it, and the gateway turns 403 "
        "into a redirect to the sign-in page"
    )
    return _failure(429, DENIED, NO_ACCESS, "login_loop", detail)


def _failure(
    status: int, title: str, message: str, reason: str, detail: str
) -> Failure:
    event = Event("login_failed", reason=reason, detail=detail)
    return Failure(status, title, message, event)
