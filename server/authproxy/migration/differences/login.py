"""Logins: authorization request, callback and redirect targets."""

from __future__ import annotations

from ..conditions import (
    EVERY,
    ID_TOKEN_TYPES,
    REQUESTS_AUTHENTICATION,
    has_value,
    is_on,
    provider_is,
)
from .row import ADDITION, BUG, SECURITY, Difference

LOGIN: tuple[Difference, ...] = (
    Difference(
        "nonce-and-pkce",
        "the nonce is sent and validated; PKCE with S256 is used if the provider "
        "offers it",
        "a stolen authorization code or ID token is useless (RFC 9700 §4.5)",
        '`insecure_oidc_skip_nonce = true`, `code_challenge_method = "none"`',
        when=provider_is(*ID_TOKEN_TYPES, "github")
        & ~is_on("insecure_oidc_skip_nonce"),
        look=provider_is("oidc", "adfs", "cidaas"),
    ),
    Difference(
        "callback-statuses",
        "a callback without a started login gets 403 and a malformed one 400, not 500",
        "it is a client error",
        BUG,
    ),
    Difference(
        "redirect-targets",
        "redirect targets of logins and sign-outs are parsed as browsers parse "
        "them; URLs of the same origin and valid queries are kept",
        "open redirects, lost deep links",
        SECURITY,
    ),
    Difference(
        "login-cookie-names",
        "each login has a cookie of its own (`NAME_<id>_csrf`), as with "
        "`cookie_csrf_per_request`",
        "logins in two tabs would end each other",
        '`cookie_format = "oauth2-proxy"` without `cookie_csrf_per_request`',
        when=~is_on("cookie_csrf_per_request")
        & has_value("cookie_format", "authproxy"),
    ),
    Difference(
        "state-and-issuer",
        "state is validated before the code is redeemed, `iss` is validated (RFC "
        "9207), and a login finishes only once",
        "login CSRF, mix-up attacks",
        SECURITY,
    ),
    Difference(
        "id-token-claims",
        "`azp`, `at_hash`, `c_hash`, `iat` and `sub` of ID tokens and `sub` of "
        "userinfo are validated",
        "OpenID Connect Core",
        SECURITY,
        when=provider_is(*ID_TOKEN_TYPES),
    ),
    Difference(
        "requested-authentication",
        "requested `acr_values`, `max_age` and `prompt=login` are compared with "
        "`acr` and `auth_time` of the ID token; a mismatch denies the login",
        "a provider may ignore them, and a weaker or older login would be accepted",
        "do not request them",
        when=REQUESTS_AUTHENTICATION,
        look=EVERY,
    ),
    Difference(
        "client-error-statuses",
        "failed logins that a client alone can cause (another login's code, no "
        "code, a wrong `iss` or nonce, an account without an email address) get "
        "400 or 403 instead of 500",
        "they are not server errors, and would trigger alerts",
        BUG,
    ),
    Difference(
        "third-party-login",
        "`iss` at `{prefix}/start` selects the provider; with it, `login_hint` "
        "and `target_link_uri` count, and an unknown issuer gets 400",
        "logins that a third party initiates (OpenID Connect Core §4)",
        ADDITION,
    ),
    Difference(
        "login-page-as-target",
        "an `rd` to the sign-in page or the start endpoint counts as its own "
        "`rd`; other proxy endpoints than `auth` and `userinfo` are no target of "
        "a login",
        "the login would end in another login, or sign out",
        BUG,
    ),
    Difference(
        "late-keys",
        "while the provider's keys cannot be fetched, logins and bearer tokens "
        "get 503 with Retry-After instead of 500 and 401 or 403",
        "the token may be valid; gateways and clients can retry",
        BUG,
    ),
    Difference(
        "lost-logins",
        "a callback whose login is lost (too old, finished in another tab, "
        "started on another host) restarts the login once; a login loop, also one "
        "of denied logins, ends at a page with the cause and status 429",
        "oauth2-proxy ends at an error page or in the browser's redirect limit",
        "`restart_lost_logins = false`",
        when=is_on("restart_lost_logins"),
    ),
    Difference(
        "long-targets",
        "redirect targets of up to 16 kB are kept; a longer one is answered with "
        "414 and a page that says so",
        "the user would arrive at another page without notice",
        "not needed: a longer URL works after the login",
    ),
)
