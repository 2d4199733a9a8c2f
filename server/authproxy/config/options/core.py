"""Options of endpoints, access and cookies."""

from __future__ import annotations

from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import CookieSettings, Settings
from authproxy_core.settings.rules import RuleSettings

from .option import Option, in_group

SAMESITE_CHOICES = ("", "lax", "strict", "none")

CORE_OPTIONS = in_group(
    "Proxy",
    Option(
        "proxy_prefix",
        "string",
        "/oauth2",
        "path prefix of the proxy endpoints (sign_in, auth, callback, …)",
        Settings.proxy_prefix,
    ),
    Option(
        "ping_path",
        "string",
        "/ping",
        "liveness path: responds with 200 while the process runs; empty disables it",
        Settings.ping_path,
    ),
    Option(
        "ping_user_agent",
        "string",
        "",
        "respond to ping_path only for this User-Agent; empty accepts any",
        Settings.ping_user_agent,
    ),
    Option(
        "ready_path",
        "string",
        "/ready",
        "readiness path: responds with 200 when every worker can finish a login, else "
        "503; empty disables it",
        Settings.ready_path,
    ),
    Option(
        "reverse_proxy",
        "bool",
        False,
        "trust the X-Forwarded-* headers of trusted_proxy_ips",
        Settings.reverse_proxy,
    ),
    Option(
        "trusted_proxy_ips",
        "list",
        (),
        "IP addresses and networks of trusted gateways, 'unix' for unix sockets; ignored "
        "unless reverse_proxy; empty: loopback, private addresses and unix sockets",
        Settings.trusted_proxies,
        "trusted-proxy-ip",
        note="in oauth2-proxy empty means all addresses",
    ),
    Option(
        "real_client_ip_header",
        "string",
        "X-Real-IP",
        "header with the client's IP address, ignored unless sent by a trusted gateway",
        Settings.real_client_ip_header,
    ),
    Option(
        "redirect_url",
        "string",
        "",
        "callback URL for the provider; empty: PREFIX/callback on the host of the "
        "request; /ID follows for all providers but the first",
        Settings.redirect_url,
    ),
    Option(
        "relative_redirect_url",
        "bool",
        False,
        "send the callback URL to the provider without scheme and host",
        Settings.relative_redirect_url,
    ),
    Option(
        "whitelist_domains",
        "list",
        (),
        "additional hosts allowed as redirect target after login and sign-out; a "
        "leading dot includes subdomains",
        Settings.whitelist_domains,
        "whitelist-domain",
    ),
    Option(
        "email_domains",
        "list",
        (),
        "allow emails of these domains; * allows any email",
        Settings.email_domains,
        "email-domain",
    ),
    Option(
        "authenticated_emails_file",
        "string",
        "",
        "CSV file with allowed emails in the first column; emails in email_domains "
        "are allowed as well, so it has no effect with *",
        Settings.authenticated_emails,
        note="reloaded when it changes",
    ),
    Option(
        "auth_success_status",
        "int",
        202,
        "status of the auth endpoint for an allowed request",
        Settings.auth_success_status,
        choices=("200", "202", "204"),
        is_extension=True,
    ),
    Option(
        "forbidden_session",
        "string",
        "keep",
        "action for a session that fails the email, group or role rules: keep (403), "
        "or clear the cookie and the stored session (auth endpoint: 401, as in "
        "oauth2-proxy)",
        Settings.forbidden_session,
        choices=("keep", "clear"),
        is_extension=True,
    ),
    Option(
        "skip_provider_button",
        "bool",
        False,
        "redirect to the provider without showing the sign-in page",
        Settings.skip_provider_button,
    ),
    Option(
        "encode_state",
        "bool",
        False,
        "encode the state parameter of the login as base64url",
        Settings.encode_state,
    ),
    Option(
        "restart_lost_logins",
        "bool",
        True,
        "restart a login once if its state expired, was already used or belongs to "
        "another host; false shows an error page, as in oauth2-proxy",
        Settings.restart_lost_logins,
        is_extension=True,
    ),
    Option(
        "force_json_errors",
        "bool",
        False,
        "respond with JSON instead of error pages",
        Settings.force_json_errors,
    ),
    Option(
        "clock_skew",
        "duration",
        30.0,
        "tolerated clock difference when validating the times of tokens",
        Settings.clock_skew,
        maximum=600.0,
        is_extension=True,
    ),
    Option(
        "api_routes",
        "list",
        (),
        "path patterns (regular expressions) of API requests, which get 401 JSON "
        "instead of the sign-in page",
        setting=AuthBypassSettings.api_routes,
        flag="api-route",
    ),
    Option(
        "hsts_max_age",
        "duration",
        0.0,
        "max-age of the Strict-Transport-Security header, such as 8760h, sent over "
        "HTTPS (also behind a trusted gateway); 0 disables it",
        Settings.hsts,
        is_extension=True,
    ),
    Option(
        "hsts_include_subdomains",
        "bool",
        False,
        "add includeSubDomains to Strict-Transport-Security; ignored without "
        "hsts_max_age",
        Settings.hsts,
        is_extension=True,
    ),
    Option(
        "access_rules_default",
        "string",
        "login",
        "policy for requests that no access rule matches ([[access_rules]] tables of "
        "the TOML file): login, as without rules, or deny",
        RuleSettings.default,
        choices=("login", "deny"),
        is_extension=True,
    ),
    Option(
        "skip_auth_routes",
        "list",
        (),
        "requests that bypass authentication: METHOD=REGEX, METHOD!=REGEX or REGEX",
        setting=AuthBypassSettings.skip_auth_routes,
        flag="skip-auth-route",
    ),
    Option(
        "skip_auth_regex",
        "list",
        (),
        "path patterns that bypass authentication for all methods; older form of "
        "skip_auth_routes",
        setting=AuthBypassSettings.skip_auth_regex,
    ),
    Option(
        "skip_auth_preflight",
        "bool",
        False,
        "bypass authentication for OPTIONS requests",
        setting=AuthBypassSettings.skip_auth_preflight,
    ),
    Option(
        "trusted_ips",
        "list",
        (),
        "client IP addresses and networks that bypass authentication",
        setting=AuthBypassSettings.trusted_ips,
        flag="trusted-ip",
    ),
    Option(
        "force_https",
        "bool",
        False,
        "redirect HTTP requests to HTTPS",
        setting=AuthBypassSettings.force_https,
    ),
    Option(
        "htpasswd_file",
        "string",
        "",
        "htpasswd file with the users of the sign-in form and of Basic "
        "authentication; bcrypt or {SHA} hashes",
        setting=CredentialSettings.users,
    ),
    Option(
        "htpasswd_user_groups",
        "list",
        (),
        "groups of all users of htpasswd_file",
        flag="htpasswd-user-group",
        note="ignored without htpasswd_file",
        setting=CredentialSettings.user_groups,
    ),
    Option(
        "skip_jwt_bearer_tokens",
        "bool",
        False,
        "accept JWTs of the provider and of extra_jwt_issuers as bearer tokens, "
        "without a session",
        setting=CredentialSettings.jwt_bearer_tokens,
    ),
    Option(
        "bearer_token_login_fallback",
        "bool",
        True,
        "treat a request with an invalid bearer token as one without a token; false "
        "rejects it with 403",
        note="ignored without skip_jwt_bearer_tokens",
        setting=CredentialSettings.bearer_login_fallback,
    ),
    Option(
        "extra_jwt_issuers",
        "list",
        (),
        "additional issuers of bearer JWTs, as ISSUER=AUDIENCE",
        note="ignored without skip_jwt_bearer_tokens",
        setting=CredentialSettings.jwt_issuers,
    ),
    Option(
        "bearer_authorized_parties",
        "list",
        (),
        "clients (azp claim) whose bearer JWTs are accepted in addition to client_id; "
        "* accepts any",
        setting=CredentialSettings.jwt_authorized_parties,
        flag="bearer-authorized-party",
        note="ignored without skip_jwt_bearer_tokens",
        is_extension=True,
    ),
    Option(
        "allow_query_semicolons",
        "bool",
        False,
        "treat semicolons in the query of proxy endpoints as ampersands",
        Settings.allow_query_semicolons,
    ),
    Option(
        "signature_key",
        "string",
        "",
        "sign upstream requests (Gap-Signature) with this key, as ALGORITHM:KEY; "
        "empty disables signing",
        Settings.signature_key,
        note="with it, request bodies over 1 MiB are rejected with 413",
        secret=True,
    ),
    Option(
        "gcp_healthchecks",
        "bool",
        False,
        "respond to /liveness_check and /readiness_check; respond to ping_path only "
        "for ping_user_agent and the health checks of Google's load balancers",
        Settings.gcp_healthchecks,
    ),
)

COOKIE_OPTIONS = in_group(
    "Cookies",
    Option(
        "cookie_name",
        "string",
        "_oauth2_proxy",
        "name of the session cookie",
        CookieSettings.name,
    ),
    Option(
        "cookie_secret",
        "string",
        "",
        "secret that seals cookies: 16, 24 or 32 bytes, raw or base64url",
        CookieSettings.secrets,
        secret=True,
    ),
    Option(
        "cookie_secret_file",
        "string",
        "",
        "file with the cookie secret, read byte for byte; ignored if cookie_secret is "
        "set",
        CookieSettings.secrets,
    ),
    Option(
        "cookie_secrets",
        "list",
        (),
        "key ring for rotation: the first secret seals, all secrets unseal; "
        "cookie_secret comes first",
        CookieSettings.secrets,
        secret=True,
        is_extension=True,
    ),
    Option(
        "cookie_secrets_files",
        "list",
        (),
        "files with more secrets of the key ring, one each, read byte for byte; "
        "placed after cookie_secret and cookie_secrets",
        CookieSettings.secrets,
        "cookie-secrets-file",
        is_extension=True,
    ),
    Option(
        "cookie_format",
        "string",
        "authproxy",
        "format of new session cookies",
        CookieSettings.format,
        choices=("authproxy", "oauth2-proxy"),
        is_extension=True,
    ),
    Option(
        "cookie_read_oauth2_proxy",
        "bool",
        True,
        "accept session cookies in the format of oauth2-proxy",
        CookieSettings.read_oauth2_proxy,
        is_extension=True,
    ),
    Option(
        "cookie_domains",
        "list",
        (),
        "Domain attributes of cookies; the longest domain that matches the host is "
        "used; empty: the host only",
        CookieSettings.domains,
        "cookie-domain",
    ),
    Option(
        "cookie_path", "string", "/", "Path attribute of cookies", CookieSettings.path
    ),
    Option(
        "cookie_expire",
        "duration",
        168 * 3600.0,
        "lifetime of a session and its cookie after the last refresh; 0: until the "
        "browser is closed, without an age limit",
        CookieSettings.expire,
    ),
    Option(
        "cookie_refresh",
        "duration",
        0.0,
        "age at which a session is refreshed; 0 disables it",
        CookieSettings.refresh,
    ),
    Option(
        "cookie_secure",
        "bool",
        True,
        "set the Secure attribute, so browsers send cookies over HTTPS only",
        CookieSettings.secure,
    ),
    Option(
        "cookie_httponly",
        "bool",
        True,
        "set the HttpOnly attribute, which hides cookies from scripts",
        CookieSettings.httponly,
    ),
    Option(
        "cookie_samesite",
        "string",
        "",
        "SameSite attribute of cookies; empty omits it",
        CookieSettings.samesite,
        choices=SAMESITE_CHOICES,
    ),
    Option(
        "cookie_csrf_per_request",
        "bool",
        False,
        "use a separate login-state cookie for each concurrent login, named after the "
        "state",
        CookieSettings.csrf_per_request,
    ),
    Option(
        "cookie_csrf_per_request_limit",
        "int",
        0,
        "maximum number of other login-state cookies; 0 or less: cookie_csrf_slots; "
        "ignored without cookie_csrf_per_request",
        CookieSettings.csrf_slots,
        minimum=None,
    ),
    Option(
        "cookie_csrf_slots",
        "int",
        8,
        "maximum number of concurrent logins in one browser",
        CookieSettings.csrf_slots,
        minimum=1,
        maximum=64,
        is_extension=True,
    ),
    Option(
        "cookie_csrf_expire",
        "duration",
        900.0,
        "time limit of a login; 0 means no limit",
        CookieSettings.csrf_expire,
    ),
    Option(
        "cookie_csrf_samesite",
        "string",
        "",
        "SameSite attribute of the login-state cookie; empty: cookie_samesite",
        CookieSettings.csrf_samesite,
        choices=SAMESITE_CHOICES,
    ),
)
