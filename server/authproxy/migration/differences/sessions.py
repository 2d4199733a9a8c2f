"""Sessions, cookies, sign-out and stores."""

from __future__ import annotations

from ..conditions import (
    EVERY,
    HAS_UNUSUAL_COOKIE_DOMAIN,
    ID_TOKEN_TYPES,
    STORES_SESSIONS,
    USES_REDIS,
    given,
    has_value,
    is_on,
    provider_is,
)
from .row import ADDITION, BUG, SECURITY, Difference

SESSIONS: tuple[Difference, ...] = (
    Difference(
        "sign-in-page-keeps-session",
        "the sign-in page does not end a valid session",
        "any site can make a browser open it",
        SECURITY,
    ),
    Difference(
        "sign-out-clears-cookie",
        "sign-out clears the session cookie even if the request does not contain it",
        "the cookie's path or domain may exclude it from the request",
        BUG,
    ),
    Difference(
        "signed-out-page",
        "`{prefix}/signed_out` is a page for the time after a sign-out; requests to it "
        "are not forwarded to an upstream",
        "without `rd`, a sign-out ends at the application, where a login may begin again",
        ADDITION,
    ),
    Difference(
        "id-token-in-sign-out",
        "`{id_token}` is replaced in configured URLs only, not in the `rd` of a "
        "sign-out",
        "any site could make the browser send it the token",
        "`sign_out_at_provider`, `backend_logout_url`",
        when=given("whitelist_domains"),
        look=~is_on("sign_out_at_provider"),
    ),
    Difference(
        "unseen-cookie-kept",
        "with a session store, a page clears the session cookie only if the "
        "request contains it",
        "there is nothing to clear",
        BUG,
        when=STORES_SESSIONS,
    ),
    Difference(
        "cookie-domain-labels",
        "`cookie_domains` are compared by labels and in any letter case; a host "
        "outside all of them gets a cookie without `Domain`",
        "`badexample.com` is not in `example.com`, and browsers reject cookies "
        "for other domains",
        SECURITY,
        when=given("cookie_domains"),
    ),
    Difference(
        "cookie-domain-forms",
        "a URL, a port, `*.` or several domains in one entry of `cookie_domains` "
        "mean the domain in it",
        "such entries write cookies without `Domain`, or never match",
        "no `cookie_domains`: cookies for the host only",
        when=HAS_UNUSUAL_COOKIE_DOMAIN,
        look=EVERY,
    ),
    Difference(
        "refreshed-algorithm",
        "a refresh whose ID token has another signing algorithm than the "
        "session's ID token ends the session: the user signs in again",
        "a provider may sign with weaker algorithms for other clients (OpenID "
        "Connect Core §12.2)",
        "`oidc_enabled_signing_algs` with the old and the new algorithm",
        when=given("cookie_refresh")
        & provider_is(*ID_TOKEN_TYPES)
        & ~given("oidc_enabled_signing_algs"),
    ),
    Difference(
        "logout-token-algorithm",
        "logout tokens must have a signing algorithm of the sessions' ID tokens",
        "only the client's algorithm can be expected (Back-Channel Logout §2.6)",
        "`oidc_enabled_signing_algs` with all algorithms",
        when=is_on("backchannel_logout") & ~given("oidc_enabled_signing_algs"),
    ),
    Difference(
        "cookies-from-the-future",
        "a cookie may be from the future by a tenth of its lifetime, 5 to 65 "
        "minutes, not by 5 minutes",
        "a clock that was an hour ahead and is set back would end all sessions",
        ADDITION,
    ),
    Difference(
        "twin-cookies",
        "of several session or login cookies of one name, the first valid one "
        "counts, and the newest one is refreshed; a login expires the others",
        "an old cookie without `Domain` would hide the new one in every request",
        BUG,
    ),
    Difference(
        "session-format",
        "sessions have a format of authproxy's (AES-256-GCM), and stale cookie "
        "parts are cleared",
        "oauth2-proxy uses one key for encryption and signature and leaves stale parts",
        '`cookie_format = "oauth2-proxy"`; its cookies are always read unless '
        "`cookie_read_oauth2_proxy = false`",
        when=has_value("cookie_format", "authproxy"),
    ),
    Difference(
        "store-outage",
        "if the session store is unavailable, requests with a session, logins, "
        "sign-outs and `/ready` get 503 with Retry-After, and no cookie is "
        "cleared",
        "oauth2-proxy answers 401 or 500 and clears the cookie, so all users are "
        "signed out",
        BUG,
        when=STORES_SESSIONS,
    ),
    Difference(
        "redis-permissions",
        "a Redis user without all permissions (other keys, scripts, sets) works "
        "with fewer features, which the log names at start",
        "single-use logins across instances, the index of a user's sessions and "
        "locks need more commands than oauth2-proxy's",
        "grant the permissions in `docs/sessions.md`",
        when=USES_REDIS,
    ),
)
