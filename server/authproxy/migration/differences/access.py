"""Access, auth bypass, bearer tokens and passwords."""

from __future__ import annotations

from ..conditions import (
    BYPASSES_PATHS,
    EVERY,
    HAS_EMPTY_ENTRY,
    PROXIES,
    RESTRICTS_USERS,
    given,
    is_on,
)
from .row import BUG, SECURITY, Difference

ACCESS: tuple[Difference, ...] = (
    Difference(
        "denied-user-keeps-session",
        "a signed-in user without access gets 403 and keeps the session",
        "a gateway would start a redirect loop",
        '`forbidden_session = "clear"`',
        when=RESTRICTS_USERS,
        look=EVERY,
    ),
    Difference(
        "constraint-without-value",
        "a constraint without a value (`allowed_groups=`) allows no user; a "
        "constraint after `;` applies",
        "an empty variable in a gateway's template would allow every user",
        SECURITY,
    ),
    Difference(
        "bypass-ambiguous-path",
        "no bypass rule applies to an ambiguous path (`..`, `//`, `;`, an encoded "
        "separator …)",
        "the upstream may read another path than the one that was checked",
        SECURITY,
        when=BYPASSES_PATHS,
    ),
    Difference(
        "preflights",
        "`skip_auth_preflight` applies to CORS preflights (`Origin` and "
        "`Access-Control-Request-Method`), not to every OPTIONS request",
        "an upstream may give any answer to OPTIONS",
        SECURITY,
        when=is_on("skip_auth_preflight"),
        look=EVERY,
    ),
    Difference(
        "bypass-without-uri",
        "at an auth check without the original URI no `skip_auth_routes` rule "
        "applies, negated or not",
        "a rule about paths cannot judge an unknown path",
        SECURITY,
        when=BYPASSES_PATHS & is_on("reverse_proxy"),
        look=EVERY,
    ),
    Difference(
        "empty-patterns",
        "an empty pattern or domain, such as after a surplus comma, is an error "
        "at start",
        "it would allow every request",
        "`.*`",
        when=HAS_EMPTY_ENTRY,
        look=EVERY,
    ),
    Difference(
        "misspelled-constraints",
        "a misspelled constraint in the query of an auth check (`Allowed_Groups`) "
        "denies access",
        "the constraint would be ignored",
        SECURITY,
    ),
    Difference(
        "challenges",
        "rejected passwords and bearer tokens are answered with `WWW-Authenticate`",
        "clients learn what to send (RFC 9110 §11.6.1, RFC 6750 §3)",
        BUG,
        when=given("htpasswd_file") | is_on("skip_jwt_bearer_tokens"),
    ),
    Difference(
        "bypass-own-target",
        "a forwarded request must match a bypass rule by its path and method, not "
        "only by `X-Forwarded-Uri`; rules without `^` cause a warning at start",
        "a gateway may keep the client's header",
        SECURITY,
        when=BYPASSES_PATHS & is_on("reverse_proxy"),
        look=PROXIES,
    ),
    Difference(
        "trusted-ips-of-clients",
        "`trusted_ips` does not apply to a gateway that does not name its client; "
        "health paths and robots.txt apply only to direct requests",
        "the gateway's address is trusted, and it treats each 2xx as allowed",
        SECURITY,
        when=given("trusted_ips", "ping_path", "ready_path") & is_on("reverse_proxy"),
        look=given("trusted_ips"),
    ),
    Difference(
        "bearer-authorized-party",
        "bearer JWTs that were issued to another client (`azp`) are rejected",
        "the token is intended for another application",
        '`bearer_authorized_parties = ["*"]`',
        when=is_on("skip_jwt_bearer_tokens") & ~given("bearer_authorized_parties"),
        look=EVERY,
    ),
    Difference(
        "htpasswd-attempts",
        "`htpasswd_file`: failed attempts are limited, take the same time and get "
        "the same response for all users; the form is accepted only from the "
        "sign-in page; removing a user ends the session",
        "password guessing, login CSRF",
        SECURITY,
        when=given("htpasswd_file"),
        look=given("custom_templates_dir"),
    ),
    Difference(
        "bearer-clock-skew",
        "expired bearer tokens are accepted for 30 s (`clock_skew`)",
        "the clocks of two machines differ; ID tokens have the same leeway",
        '`clock_skew = "0s"`',
        when=is_on("skip_jwt_bearer_tokens") & given("clock_skew"),
    ),
)
