"""The settings of an `AuthProxy`, and `check` for problems between them.

Durations are seconds. No setting names a file: the caller passes contents.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from ..encoding import b64url_decode_lenient, is_host_name, is_token
from ..errors import SettingsError
from .auth_bypass import AuthBypassSettings, address_problems, auth_bypass_problems
from .credentials import CredentialSettings, credential_problems
from .providers import LoginParameter as LoginParameter
from .providers import ProviderSettings as ProviderSettings
from .providers import has_provider_choice, provider_problems
from .rules import Condition, RuleSettings, condition_problems, rule_problems
from .secret import Secret as Secret
from .validation import ValidatedStruct

Seconds: TypeAlias = Annotated[float, Meta(ge=0)]

# Fields that frame a message cannot carry claims.
FRAMING_HEADERS = frozenset(
    {"connection", "content-length", "host", "transfer-encoding", "upgrade", "te"}
)
# The names of the endpoints below proxy_prefix.
ENDPOINTS = frozenset(
    {
        "auth", "backchannel-logout", "callback", "forward_auth", "frontchannel-logout",
        "sign_in", "sign_out", "signed_out", "start", "static", "userinfo",
    }
)  # fmt: skip
FIRST_SEGMENT = re.compile(r"/([^/?#;]*)")
MIN_IDLE_TIMEOUT = 10.0  # seconds
SIGNATURE_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
UNIX_PEERS = "unix"  # entry of trusted_proxy_ips for peers on unix sockets
MAX_COOKIE_NAME_BYTES = 240  # bytes, so the names of cookie parts fit uncut


class CookieSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The session cookie and the login-state (CSRF) cookie.

    ``secrets``: the first one seals, all of them unseal. ``expire`` 0: a browser-session
    cookie whose age is not checked. ``max_parts`` limits the cookies that one session may
    be split into, ``csrf_slots`` the concurrent logins of one browser.
    """

    name: str = "_oauth2_proxy"
    secrets: tuple[Secret, ...] = ()
    domains: tuple[str, ...] = ()
    path: str = "/"
    expire: Seconds = 168 * 3600.0
    refresh: Seconds = 0.0
    secure: bool = True
    httponly: bool = True
    samesite: Literal["", "lax", "strict", "none"] = ""
    csrf_expire: Seconds = 900.0
    csrf_samesite: Literal["", "lax", "strict", "none"] = ""
    csrf_slots: Annotated[int, Meta(ge=1, le=64)] = 8
    csrf_per_request: bool = False
    format: Literal["authproxy", "oauth2-proxy"] = "authproxy"
    read_oauth2_proxy: bool = True
    max_parts: Annotated[int, Meta(ge=1, le=64)] = 10
    minimal: bool = False


class SessionSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Location and lifetime of sessions.

    ``backend`` "cookie": the sealed cookies contain the session; "store": they contain a
    ticket, and the driver's store the session. ``shared``: the driver has a store that
    all its processes use, for locks, refreshed sessions and revocations. ``revocable``:
    cookie sessions are checked against the revocations in that store. ``idle_timeout``
    ends a session without requests, ``max_lifetime`` counts from the login; 0 disables
    either. ``refresh_before``: seconds before the access token's expiry at which a
    session is refreshed.
    """

    backend: Literal["cookie", "store"] = "cookie"
    shared: bool = False
    revocable: bool = False
    idle_timeout: Seconds = 0.0
    max_lifetime: Seconds = 0.0
    refresh_before: Seconds = 0.0

    @property
    def needs_store(self) -> bool:
        """Whether every session check needs the store."""
        return self.backend == "store" or self.revocable


class ClaimSource(ValidatedStruct, frozen=True):
    """A header value from a claim of the session, with an optional prefix.

    With ``basic_auth_password``, the value is ``Basic base64(claim:password)`` instead.
    """

    claim: str
    prefix: str = ""
    basic_auth_password: Secret | None = None


class HeaderRule(ValidatedStruct, frozen=True):
    """A header to inject; ``preserve_request_value`` keeps the client's value.

    ``values`` are claims or fixed secrets. With ``strip_exactly``, a client's header
    whose name folds to this one (``_`` for ``-``) is kept, which is insecure.
    """

    name: str
    values: tuple[ClaimSource | Secret, ...]
    preserve_request_value: bool = False
    strip_exactly: bool = False


class UpstreamSettings(ValidatedStruct, frozen=True, kw_only=True):
    """An upstream; a ``path`` that ends in a slash matches as a prefix.

    ``uri`` is http, https, h2c (HTTP/2 without TLS), h2 (HTTP/2 with TLS), unix or file.
    With ``static_code``, authproxy returns that status and contacts no upstream.
    ``rewrite_target`` makes ``path`` a regular expression in Go's syntax; it is the
    template (``$1``) of the replacement.

    ``timeout`` limits the wait for the head of a response, 0: no limit.
    ``ca_pem`` contains trusted CA certificates (PEM text);
    ``trust_system`` also trusts those of the system. ``server_name`` replaces the host
    of the URI in TLS (SNI and certificate). A request that does not match ``condition``
    goes to the next upstream.
    """

    id: str
    path: str = "/"
    uri: str = ""
    rewrite_target: str = ""
    static_code: Annotated[int, Meta(ge=200, le=599)] | None = None
    pass_host_header: bool = True
    proxy_websockets: bool = True
    insecure_skip_tls_verify: bool = False
    ca_pem: str = ""
    trust_system: bool = True
    server_name: str = ""
    timeout: Seconds = 30.0
    disable_keep_alives: bool = False
    condition: Condition = Condition()


class PageSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Texts of the pages; templates are in the language of Go's html/template.

    ``banner`` and ``footer`` are HTML; "-" omits them.
    """

    sign_in_template: str = ""
    error_template: str = ""
    signed_out_template: str = ""
    robots: str = ""
    banner: str = ""
    footer: str = ""
    logo: str = ""
    show_debug_on_error: bool = False


class LogoutSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Logout at the provider, and logout that the provider initiates.

    ``at_provider``: signing out redirects to the provider's logout (RP-Initiated Logout).
    ``back_channel`` and ``front_channel``: a logout at the provider ends the session.
    ``revokes_tokens``: signing out revokes the refresh token (RFC 7009).
    ``shows_page``: signing out without a redirect target ends at the signed-out page.
    """

    at_provider: bool = False
    shows_page: bool = False
    revokes_tokens: bool = False
    back_channel: bool = False
    front_channel: bool = False


class Settings(ValidatedStruct, frozen=True, kw_only=True):
    """All settings of an `AuthProxy`.

    ``trusted_proxies`` are addresses, networks or "unix", whose X-Forwarded-* fields count if
    ``reverse_proxy`` is on; empty means loopback and private addresses.
    ``proxy_raw_path`` matches upstreams by the path as received, without decoding.
    ``websocket_origins`` are additional origins whose pages may open WebSockets with a
    session; "*" allows any. ``strip_identity_headers`` removes client headers that an
    upstream may take for the user's identity. ``via`` is the pseudonym in Via fields.
    ``follow_symlinks`` allows symlinks to leave the root directory of an upstream.
    ``signature_key`` (``algorithm:key``) signs forwarded requests.
    ``restart_lost_logins``: a callback without its login state restarts the login, once.
    ``forbidden_session`` "clear" ends a session that is not authorized.
    ``allow_query_semicolons`` treats ``;`` as ``&`` in queries of proxy endpoints.
    ``clock_skew`` is the leeway (seconds) for times in tokens, ``session_cache_bytes``
    limits the cache of unsealed sessions. ``hsts`` is the value of
    Strict-Transport-Security, "" omits the field.
    """

    cookie: CookieSettings = CookieSettings()
    sessions: SessionSettings = SessionSettings()
    logout: LogoutSettings = LogoutSettings()
    auth_bypass: AuthBypassSettings = AuthBypassSettings()
    access: RuleSettings = RuleSettings()
    hsts: str = ""
    credentials: CredentialSettings = CredentialSettings()
    providers: tuple[ProviderSettings, ...] = ()
    proxy_prefix: str = "/oauth2"
    redirect_url: str = ""
    relative_redirect_url: bool = False
    whitelist_domains: tuple[str, ...] = ()
    email_domains: tuple[str, ...] = ()
    authenticated_emails: frozenset[str] | None = None
    reverse_proxy: bool = False
    trusted_proxies: tuple[str, ...] = ()
    real_client_ip_header: str = "x-real-ip"
    skip_provider_button: bool = False
    encode_state: bool = False
    restart_lost_logins: bool = True
    force_json_errors: bool = False
    ping_path: str = "/ping"
    ping_user_agent: str = ""
    gcp_healthchecks: bool = False
    allow_query_semicolons: bool = False
    ready_path: str = "/ready"
    auth_success_status: Literal[200, 202, 204] = 202
    forbidden_session: Literal["keep", "clear"] = "keep"
    inject_request_headers: tuple[HeaderRule, ...] = ()
    inject_response_headers: tuple[HeaderRule, ...] = ()
    upstreams: tuple[UpstreamSettings, ...] = ()
    proxy_raw_path: bool = False
    websocket_origins: tuple[str, ...] = ()
    strip_identity_headers: bool = True
    via: str = ""
    signature_key: Secret = Secret(b"")
    follow_symlinks: bool = False
    pages: PageSettings = PageSettings()
    clock_skew: Seconds = 30.0
    session_cache_bytes: Annotated[int, Meta(ge=0)] = 16 << 20
    version: str = ""


def check(settings: Settings) -> None:
    """Raise `SettingsError` with all problems of *settings*, if there are any.

    Each problem is one line: option, value, expectation. It contains no secret.
    """
    problems = (
        *_cookie_problems(settings.cookie),
        *_session_problems(settings),
        *_provider_problems(settings),
        *_address_problems(settings),
        *_header_problems(settings),
        *auth_bypass_problems(settings.auth_bypass),
        *rule_problems(settings.access),
        *_condition_problems(settings.upstreams),
        *_signature_problems(settings.signature_key),
        *credential_problems(
            settings.credentials, tuple(one.id for one in settings.providers)
        ),
    )
    if problems:
        raise SettingsError(tuple(problems))


def _signature_problems(key: Secret) -> list[str]:
    algorithm, colon, secret = key.value.partition(b":")
    known = algorithm.decode("latin-1") in SIGNATURE_ALGORITHMS
    if not key or (known and colon and secret and b":" not in secret):
        return []
    names = ", ".join(SIGNATURE_ALGORITHMS)
    return [
        f"signature_key: got a secret (not shown), expected ALGORITHM:KEY with one of "
        f"{names} and a key without ':'"
    ]


def _condition_problems(upstreams: tuple[UpstreamSettings, ...]) -> list[str]:
    return [
        f"upstreams: {upstream.id!r}: {text}"
        for upstream in upstreams
        for text in condition_problems(upstream.condition)
    ]


def _cookie_problems(cookie: CookieSettings) -> list[str]:
    problems = []
    if not cookie.secrets:
        problems.append(
            "cookie_secret: missing; expected a random secret of 16, 24 or 32 bytes, "
            "raw or base64url encoded"
        )
    for number, secret in enumerate(cookie.secrets):
        size = len(aes_key(secret))
        if size not in (16, 24, 32):
            key = "cookie_secrets" if number else "cookie_secret"
            problems.append(
                f"{key}: got {size} bytes, expected 16, 24 or 32 (raw, or "
                "base64url encoded)"
            )
    if cookie.expire and cookie.refresh >= cookie.expire:
        problems.append(
            f"cookie_refresh: got {cookie.refresh:g}s, expected less than "
            f"cookie_expire ({cookie.expire:g}s)"
        )
    if not is_token(cookie.name.encode()) or len(cookie.name) > MAX_COOKIE_NAME_BYTES:
        problems.append(
            f"cookie_name: got {cookie.name!r}, expected a cookie name (RFC 6265 "
            f"token) of at most {MAX_COOKIE_NAME_BYTES} bytes"
        )
    problems += [
        f"cookie_domains: got {domain!r}, expected a domain such as example.com"
        for domain in cookie.domains
        # Underscores are not allowed in DNS, but browsers accept them.
        if not is_host_name(domain.removeprefix(".").replace("_", "x"))
    ]
    if not cookie.path.startswith("/") or set(cookie.path) & set(";\r\n\0"):
        problems.append(
            f"cookie_path: got {cookie.path!r}, expected a path such as '/'"
        )
    if cookie.samesite == "none" and not cookie.secure:
        problems.append(
            "cookie_samesite: 'none' requires cookie_secure; browsers reject it otherwise"
        )
    return problems


def _session_problems(settings: Settings) -> list[str]:
    cookie, life = settings.cookie, settings.sessions
    problems = []
    in_cookies = life.backend == "cookie"
    if cookie.minimal and in_cookies:
        problems += [
            f"session_cookie_minimal: can't be used with {option}, which needs the "
            "refresh token in the session"
            for option, used in (
                ("cookie_refresh", cookie.refresh),
                ("session_refresh_before", life.refresh_before),
            )
            if used
        ]
    if 0 < life.idle_timeout < MIN_IDLE_TIMEOUT:
        problems.append(
            f"session_idle_timeout: got {life.idle_timeout:g}s, expected at least "
            f"{MIN_IDLE_TIMEOUT:g}s, or 0 for never"
        )
    if cookie.format == "oauth2-proxy":
        # The format has no fields for the time of the login and of the last use.
        problems += [
            f"{option}: can't be used with cookie_format 'oauth2-proxy', whose sessions "
            f"do not contain {what}"
            for option, used, what in (
                ("session_max_lifetime", life.max_lifetime, "the time of the login"),
                ("session_idle_timeout", life.idle_timeout, "the time of the last use"),
            )
            if used
        ]
    if life.revocable and not life.shared:
        problems.append(
            "session_revocation: requires a store; set shared_state or session_store_type"
        )
    if settings.logout.back_channel and not life.needs_store:
        problems.append(
            "backchannel_logout: can't end cookie sessions; set session_revocation, or "
            "session_store_type to redis or sqlite"
        )
    return problems


def aes_key(secret: Secret) -> bytes:
    """Return the AES key that oauth2-proxy derives from a cookie secret.

    If the secret is base64url of a valid key size (padding optional), the decoded bytes
    are the key, else the secret itself is. The caller checks its size.
    """
    decoded = b64url_decode_lenient(secret.value)
    if decoded is not None and len(decoded) in (16, 24, 32):
        return decoded
    return secret.value


def _provider_problems(settings: Settings) -> list[str]:
    problems = provider_problems(settings.providers)
    if settings.skip_provider_button and has_provider_choice(settings.providers):
        problems.append(
            "skip_provider_button: can't be used with more than one provider"
        )
    if len(settings.providers) > 1 and settings.cookie.format == "oauth2-proxy":
        problems.append(
            "cookie_format: 'oauth2-proxy' can't be used with more than one provider; "
            "its cookies do not contain the provider"
        )
    problems += [
        f"email_domains: got {domain!r}, expected '*.DOMAIN' for all subdomains"
        for domain in settings.email_domains
        # Without the dot, it would match in the middle of a label.
        if domain[:1] == "*" and domain[1:2] not in ("", ".")
    ]
    if not all(settings.email_domains):
        problems.append(
            "email_domains: got an empty entry; remove it or a surplus comma"
        )
    if (
        not settings.email_domains
        and settings.authenticated_emails is None
        and settings.credentials.users is None
    ):
        problems.append(
            "email_domains: missing; expected email domains, '*' for any, or "
            "authenticated_emails_file or htpasswd_file"
        )
    return problems


def _address_problems(settings: Settings) -> list[str]:
    proxies = [entry for entry in settings.trusted_proxies if entry != UNIX_PEERS]
    problems = [*address_problems("trusted_proxy_ips", proxies)]
    prefix = settings.proxy_prefix
    problems += [
        f"{option}: got {path!r}, expected a path outside of proxy_prefix {prefix!r}"
        for option, path in (
            ("ping_path", settings.ping_path),
            ("ready_path", settings.ready_path),
        )
        if is_proxy_endpoint(prefix, path)
    ]
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        text = f"/{prefix.strip('/')}"
        problems.append(
            f"proxy_prefix: got {prefix!r}, expected a path such as {text!r}"
        )
    return problems


def is_proxy_endpoint(prefix: str, path: str) -> bool:
    """Return whether *path* is below *prefix*, or an endpoint if that is empty."""
    if prefix:
        return path.startswith(f"{prefix}/")
    match = FIRST_SEGMENT.match(path)
    return match is not None and match[1] in ENDPOINTS


def _header_problems(settings: Settings) -> list[str]:
    problems = []
    for option, rules in (
        ("injectRequestHeaders", settings.inject_request_headers),
        ("injectResponseHeaders", settings.inject_response_headers),
    ):
        names = [rule.name.lower() for rule in rules]
        problems += [
            f"{option}: the header {name!r} is a duplicate"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        problems += [
            f"{option}: the header {rule.name!r} can't be injected; expected a field name "
            "that does not affect the framing"
            for rule in rules
            if rule.name.lower() in FRAMING_HEADERS or not is_token(rule.name.encode())
        ]
        if settings.cookie.minimal and settings.sessions.backend == "cookie":
            problems += [
                f"session_cookie_minimal: can't be used with {option}, which needs "
                f"{value.claim}"
                for rule in rules
                for value in rule.values
                if isinstance(value, ClaimSource)
                and value.claim in ("access_token", "id_token", "refresh_token")
            ]
    return problems
