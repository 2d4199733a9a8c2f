"""Intended differences from oauth2-proxy, as a table that the tests check.

A row that the compared requests can show has a ``change`` of oauth2-proxy's response.
All changes together must result in authproxy's response, field by field. A missing row
fails the comparison, and so does a row without effect. Other rows name a test as proof.
``python -m peers.differences`` in ``tests/`` writes the table into docs/differences.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import changes, request_changes
from .changes import Change, Comparison
from .observed import Observed


@dataclass(frozen=True)
class Difference:
    """A row: the difference, its reason, and the options for oauth2-proxy's behavior.

    ``change`` returns the fields of oauth2-proxy's response that differ, and an empty
    dict if the row does not apply. A row without it has a ``proof``, FILE::FUNCTION.
    """

    what: str
    why: str
    instead: str = ""
    change: Callable[[Comparison], Change] | None = None
    proof: str = ""


SECURITY = "not available: it would weaken security"
BUG = "not available: bug in oauth2-proxy"
ADDITION = "not needed: what works with oauth2-proxy works unchanged"

# In this order: each change applies to the result of the previous ones.
DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "the nonce is sent and validated; PKCE with S256 is used if the provider "
        "offers it",
        "a stolen authorization code or ID token is useless (RFC 9700 §4.5)",
        '`insecure_oidc_skip_nonce = true`, `code_challenge_method = "none"`',
        change=changes.login_request,
    ),
    Difference(
        "authproxy's session and login cookies are not forwarded",
        "an upstream could use them to impersonate the user",
        SECURITY,
        change=changes.dropped_cookies,
    ),
    Difference(
        "request headers that can name a user are stripped from client requests, "
        "configured or not, in every spelling that folds to them",
        "upstreams trust `X-Forwarded-Email` even if authproxy does not send it",
        "`strip_identity_headers = false`",
        change=changes.identity_spoofs,
    ),
    Difference(
        "`X-Forwarded-Host` and `X-Forwarded-Proto` are always sent upstream; "
        "forwarded headers of untrusted peers are not forwarded",
        "upstreams can rely on them",
        "`trusted_proxy_ips` lists the trusted peers; otherwise not available: it "
        "would weaken security",
        change=changes.origin_headers,
    ),
    Difference(
        "identity headers are always sent upstream and to gateways, empty if the "
        "user has no such claim",
        "a gateway that copies headers would otherwise keep the client's value",
        SECURITY,
        change=changes.empty_identity,
    ),
    Difference(
        "the upstream's `Host` is that of a trusted `X-Forwarded-Host`",
        "the upstream builds its URLs from the host that the browser sees",
        "`pass_host_header = false` sends the upstream's host",
        change=changes.upstream_host,
    ),
    Difference(
        "a signed-in user without access gets 403 and keeps the session",
        "a gateway would start a redirect loop",
        '`forbidden_session = "clear"`',
        change=changes.kept_denied,
    ),
    Difference(
        "a constraint without a value (`allowed_groups=`) allows no user; a "
        "constraint after `;` applies",
        "an empty variable in a gateway's template would allow every user",
        SECURITY,
        change=changes.constraints,
    ),
    Difference(
        "the sign-in page does not end a valid session",
        "any site can make a browser open it",
        SECURITY,
        change=changes.kept_session,
    ),
    Difference(
        "sign-out clears the session cookie even if the request does not contain it",
        "the cookie's path or domain may exclude it from the request",
        BUG,
        change=changes.cleared_session,
    ),
    Difference(
        "`;` in a query is valid, and so is a malformed query of the application",
        "`;` is an ordinary character (WHATWG URL); the application parses its query",
        "`allow_query_semicolons = true` treats `;` as `&` in queries of the proxy "
        "endpoints",
        change=changes.semicolons,
    ),
    Difference(
        "a callback without a started login gets 403 and a malformed one 400, not 500",
        "it is a client error",
        BUG,
        change=changes.callback_statuses,
    ),
    Difference(
        "a WebSocket request without a session gets 401, not a page",
        "browsers do not show a page for it",
        BUG,
        change=changes.websocket,
    ),
    Difference(
        "redirect targets of logins and sign-outs are parsed as browsers parse "
        "them; URLs of the same origin and valid queries are kept",
        "open redirects, lost deep links",
        SECURITY,
        change=changes.redirect_targets,
    ),
    Difference(
        "`{id_token}` is replaced in configured URLs only, not in the `rd` of a "
        "sign-out",
        "any site could make the browser send it the token",
        "`sign_out_at_provider`, `backend_logout_url`",
        change=changes.placeholders,
    ),
    Difference(
        "`force_https` redirects to the path of a trusted `X-Forwarded-Uri`",
        "it is the path that the browser requested",
        BUG,
        change=changes.https_targets,
    ),
    Difference(
        "paths with `//` or `..` are redirected to their clean form only with a "
        "session, otherwise after the login",
        "access is decided for the path as received",
        BUG,
        change=changes.clean_paths,
    ),
    Difference(
        "the redirect to the clean path keeps `%2F`",
        "oauth2-proxy decodes it or escapes it twice (`%252F`)",
        BUG,
        change=changes.encoded_slashes,
    ),
    Difference(
        "the 401 of the auth endpoint is HTML with a link to the login, if the request "
        "accepts `text/html`",
        "some gateways show it in the browser",
        "`force_json_errors = true` leaves the text",
        change=changes.html_unauthorized,
    ),
    Difference(
        "the redirect to the clean path resolves `/a//../b` to `/a/b`",
        "`..` removes the segment before it, also an empty one, as in browsers (RFC 3986 "
        "§5.2.4); oauth2-proxy redirects to `/b`",
        BUG,
        proof="core/upstreams/test_routes.py::test_forward_unclean_path_redirects",
    ),
    Difference(
        "no bypass rule applies to an ambiguous path (`..`, `//`, `;`, an encoded "
        "separator …)",
        "the upstream may read another path than the one that was checked",
        SECURITY,
        change=request_changes.ambiguous_paths,
    ),
    Difference(
        "a target with `#`, and an `X-Forwarded-Uri` that is not a path, get 400",
        "gateways and applications read it differently",
        SECURITY,
        change=request_changes.malformed_targets,
    ),
    Difference(
        "each login has a cookie of its own (`NAME_<id>_csrf`), as with "
        "`cookie_csrf_per_request`",
        "logins in two tabs would end each other",
        '`cookie_format = "oauth2-proxy"` without `cookie_csrf_per_request`',
        change=request_changes.login_cookie_names,
    ),
    Difference(
        "TRACE, CONNECT and methods with lower-case letters are rejected (405, 400)",
        "TRACE shows cookies and tokens to scripts, CONNECT asks for a tunnel, and "
        "programs differ on whether `get` is GET",
        SECURITY,
        change=request_changes.methods,
    ),
    Difference(
        "upstreams are asked for a compressed response only if the client accepts it",
        "authproxy would have to decompress it; compression next to secrets reveals "
        "them (BREACH)",
        "clients send `Accept-Encoding: gzip`",
        change=request_changes.compression,
    ),
    Difference(
        "pages and other responses of authproxy have security headers (Content-Security-"
        "Policy, X-Frame-Options, X-Content-Type-Options, Referrer-Policy, Cross-Origin-"
        "Opener-Policy)",
        "clickjacking, content sniffing, codes in the Referer",
        SECURITY,
        change=request_changes.security_headers,
    ),
    Difference(
        "all redirects have a body with a link; oauth2-proxy omits it for some",
        "programs that do not follow redirects can show it (RFC 9110 §15.4)",
        ADDITION,
        change=request_changes.redirect_links,
    ),
    Difference(
        "`skip_auth_preflight` applies to CORS preflights (`Origin` and "
        "`Access-Control-Request-Method`), not to every OPTIONS request",
        "an upstream may give any answer to OPTIONS",
        SECURITY,
        change=changes.plain_options,
    ),
    Difference(
        "with a session store, a page clears the session cookie only if the request"
        " contains it",
        "there is nothing to clear",
        BUG,
        change=changes.unseen_cookies,
    ),
    Difference(
        "`{prefix}/static/` has only two stylesheets, with oauth2-proxy's names and"
        " classes",
        "authproxy's pages include their styles; templates written for oauth2-proxy"
        " stay readable",
        "serve oauth2-proxy's files at these paths in the gateway, or change the "
        "paths in the templates",
        change=changes.static,
    ),
    Difference(
        "pages have authproxy's texts, in the language of the browser",
        "they name the next step",
        "`banner`, custom templates",
        change=changes.sentences,
    ),
    Difference(
        "authproxy's responses (401, 403, userinfo, JSON, robots.txt) have `Cache-"
        "Control: no-store`",
        "oauth2-proxy lets intermediaries cache them",
        SECURITY,
        change=changes.caching,
    ),
    Difference(
        "`X-Forwarded-*` and the real-client-IP header are trusted only from "
        "`trusted_proxy_ips`, by default loopback and private addresses; the client"
        " is the last untrusted hop",
        "any client could choose the checked URL and its address",
        'list the gateways in `trusted_proxy_ips`; `["0.0.0.0/0", "::/0"]` trusts '
        "all peers",
        proof="core/request/test_original.py::"
        "test_fh02_default_trusted_proxies_are_private",
    ),
    Difference(
        "`X-Real-IP` and other headers with one address must have exactly one; in "
        "`X-Forwarded-For`, `[10.9.9.9]` is an address, `10.9.9.9:abc` is not",
        "a client of a gateway that appends to the header could choose the address",
        SECURITY,
        change=request_changes.client_addresses,
    ),
    Difference(
        "`cookie_domains` are compared by labels and in any letter case; a host outside "
        "all of them gets a cookie without `Domain`",
        "`badexample.com` is not in `example.com`, and browsers reject cookies for other "
        "domains",
        SECURITY,
        change=request_changes.cookie_domains,
    ),
    Difference(
        "at an auth check without the original URI no `skip_auth_routes` rule applies, "
        "negated or not",
        "a rule about paths cannot judge an unknown path",
        SECURITY,
        proof="core/access/test_auth_bypass.py::"
        "test_auth_check_without_original_uri_matches_no_path_rule",
    ),
    Difference(
        "an empty pattern or domain, such as after a surplus comma, is an error at start",
        "it would allow every request",
        "`.*`",
        proof="core/access/test_auth_bypass.py::test_bypass_empty_pattern_refused",
    ),
    Difference(
        "an environment variable `OAUTH2_PROXY_*` of no option is an error at start",
        "a misspelled restriction would have no effect",
        "remove the variable",
        proof="server/config/test_sources.py::test_unknown_variable_is_error",
    ),
    Difference(
        "a misspelled constraint in the query of an auth check (`Allowed_Groups`) denies "
        "access",
        "the constraint would be ignored",
        SECURITY,
        proof="core/endpoints/test_forward_auth.py::"
        "test_auth_check_misspelled_constraint_denied",
    ),
    Difference(
        "a rewritten path with a `..` segment gets 400",
        "the path could leave the upstream's `rewriteTarget`",
        SECURITY,
        change=changes.rewritten_dots,
    ),
    Difference(
        "a gateway on a unix socket is trusted only if `trusted_proxy_ips` is empty or "
        "contains `unix`",
        "the list of trusted peers is complete",
        "add `unix` to `trusted_proxy_ips`",
        proof="core/request/test_original.py::"
        "test_unix_socket_peer_trusted_by_default_or_if_listed",
    ),
    Difference(
        "state is validated before the code is redeemed, `iss` is validated (RFC "
        "9207), and a login finishes only once",
        "login CSRF, mix-up attacks",
        SECURITY,
        proof="core/login/test_callback.py::"
        "test_lg02_callback_with_wrong_state_does_not_redeem",
    ),
    Difference(
        "`azp`, `at_hash`, `c_hash`, `iat` and `sub` of ID tokens and `sub` of userinfo are "
        "validated",
        "OpenID Connect Core",
        SECURITY,
        proof="core/login/test_id_token.py::"
        "test_jw16_to_jw37_lg29_invalid_claims_fail_login",
    ),
    Difference(
        "commas in group names are escaped as `%2C`; duplicate request headers are "
        "not joined with commas",
        "a group `a,b` would count as two groups (RFC 9110 §5.3)",
        SECURITY,
        proof="core/login/test_claims.py::test_hs11_comma_in_group_does_not_split_it",
    ),
    Difference(
        "rejected passwords and bearer tokens are answered with `WWW-Authenticate`",
        "clients learn what to send (RFC 9110 §11.6.1, RFC 6750 §3)",
        BUG,
        change=changes.challenges,
    ),
    Difference(
        "a request target in absolute-form or with raw UTF-8 is forwarded in "
        "percent-encoded origin-form; HTTP/1.0 without Host gets `Host: localhost`; "
        "`rewriteTarget` drops an empty query",
        "authproxy and upstreams see one form of the target",
        SECURITY,
        change=request_changes.request_lines,
    ),
    Difference(
        "`Authorization` and `Cookie` of header rules are left out of requests if they "
        "have no value",
        "upstreams take empty credentials for invalid ones",
        BUG,
        proof="core/identity/test_headers.py::test_header_empty_credentials_left_out_of_requests",
    ),
    Difference(
        "`allowed_roles` with another provider than `keycloak-oidc` is an error at start",
        "it is ignored, so the restriction that it names does not exist",
        "remove the option",
        proof="server/config/test_load.py::test_provider_options_invalid_rejected",
    ),
    Difference(
        "a URL, a port, `*.` or several domains in one entry of `cookie_domains` mean "
        "the domain in it",
        "such entries write cookies without `Domain`, or never match",
        "no `cookie_domains`: cookies for the host only",
        proof="server/config/test_load.py::test_cookie_domains_of_oauth2_proxy_accepted",
    ),
    Difference(
        "`keycloak-oidc`: roles that only the ID token has count too",
        "lightweight access tokens contain no roles",
        BUG,
        proof="core/login/test_claims.py::"
        "test_roles_of_access_token_completed_by_those_of_id_token",
    ),
    Difference(
        "groups named `role:…` are dropped for `keycloak-oidc`",
        "they would count as roles",
        SECURITY,
        proof="core/login/test_claims.py::test_az14_group_with_role_prefix_dropped",
    ),
    Difference(
        "groups named `project:…` are dropped for `gitlab`",
        "they would count as projects",
        SECURITY,
        proof="core/providers/test_gitlab.py::test_gitlab_login_reads_identity",
    ),
    Difference(
        "ID tokens of `google`, `azure` and `login.gov` are verified like all "
        "others; `google` also requests the scope `openid`",
        "oauth2-proxy does not verify Google's ID tokens and accepts Azure's access"
        " token as one",
        "`scope` sets the requested scopes",
        proof="core/providers/test_google.py::test_id_token_signature_verified",
    ),
    Difference(
        "`allowed_groups` applies to `gitlab`, `keycloak` and `google` if their "
        "specific option is not set",
        "oauth2-proxy ignores it and allows every user",
        SECURITY,
        proof="core/providers/test_gitlab.py::test_gitlab_group_restriction",
    ),
    Difference(
        "a custom `redeem_url` requires a `validate_url` and a `profile_url`",
        "the default URLs would receive the tokens of another server",
        "set all three URLs",
        proof="core/settings/test_providers.py::test_provider_problems_invalid_option_reported",
    ),
    Difference(
        "requested `acr_values`, `max_age` and `prompt=login` are compared with `acr` and "
        "`auth_time` of the ID token; a mismatch denies the login",
        "a provider may ignore them, and a weaker or older login would be accepted",
        "do not request them",
        proof="core/login/test_requested_authentication.py::"
        "test_acr_compared_with_configured_values",
    ),
    Difference(
        "`entra-id`: tokens whose `tid` and `iss` name different tenants are denied",
        "only one of the two can be the tenant that issued the token",
        SECURITY,
        proof="core/providers/test_microsoft.py::"
        "test_entra_tenant_is_tid_and_agrees_with_issuer",
    ),
    Difference(
        "`bitbucket_workspace` is searched in all pages of the user's workspaces",
        "members of many workspaces would be denied",
        BUG,
        proof="core/providers/test_bitbucket.py::test_bitbucket_workspace_restriction",
    ),
    Difference(
        "signed userinfo (`application/jwt`) is verified and used",
        "OpenID Connect Core §5.3.2 allows it; all logins would fail",
        BUG,
        proof="core/providers/test_userinfo.py::test_signed_userinfo_read",
    ),
    Difference(
        "failed logins that a client alone can cause (another login's code, no code, a "
        "wrong `iss` or nonce, an account without an email address) get 400 or 403 instead of 500",
        "they are not server errors, and would trigger alerts",
        BUG,
        proof="core/login/test_callback.py::test_callback_with_foreign_code_is_forbidden",
    ),
    Difference(
        "`iss` at `{prefix}/start` selects the provider; with it, `login_hint` and "
        "`target_link_uri` count, and an unknown issuer gets 400",
        "logins that a third party initiates (OpenID Connect Core §4)",
        ADDITION,
        proof="core/login/test_third_party.py::"
        "test_third_party_login_passes_hint_and_returns_to_target",
    ),
    Difference(
        "an `rd` to the sign-in page or the start endpoint counts as its own `rd`; other "
        "proxy endpoints than `auth` and `userinfo` are no target of a login",
        "the login would end in another login, or sign out",
        BUG,
        proof="core/login/test_redirects.py::"
        "test_or44_target_of_login_page_is_its_own_target",
    ),
    Difference(
        "while the provider's keys cannot be fetched, logins and bearer tokens get 503 "
        "with Retry-After instead of 500 and 401 or 403",
        "the token may be valid; gateways and clients can retry",
        BUG,
        proof="peers/test_scenes.py::test_login_and_bearer_with_late_keys",
    ),
    Difference(
        "a refresh whose ID token has another signing algorithm than the session's ID "
        "token ends the session: the user signs in again",
        "a provider may sign with weaker algorithms for other clients (OpenID Connect "
        "Core §12.2)",
        "`oidc_enabled_signing_algs` with the old and the new algorithm",
        proof="core/providers/test_token_types.py::"
        "test_refreshed_id_token_of_another_algorithm_ends_session",
    ),
    Difference(
        "logout tokens must have a signing algorithm of the sessions' ID tokens",
        "only the client's algorithm can be expected (Back-Channel Logout §2.6)",
        "`oidc_enabled_signing_algs` with all algorithms",
        proof="core/logout/test_logout.py::"
        "test_logout_token_of_another_algorithm_than_sessions_rejected",
    ),
    Difference(
        "ID, bearer and logout tokens are told apart by `typ`",
        "one kind of token must not replace another (RFC 8725 §3.11)",
        SECURITY,
        proof="core/providers/test_token_types.py::"
        "test_header_type_of_another_use_rejected",
    ),
    Difference(
        "an email claim that is a list, an object or a boolean denies the login",
        "its JSON text would be an address, the same one for several users",
        SECURITY,
        proof="core/login/test_claims.py::test_email_claim_of_other_type_rejected",
    ),
    Difference(
        "email addresses that `bitbucket`, `digitalocean` or `keycloak` report as "
        "unverified are denied",
        "any user can claim them",
        "`insecure_oidc_allow_unverified_email = true`",
        proof="core/providers/test_profiles.py::"
        "test_unverified_email_denied_unless_allowed",
    ),
    Difference(
        "membership of an organization, team, repository, project or directory "
        "group is checked at every refresh; if it cannot be read, access is denied",
        "former members would keep access until the session ends",
        SECURITY,
        proof="core/providers/test_github.py::test_refresh_after_leaving_organization_denied",
    ),
    Difference(
        "a callback whose login is lost (too old, finished in another tab, started "
        "on another host) restarts the login once; a login loop, also one of denied "
        "logins, ends at a page with the cause and status 429",
        "oauth2-proxy ends at an error page or in the browser's redirect limit",
        "`restart_lost_logins = false`",
        proof="core/login/test_loop_guard.py::test_lost_login_restarts_once",
    ),
    Difference(
        "a cookie may be from the future by a tenth of its lifetime, 5 to 65 minutes, "
        "not by 5 minutes",
        "a clock that was an hour ahead and is set back would end all sessions",
        ADDITION,
        proof="core/sessions/test_sealing.py::test_ck08_time_in_the_future_rejected",
    ),
    Difference(
        "of several session or login cookies of one name, the first valid one counts, "
        "and the newest one is refreshed; a login expires the others",
        "an old cookie without `Domain` would hide the new one in every request",
        BUG,
        proof="peers/test_scenes.py::test_twin_session_cookies_valid_one_counts",
    ),
    Difference(
        "redirect targets of up to 16 kB are kept; a longer one is answered with 414 "
        "and a page that says so",
        "the user would arrive at another page without notice",
        "not needed: a longer URL works after the login",
        change=request_changes.long_targets,
    ),
    Difference(
        "a forwarded request must match a bypass rule by its path and method, not "
        "only by `X-Forwarded-Uri`; rules without `^` cause a warning at start",
        "a gateway may keep the client's header",
        SECURITY,
        proof="core/access/test_auth_bypass.py::"
        "test_bypass_forwarded_request_must_match_by_its_own_target",
    ),
    Difference(
        "`trusted_ips` does not apply to a gateway that does not name its client; "
        "health paths and robots.txt apply only to direct requests",
        "the gateway's address is trusted, and it treats each 2xx as allowed",
        SECURITY,
        proof="core/access/test_auth_bypass.py::"
        "test_fh13_to_fh17_trusted_ips_match_client_address",
    ),
    Difference(
        "an argument that is neither a flag nor a command is an error; `true` after a "
        "switch is redundant",
        "a misspelled command, or `--cookie-secure false`, would start a server that "
        "was not intended",
        BUG,
        proof="server/config/test_sources.py::"
        "test_parse_flags_positional_argument_rejected_unshown",
    ),
    Difference(
        "bearer JWTs that were issued to another client (`azp`) are rejected",
        "the token is intended for another application",
        '`bearer_authorized_parties = ["*"]`',
        proof="core/access/test_credentials_bearer.py::"
        "test_bearer_authorized_parties_accepted",
    ),
    Difference(
        "`htpasswd_file`: failed attempts are limited, take the same time and get "
        "the same response for all users; the form is accepted only from the sign-"
        "in page; removing a user ends the session",
        "password guessing, login CSRF",
        SECURITY,
        proof="core/access/test_htpasswd.py::test_htpasswd_attempts_limited_per_client",
    ),
    Difference(
        "`created_at` and `expires_on` in headers are UTC in whole seconds, empty "
        "if unknown",
        "oauth2-proxy closes the connection if they are unknown",
        BUG,
        proof="core/identity/test_headers.py::test_header_time_formatted_like_go",
    ),
    Difference(
        "sessions have a format of authproxy's (AES-256-GCM), and stale cookie "
        "parts are cleared",
        "oauth2-proxy uses one key for encryption and signature and leaves stale parts",
        '`cookie_format = "oauth2-proxy"`; its cookies are always read unless '
        "`cookie_read_oauth2_proxy = false`",
        proof="core/sessions/test_oauth2_proxy_format.py::"
        "test_session_cookie_of_oauth2_proxy_read",
    ),
    Difference(
        "pages have a strict Content-Security-Policy; scripts of custom templates "
        "are permitted",
        "clickjacking, injected scripts",
        "custom templates for scripts and styles; otherwise not available: it would"
        " weaken security",
        proof="core/pages/test_pages.py::test_ou07_ou08_ou10_page_security_headers",
    ),
    Difference(
        "`/ready` returns 503 until the provider's metadata and keys are loaded; "
        "authproxy starts without them",
        "an unreachable provider must not prevent the start",
        BUG,
        proof="core/login/test_flow.py::test_start_before_discovery_shows_error_page",
    ),
    Difference(
        "`$1`, `$2` … in an alpha configuration file stay unchanged",
        "oauth2-proxy replaces each by `$1`",
        BUG,
        proof="server/config/test_alpha_read.py::test_substitute_variables_replaces_references",
    ),
    Difference(
        "`--convert-config-to-alpha` prints references to variables instead of secrets",
        "its output ends up in tickets and repositories",
        "set the named variable",
        proof="server/config/test_alpha_convert.py::test_convert_to_alpha_prints_no_secret",
    ),
    Difference(
        "`--config-test` reports all invalid options at once: "
        "`code_challenge_method`, `cookie_csrf_samesite`, provider types, log "
        "templates, TLS files, misspelled keys",
        "oauth2-proxy fails at the first request or ignores them",
        BUG,
        proof="server/config/test_load.py::test_load_settings_reports_problem_once",
    ),
    Difference(
        "a WebSocket that a page of another site opens with the user's session gets 403",
        "the same-origin policy does not apply to WebSockets (RFC 6455 §10.2)",
        '`websocket_origins = ["*"]`',
        proof="core/upstreams/test_upgrades.py::test_upgrade_from_other_origin_denied",
    ),
    Difference(
        "a WebSocket is closed within a minute after its session expired or was revoked",
        "it would outlive the session without limit",
        '`upgrade_check_interval = "0s"`',
        proof="server/net/test_tunnel.py::test_tunnel_session_revoked_is_closed",
    ),
    Difference(
        "`proxy_websockets = false` disables upgrades; `h2c` is never forwarded",
        "oauth2-proxy forwards upgrades even then; requests inside `h2c` would not "
        "be checked",
        "`proxy_websockets = true`",
        proof="core/upstreams/test_upgrades.py::test_forward_rejected_upgrade_omits_it",
    ),
    Difference(
        "upstream responses with both Content-Length and Transfer-Encoding, a folded "
        "framing field or one with a space before the colon, Transfer-Encoding in "
        "HTTP/1.0, or HTTP/2.0 in the status line get 502; a connection whose response "
        "had to be normalized is not used again",
        "other readers of the same bytes see another end of the response (RFC 9112 "
        "§11.1)",
        SECURITY,
        proof="peers/test_upstream_heads.py::"
        "test_ambiguous_upstream_response_rejected_by_authproxy_only",
    ),
    Difference(
        "static files: symlinks that leave the root directory are not followed; a "
        "file with an unknown extension is sent as text or bytes, never as HTML",
        "users who can write files could read others or run scripts in the site's "
        "origin",
        "`file_follow_symlinks = true`",
        proof="server/static/test_static_files.py::test_static_missing_or_outside_root_rejected",
    ),
    Difference(
        "the auth log has a line for each failed login, not for the Basic credentials of "
        "each allowed request; the request line of a callback names the user; messages "
        "have authproxy's texts",
        "alerts and fail2ban see all failures",
        'log templates, or `logging_format = "json"` with fixed reason codes',
        proof="peers/test_logs.py::test_log_templates_with_conditions_and_functions",
    ),
    Difference(
        "expired bearer tokens are accepted for 30 s (`clock_skew`)",
        "the clocks of two machines differ; ID tokens have the same leeway",
        '`clock_skew = "0s"`',
        proof="peers/test_scenes.py::test_bearer_expired_within_clock_skew_accepted",
    ),
    Difference(
        "if the session store is unavailable, requests with a session, logins, sign-outs "
        "and `/ready` get 503 with Retry-After, and no cookie is cleared",
        "oauth2-proxy answers 401 or 500 and clears the cookie, so all users are signed "
        "out",
        BUG,
        proof="peers/test_scenes.py::test_redis_with_restricted_user_fails_and_recovers",
    ),
    Difference(
        "a Redis user without all permissions (other keys, scripts, sets) works with "
        "fewer features, which the log names at start",
        "single-use logins across instances, the index of a user's sessions and locks "
        "need more commands than oauth2-proxy's",
        "grant the permissions in `docs/sessions.md`",
        proof="server/stores/test_server.py::"
        "test_redis_user_restricted_as_for_oauth2_proxy",
    ),
)


def apply_differences(comparison: Comparison) -> tuple[Observed, set[str]]:
    """Return the expected response of authproxy and the rows that changed it."""
    used = set()
    response = comparison.expected
    for row in DIFFERENCES:
        if row.change is None:
            continue
        change = row.change(replace(comparison, expected=response))
        changed = replace(response, **change)
        if changed != response:
            used.add(row.what)
        response = changed
    return response, used


BEGIN, END = "<!-- differences: begin -->", "<!-- differences: end -->"


def table() -> str:
    """Return the table as Markdown, between the marks in docs/differences.md."""
    rows = [f"| {row.what} | {row.why} | {row.instead} |" for row in DIFFERENCES]
    head = [
        "| Difference | Reason | For oauth2-proxy's behavior |",
        "| --- | --- | --- |",
    ]
    return "\n".join([BEGIN, *head, *rows, END])


def _rewrite(page: Path) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + table() + after)


if __name__ == "__main__":
    _rewrite(Path(__file__).parents[2] / "docs" / "differences.md")
