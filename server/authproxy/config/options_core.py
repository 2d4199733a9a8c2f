"""Rows of the option table: endpoints and rules, cookies, sessions."""

from __future__ import annotations

from .option import Option, in_group

_SAMESITE = ("", "lax", "strict", "none")
_WITH_REDIS = "only read when session_store_type is redis"
_WITH_HTPASSWD = "only read with htpasswd_file"
_WITH_BEARER = "only read with skip_jwt_bearer_tokens"

CORE_OPTIONS = in_group(
    "Proxy",
    Option(
        "proxy_prefix",
        "string",
        "/oauth2",
        "path below which the own endpoints are",
        "core.proxy_prefix",
    ),
    Option(
        "ping_path",
        "string",
        "/ping",
        "path that answers 200 while the process lives; empty disables it",
        "core.ping_path",
    ),
    Option(
        "ping_user_agent",
        "string",
        "",
        "answer ping_path to this User-Agent only",
        "core.ping_user_agent",
    ),
    Option(
        "ready_path",
        "string",
        "/ready",
        "path that answers 200 once logins are possible; empty disables it",
        "core.ready_path",
    ),
    Option(
        "reverse_proxy",
        "bool",
        False,
        "believe the X-Forwarded-* headers of trusted peers",
        "core.reverse_proxy",
    ),
    Option(
        "trusted_proxy_ips",
        "list",
        (),
        "addresses and networks of the trusted peers; empty means loopback and "
        "private addresses",
        "core.trusted_proxies",
        "trusted-proxy-ip",
        note="in oauth2-proxy empty means everybody",
    ),
    Option(
        "real_client_ip_header",
        "string",
        "X-Real-IP",
        "header in which trusted peers name the client",
        "core.real_client_ip_header",
    ),
    Option(
        "redirect_url",
        "string",
        "",
        "callback address given to the provider; empty means the request's own host",
        "core.redirect_url",
    ),
    Option(
        "relative_redirect_url",
        "bool",
        False,
        "give the callback to the provider without scheme and host",
        "core.relative_redirect_url",
    ),
    Option(
        "whitelist_domains",
        "list",
        (),
        "hosts that a login may return to; a leading dot includes subdomains",
        "core.whitelist_domains",
        "whitelist-domain",
    ),
    Option(
        "email_domains",
        "list",
        (),
        "let in addresses of these domains; * means any",
        "core.email_domains",
        "email-domain",
    ),
    Option(
        "authenticated_emails_file",
        "string",
        "",
        "CSV file whose first column has the addresses to let in",
        "core.authenticated_emails",
        note="read once at start",
    ),
    Option(
        "auth_success_status",
        "int",
        202,
        "status of the auth endpoint for a good session",
        "core.auth_success_status",
        choices=("200", "202", "204"),
        own=True,
    ),
    Option(
        "skip_provider_button",
        "bool",
        False,
        "go to the provider without showing the sign-in page",
        "core.skip_provider_button",
    ),
    Option(
        "encode_state",
        "bool",
        False,
        "base64url-encode the state parameter",
        "core.encode_state",
    ),
    Option(
        "force_json_errors",
        "bool",
        False,
        "answer errors as JSON instead of pages",
        "core.force_json_errors",
    ),
    Option(
        "clock_skew",
        "duration",
        30.0,
        "leeway for the times in tokens",
        "core.clock_skew",
        maximum=600.0,
        own=True,
    ),
    Option(
        "api_routes",
        "list",
        (),
        "paths (regular expressions) answered 401 JSON instead of a login page",
        flag="api-route",
        support="refused",
    ),
    Option(
        "skip_auth_routes",
        "list",
        (),
        "requests let through without a login: METHOD=REGEX or REGEX",
        flag="skip-auth-route",
        support="refused",
    ),
    Option(
        "skip_auth_regex",
        "list",
        (),
        "old form of skip_auth_routes, without methods",
        support="refused",
    ),
    Option(
        "skip_auth_preflight",
        "bool",
        False,
        "let OPTIONS requests through without a login",
        support="refused",
    ),
    Option(
        "trusted_ips",
        "list",
        (),
        "client addresses and networks let through without a login",
        flag="trusted-ip",
        support="refused",
    ),
    Option(
        "force_https",
        "bool",
        False,
        "redirect plain requests to https",
        support="refused",
    ),
    Option(
        "htpasswd_file",
        "string",
        "",
        "file of users and password hashes for a login form",
        support="refused",
    ),
    Option(
        "htpasswd_user_groups",
        "list",
        (),
        "groups of the users of htpasswd_file",
        flag="htpasswd-user-group",
        support="idle",
        note=_WITH_HTPASSWD,
    ),
    Option(
        "skip_jwt_bearer_tokens",
        "bool",
        False,
        "accept bearer JWTs in place of a session",
        support="refused",
    ),
    Option(
        "bearer_token_login_fallback",
        "bool",
        True,
        "treat a request with a bad bearer token as one without",
        support="idle",
        note=_WITH_BEARER,
    ),
    Option(
        "extra_jwt_issuers",
        "list",
        (),
        "further issuers of bearer JWTs, as issuer=audience",
        support="idle",
        note=_WITH_BEARER,
    ),
    Option(
        "allow_query_semicolons",
        "bool",
        False,
        "read a semicolon in the query as an ampersand",
        support="refused",
    ),
    Option(
        "signature_key",
        "string",
        "",
        "sign upstream requests, as algorithm:key",
        support="refused",
        secret=True,
    ),
    Option(
        "gcp_healthchecks",
        "bool",
        False,
        "answer the health checks of Google's load balancers",
        support="refused",
        note="use ping_path",
    ),
)

COOKIE_OPTIONS = in_group(
    "Cookies",
    Option(
        "cookie_name",
        "string",
        "_oauth2_proxy",
        "name of the session cookie",
        "core.cookie.name",
    ),
    Option(
        "cookie_secret",
        "string",
        "",
        "secret that seals cookies: 16, 24 or 32 bytes, raw or base64url",
        "core.cookie.secrets",
        secret=True,
    ),
    Option(
        "cookie_secret_file",
        "string",
        "",
        "file with the cookie secret, read byte for byte; used when cookie_secret is "
        "empty",
        "core.cookie.secrets",
    ),
    Option(
        "cookie_secrets",
        "list",
        (),
        "key ring: the first secret seals, all of them unseal; cookie_secret, when "
        "given, is the first",
        "core.cookie.secrets",
        secret=True,
        own=True,
    ),
    Option(
        "cookie_format",
        "string",
        "authproxy",
        "format of the cookies written: our own, or that of oauth2-proxy",
        "core.cookie.format",
        choices=("authproxy", "oauth2-proxy"),
        own=True,
    ),
    Option(
        "cookie_read_oauth2_proxy",
        "bool",
        True,
        "accept cookies in oauth2-proxy's format",
        "core.cookie.read_oauth2_proxy",
        own=True,
    ),
    Option(
        "cookie_domains",
        "list",
        (),
        "domains for the cookies; the longest one that fits the host is used",
        "core.cookie.domains",
        "cookie-domain",
    ),
    Option("cookie_path", "string", "/", "path for the cookies", "core.cookie.path"),
    Option(
        "cookie_expire",
        "duration",
        168 * 3600.0,
        "how long a session lasts; 0 means until the browser ends",
        "core.cookie.expire",
    ),
    Option(
        "cookie_refresh",
        "duration",
        0.0,
        "age at which a session is refreshed; 0 means never",
        "core.cookie.refresh",
    ),
    Option(
        "cookie_secure",
        "bool",
        True,
        "send cookies over https only",
        "core.cookie.secure",
    ),
    Option(
        "cookie_httponly",
        "bool",
        True,
        "hide cookies from scripts",
        "core.cookie.httponly",
    ),
    Option(
        "cookie_samesite",
        "string",
        "",
        "SameSite attribute of the cookies",
        "core.cookie.samesite",
        choices=_SAMESITE,
    ),
    Option(
        "cookie_csrf_per_request",
        "bool",
        False,
        "name the login-state cookie after the state, one for each login under way",
        "core.cookie.csrf_per_request",
    ),
    Option(
        "cookie_csrf_per_request_limit",
        "int",
        0,
        "how many of these cookies to keep beside a new one; 0 means cookie_csrf_slots",
        "core.cookie.csrf_slots",
        minimum=None,
    ),
    Option(
        "cookie_csrf_slots",
        "int",
        8,
        "how many logins may be under way in one browser",
        "core.cookie.csrf_slots",
        minimum=1,
        maximum=64,
        own=True,
    ),
    Option(
        "cookie_csrf_expire",
        "duration",
        900.0,
        "how long a login may take; 0 means no limit",
        "core.cookie.csrf_expire",
    ),
    Option(
        "cookie_csrf_samesite",
        "string",
        "",
        "SameSite attribute of the login-state cookie; empty means cookie_samesite",
        "core.cookie.csrf_samesite",
        choices=_SAMESITE,
    ),
)


def _redis(key: str, help_: str) -> Option:
    return Option(
        key,
        "string",
        "",
        help_,
        support="idle",
        note=_WITH_REDIS,
        secret="password" in key or "url" in key,
    )


SESSION_OPTIONS = in_group(
    "Sessions",
    Option(
        "session_store_type",
        "string",
        "cookie",
        "where sessions are kept",
        choices=("cookie",),
        note="redis is not supported yet",
    ),
    Option(
        "session_cookie_minimal",
        "bool",
        False,
        "leave the tokens out of the session cookie",
        "core.cookie.minimal",
    ),
    Option(
        "session_cookie_max_parts",
        "int",
        10,
        "how many cookies a session may be split over",
        "core.cookie.max_parts",
        minimum=1,
        maximum=64,
        own=True,
    ),
    Option(
        "session_cache_size",
        "int",
        16 << 20,
        "bytes of unsealed sessions kept in memory, per worker; 0 disables the cache",
        "core.session_cache_bytes",
        own=True,
    ),
    _redis("redis_connection_url", "address of the Redis server"),
    _redis("redis_username", "user name at Redis"),
    _redis("redis_password", "password at Redis"),
    _redis("redis_use_sentinel", "find Redis through sentinels")._replace(
        kind="bool", default=False
    ),
    _redis("redis_sentinel_password", "password at the sentinels"),
    _redis("redis_sentinel_master_name", "name of the master at the sentinels"),
    _redis("redis_sentinel_connection_urls", "addresses of the sentinels")._replace(
        kind="list", default=()
    ),
    _redis("redis_use_cluster", "Redis is a cluster")._replace(
        kind="bool", default=False
    ),
    _redis("redis_cluster_connection_urls", "addresses of the cluster")._replace(
        kind="list", default=()
    ),
    _redis("redis_ca_path", "PEM file of the authority of Redis"),
    _redis(
        "redis_insecure_skip_tls_verify", "do not verify the certificate of Redis"
    )._replace(kind="bool", default=False),
    _redis("redis_connection_idle_timeout", "seconds")._replace(
        help="seconds that a connection to Redis may idle", kind="int", default=0
    ),
)
