"""The configurations with which both programs are compared.

Each changes only the options in its name, so a differing response points to them.
Placeholders: ``{echo}`` is the port of an application that echoes its requests,
``{folder}`` the directory of the configuration's files, ``{port}`` the listener's port,
``{issuer}`` the provider's URL, ``{redis}`` the URL of a Redis server, ``{cert}`` and
``{key}`` the TLS files, ``{tls}`` a second port.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import special_cases
from .cases import CASES, HOST, Case

OTHER_HOST = "other.example.com"
CALLBACK_HOSTS = (HOST, OTHER_HOST, "login.example.com")
UPSTREAM = "http://127.0.0.1:{echo}/"
BASE: dict[str, Any] = {
    "provider": "oidc",
    "email_domains": ["*"],
    "upstreams": [UPSTREAM],
}
# The passwords are "secret", hashed with SHA-1 and with bcrypt.
HTPASSWD = """\
carol:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=
dave:$2b$04$BMfNELkBhYdI9d/Fi1xTMOlFNsyScCLgF3Fj2zeYQUmZ9j53gMul2
"""
SIGN_IN = """\
<!DOCTYPE html><p>{{.ProviderName}}|{{.StatusCode}}|{{.CustomLogin}}|{{.Redirect}}|\
{{.ProxyPrefix}}|{{.SignInMessage}}|{{.Footer}}|{{ToUpper .ProviderName}}</p>
<a href="{{.ProxyPrefix}}/start?rd={{.Redirect}}" title="{{.Redirect}}">in</a>
<script>var rd = {{.Redirect}};</script>
"""
ERROR = """\
<!DOCTYPE html><title>{{.StatusCode}} {{.Title}}</title>
<p>{{if .Redirect}}<a href="{{.Redirect}}">{{.Redirect}}</a>{{end}}|{{.ProxyPrefix}}|\
{{.Footer}}</p>
"""


@dataclass(frozen=True)
class Configuration:
    """Options, files and environment of both programs, and the user who logs in.

    ``alpha`` is the text of an alpha configuration; it replaces the provider and
    upstream options of `BASE`. ``user`` logs in at ``host``. ``whole`` compares the text
    of pages, because the templates belong to the configuration. ``extensions`` are
    options that oauth2-proxy does not have. ``flags`` and ``environment`` are added to
    the file. ``relaxed`` are options for the login if the configuration itself would
    deny it. ``cases`` are the requests that both programs receive.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    alpha: str = ""
    user: str = "alice"
    host: str = HOST
    whole: bool = False
    relaxed: dict[str, Any] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    cases: tuple[Case, ...] = CASES
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The path prefix of the proxy endpoints."""
        return str(self.options.get("proxy_prefix", "/oauth2"))

    @property
    def cookie(self) -> str:
        """The name of the session cookie."""
        return str(self.options.get("cookie_name", "_oauth2_proxy"))

    def values(self, *, extended: bool) -> dict[str, Any]:
        """Return the options of the file; *extended* includes authproxy's extensions."""
        base = {"email_domains": ["*"]} if self.alpha else BASE
        skipped = () if extended else self.extensions
        return {
            key: value
            for key, value in {**base, **self.options}.items()
            if key not in skipped
        }


def _alpha(more: str = "", upstreams: str = "") -> str:
    default = "[{id: app, path: /, uri: 'http://127.0.0.1:{echo}'}]"
    return (
        f"""
server: {{bindAddress: '127.0.0.1:{{port}}'}}
providers:
- id: demo
  provider: oidc
  clientID: oauth2-proxy
  clientSecret: ${{OAUTH2_PROXY_CLIENT_SECRET}}
  oidcConfig:
    issuerURL: {{issuer}}
    insecureSkipNonce: false
    audienceClaims: [aud]
    emailClaim: email
    groupsClaim: groups
upstreamConfig:
  upstreams: {upstreams or default}
"""
        + more
    )


CONFIGURATIONS: tuple[Configuration, ...] = (
    Configuration("defaults"),
    Configuration(
        "reference deployment",
        {
            "reverse_proxy": True,
            "provider": "keycloak-oidc",
            "provider_display_name": "Keycloak",
            "set_xauthrequest": True,
            "set_authorization_header": True,
            "ssl_insecure_skip_verify": True,
            "insecure_oidc_allow_unverified_email": True,
            "code_challenge_method": "S256",
            "upstreams": "file:///dev/null",
        },
    ),
    Configuration("set_xauthrequest", {"set_xauthrequest": True}),
    Configuration(
        "tokens in headers",
        {
            "set_xauthrequest": True,
            "pass_access_token": True,
            "set_authorization_header": True,
            "pass_authorization_header": True,
            "cookie_samesite": "lax",
        },
    ),
    Configuration(
        "basic credentials in headers",
        {
            "basic_auth_password": "pass:word",
            "set_basic_auth": True,
            "set_xauthrequest": True,
        },
    ),
    Configuration(
        "prefer_email_to_user",
        {
            "prefer_email_to_user": True,
            "set_xauthrequest": True,
            "basic_auth_password": "p",
        },
    ),
    Configuration(
        "no identity upstream",
        {"pass_user_headers": False, "pass_basic_auth": False},
    ),
    Configuration("client headers not stripped", {"skip_auth_strip_headers": False}),
    Configuration(
        "skip_auth_routes",
        {
            "skip_auth_routes": [
                "GET=^/public/",
                "^/open$",
                "POST!=^/api/",
                "DELETE=/gone",
            ],
            "set_xauthrequest": True,
        },
    ),
    Configuration("skip_auth_regex", {"skip_auth_regex": ["^/public", "/deep"]}),
    Configuration("skip_auth_preflight", {"skip_auth_preflight": True}),
    Configuration("trusted_ips", {"trusted_ips": ["127.0.0.0/8", "10.1.2.3"]}),
    Configuration(
        "trusted_ips behind a proxy",
        {
            "trusted_ips": ["203.0.113.0/24"],
            "reverse_proxy": True,
            "real_client_ip_header": "X-Forwarded-For",
        },
    ),
    Configuration(
        "skip_auth_routes behind a proxy",
        {
            "skip_auth_routes": ["^/public/"],
            "reverse_proxy": True,
            "trusted_proxy_ips": ["127.0.0.1"],
        },
        cases=special_cases.BYPASS_CASES,
    ),
    Configuration(
        "negated skip_auth_routes",
        {
            "skip_auth_routes": ["GET!=^/admin"],
            "reverse_proxy": True,
            "trusted_proxy_ips": ["127.0.0.1"],
        },
        cases=special_cases.BYPASS_CASES,
    ),
    Configuration(
        "trusted_ips behind two proxies",
        {
            "trusted_ips": ["10.9.9.9"],
            "reverse_proxy": True,
            "real_client_ip_header": "X-Forwarded-For",
            "trusted_proxy_ips": ["127.0.0.1", "192.0.2.0/24"],
        },
        cases=special_cases.ADDRESS_CASES,
    ),
    Configuration(
        "trusted_ips with the proxy's address",
        {
            "trusted_ips": ["10.9.9.9", "127.0.0.1"],
            "reverse_proxy": True,
            "trusted_proxy_ips": ["127.0.0.1"],
        },
        cases=special_cases.SINGLE_ADDRESS_CASES,
    ),
    Configuration(
        "trusted_ips of an untrusted peer",
        {
            "trusted_ips": ["10.9.9.9"],
            "reverse_proxy": True,
            "real_client_ip_header": "X-Forwarded-For",
            "trusted_proxy_ips": ["192.0.2.0/24"],
        },
        cases=special_cases.ADDRESS_CASES,
    ),
    Configuration(
        "two cookie domains",
        {"cookie_domains": [".example.com", ".other.net"]},
        cases=special_cases.HOST_CASES,
    ),
    Configuration(
        "an upstream path with a slash",
        {"upstreams": ["http://127.0.0.1:{echo}/api/"]},
        cases=special_cases.SLASH_CASES,
    ),
    Configuration("api_routes", {"api_routes": ["^/api/", r"\?x=1$"]}),
    Configuration("force_json_errors", {"force_json_errors": True}),
    Configuration("reverse_proxy", {"reverse_proxy": True, "set_xauthrequest": True}),
    Configuration(
        "reverse_proxy with trusted_proxy_ips",
        {"reverse_proxy": True, "trusted_proxy_ips": ["127.0.0.1"]},
    ),
    Configuration(
        "reverse_proxy with other trusted_proxy_ips",
        {"reverse_proxy": True, "trusted_proxy_ips": ["10.0.0.0/8"]},
    ),
    Configuration("proxy_prefix", {"proxy_prefix": "/login/at"}),
    Configuration(
        "cookie attributes",
        {
            "cookie_name": "__Host-session",
            "cookie_samesite": "strict",
            "cookie_expire": "1h",
            "cookie_csrf_expire": "5m",
            "cookie_csrf_samesite": "none",
        },
    ),
    Configuration(
        "cookie domains and path",
        {
            "cookie_domains": [".example.com", "app.example.com", "other.org"],
            "cookie_path": "/",
            "cookie_secure": False,
            "cookie_httponly": False,
        },
    ),
    Configuration("session-only cookies", {"cookie_expire": "0s"}),
    Configuration("minimal cookies", {"session_cookie_minimal": True}),
    Configuration("csrf per request", {"cookie_csrf_per_request": True}),
    Configuration(
        "csrf per request, limited",
        {"cookie_csrf_per_request": True, "cookie_csrf_per_request_limit": 2},
    ),
    Configuration(
        "whitelist_domains",
        {"whitelist_domains": [".example.org", "evil.example:8443", "*.wild.test:*"]},
    ),
    Configuration("skip_provider_button", {"skip_provider_button": True}),
    Configuration(
        "htpasswd",
        {
            "htpasswd_file": "{folder}/htpasswd",
            "htpasswd_user_groups": ["local", "staff"],
            "set_xauthrequest": True,
        },
        {"htpasswd": HTPASSWD},
    ),
    Configuration(
        "htpasswd without its form",
        {
            "htpasswd_file": "{folder}/htpasswd",
            "display_htpasswd_form": False,
            "prefer_email_to_user": True,
        },
        {"htpasswd": HTPASSWD},
    ),
    Configuration(
        "bearer tokens", {"skip_jwt_bearer_tokens": True, "set_xauthrequest": True}
    ),
    Configuration(
        "bearer tokens without fallback",
        {"skip_jwt_bearer_tokens": True, "bearer_token_login_fallback": False},
    ),
    Configuration("allowed_groups, member", {"allowed_groups": ["x", "staff"]}),
    Configuration(
        "allowed_groups, not a member",
        {"allowed_groups": ["admin"]},
        user="bob",
        relaxed={"allowed_groups": []},
    ),
    Configuration(
        "email domains",
        {"email_domains": ["example.org", ".example.com"]},
        relaxed={"email_domains": ["*"]},
    ),
    Configuration("email domain", {"email_domains": ["example.com"]}),
    Configuration(
        "authenticated_emails_file",
        {"authenticated_emails_file": "{folder}/emails", "email_domains": []},
        {"emails": "# users\nalice@example.com,x\nbob@example.com,y\n"},
    ),
    Configuration(
        "denied as JSON",
        {"force_json_errors": True, "allowed_groups": ["x"], "set_xauthrequest": True},
        relaxed={"allowed_groups": []},
    ),
    Configuration(
        "forbidden_session",
        {"allowed_groups": ["admin"], "forbidden_session": "clear"},
        user="bob",
        relaxed={"allowed_groups": []},
        extensions=("forbidden_session",),
    ),
    Configuration(
        "forbidden_session, in Redis",
        {
            "session_store_type": "redis",
            "redis_connection_url": "{redis}",
            "email_domains": ["example.org"],
            "forbidden_session": "clear",
        },
        relaxed={"email_domains": ["*"]},
        extensions=("forbidden_session",),
    ),
    Configuration(
        "sessions in Redis",
        {
            "session_store_type": "redis",
            "redis_connection_url": "{redis}",
            "set_xauthrequest": True,
            "pass_access_token": True,
        },
    ),
    Configuration(
        "custom templates",
        {
            "custom_templates_dir": "{folder}",
            "footer": "<b>f</b>",
            "banner": "<i>b</i>",
        },
        {"sign_in.html": SIGN_IN, "error.html": ERROR, "robots.txt": "User-agent: x\n"},
        whole=True,
    ),
    Configuration(
        "custom templates, one domain",
        {
            "custom_templates_dir": "{folder}",
            "footer": "-",
            "email_domains": ["example.com"],
            "provider_display_name": "Our <IdP>",
            "proxy_prefix": "/p",
        },
        {"sign_in.html": SIGN_IN, "error.html": ERROR},
        whole=True,
    ),
    Configuration(
        "custom templates, several domains",
        {
            "custom_templates_dir": "{folder}",
            "email_domains": ["example.com", "example.org"],
            "banner": "-",
            "footer": "-",
        },
        {"sign_in.html": SIGN_IN, "error.html": ERROR},
        whole=True,
    ),
    Configuration(
        "health checks",
        {"ping_path": "/alive", "ready_path": "/isready", "ping_user_agent": "probe/1"},
    ),
    Configuration("no health checks", {"ping_path": "", "ready_path": ""}),
    Configuration("gcp_healthchecks", {"gcp_healthchecks": True}),
    Configuration("encode_state", {"encode_state": True}),
    Configuration("relative_redirect_url", {"relative_redirect_url": True}),
    Configuration(
        "redirect_url", {"redirect_url": "https://app.example.com/oauth2/callback"}
    ),
    Configuration(
        "real_client_ip_header",
        {"reverse_proxy": True, "real_client_ip_header": "X-ProxyUser-IP"},
    ),
    Configuration(
        "security options as in oauth2-proxy",
        {
            "insecure_oidc_skip_nonce": True,
            "code_challenge_method": "S256",
            "strip_identity_headers": False,
            "pass_access_token": True,
            "set_xauthrequest": True,
        },
        extensions=("strip_identity_headers",),
    ),
    Configuration(
        "signed requests",
        {"signature_key": "sha1:key", "show_debug_on_error": True},
    ),
    Configuration(
        "https only",
        {"force_https": True, "reverse_proxy": True, "api_routes": ["^/api"]},
        alpha=_alpha(
            """
server:
  bindAddress: 127.0.0.1:{port}
  secureBindAddress: 127.0.0.1:{tls}
  tls: {cert: {fromFile: '{cert}'}, key: {fromFile: '{key}'}}
""",
        ).replace("server: {bindAddress: '127.0.0.1:{port}'}\n", "", 1),
    ),
    Configuration("allow_query_semicolons", {"allow_query_semicolons": True}),
    Configuration(
        "login parameters",
        {
            "prompt": "login",
            "acr_values": "1",
            "scope": "openid email",
            "auth_request_response_mode": "query",
            "code_challenge_method": "plain",
        },
    ),
    Configuration(
        "several upstreams",
        {
            "upstreams": [
                "http://127.0.0.1:{echo}/deep/",
                "http://127.0.0.1:{echo}/app",
                "file://{folder}/#/files/",
                "static://418",
            ],
            "pass_host_header": False,
        },
        {"a.txt": "a file\n", "index.html": "<!DOCTYPE html><p>index</p>\n"},
    ),
    Configuration("a static upstream", {"upstreams": ["static://202"]}),
    Configuration("no upstreams", {"upstreams": []}),
    Configuration("an unreachable upstream", {"upstreams": ["http://127.0.0.1:1/"]}),
    Configuration(
        "other claims",
        {
            "oidc_groups_claim": "realm_access.roles",
            "oidc_email_claim": "preferred_username",
            "set_xauthrequest": True,
        },
    ),
    Configuration(
        "variables and flags",
        {"set_xauthrequest": False, "cookie_name": "from_file"},
        flags=("--set-xauthrequest", "--email-domain=example.com,example.org"),
        environment={"OAUTH2_PROXY_FORCE_JSON_ERRORS": "true"},
    ),
    Configuration(
        "alpha headers",
        {"reverse_proxy": True},
        alpha=_alpha("""
injectRequestHeaders:
- {name: X-Forwarded-User, values: [{claimSource: {claim: user}}]}
- name: X-Mixed
  preserveRequestValue: true
  values:
  - claimSource: {claim: email, prefix: 'mail:'}
  - secretSource: {value: fixed}
- {name: x-GROUPS, values: [{claimSource: {claim: groups, prefix: 'g-'}}]}
- name: Authorization
  values: [{claimSource: {claim: email, basicAuthPassword: {value: p}}}]
injectResponseHeaders:
- {name: X-Static, values: [{secretSource: {value: a static secret}}]}
- {name: X-Auth-Request-Groups, values: [{claimSource: {claim: groups}}]}
- {name: X-Auth-Request-User, values: [{claimSource: {claim: preferred_username}},
                                       {claimSource: {claim: email}}]}
"""),
    ),
    Configuration(
        "alpha upstreams",
        alpha=_alpha(
            "injectRequestHeaders:\n"
            "- {name: X-Forwarded-Email, values: [{claimSource: {claim: email}}]}\n",
            """
  - {id: rewritten, path: '^/deep/?(.*)$', rewriteTarget: '/new/$1',
     uri: 'http://127.0.0.1:{echo}'}
  - {id: teapot, path: /app/, static: true, staticCode: 418}
  - {id: all, path: /, uri: 'http://127.0.0.1:{echo}', passHostHeader: false}
""",
        ),
    ),
)
