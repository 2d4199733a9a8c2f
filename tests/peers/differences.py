"""Proofs of the intended differences from oauth2-proxy, which the tests check.

The rows are in ``authproxy.migration``. A row that the compared requests can show has a
change of oauth2-proxy's response in `CHANGES`. All changes together must result in
authproxy's response, field by field. A missing row fails the comparison, and so does a row
without effect. Other rows name a test in `PROOFS`, as FILE::FUNCTION.
``python -m peers.differences`` in ``tests/`` writes the table into docs/differences.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from authproxy.migration.differences.row import Difference
from authproxy.migration.differences.table import DIFFERENCES

from . import changes, request_changes
from .changes import Change, Comparison
from .observed import Observed

# Each returns the fields of oauth2-proxy's response that differ, and an empty dict if the
# row does not apply. In this order: each applies to the result of the previous ones.
CHANGES: Mapping[str, Callable[[Comparison], Change]] = {
    "nonce-and-pkce": changes.login_request,
    "cookies-not-forwarded": changes.dropped_cookies,
    "identity-headers-stripped": changes.identity_spoofs,
    "forwarded-headers-sent": changes.origin_headers,
    "identity-headers-always-sent": changes.empty_identity,
    "upstream-host": changes.upstream_host,
    "denied-user-keeps-session": changes.kept_denied,
    "constraint-without-value": changes.constraints,
    "sign-in-page-keeps-session": changes.kept_session,
    "sign-out-clears-cookie": changes.cleared_session,
    "semicolons-in-queries": changes.semicolons,
    "callback-statuses": changes.callback_statuses,
    "websocket-without-session": changes.websocket,
    "redirect-targets": changes.redirect_targets,
    "id-token-in-sign-out": changes.placeholders,
    "https-redirect-path": changes.https_targets,
    "clean-path-after-login": changes.clean_paths,
    "clean-path-escapes": changes.encoded_slashes,
    "unauthorized-page": changes.html_unauthorized,
    "bypass-ambiguous-path": request_changes.ambiguous_paths,
    "malformed-targets": request_changes.malformed_targets,
    "login-cookie-names": request_changes.login_cookie_names,
    "methods": request_changes.methods,
    "compression": request_changes.compression,
    "security-headers": request_changes.security_headers,
    "redirect-bodies": request_changes.redirect_links,
    "preflights": changes.plain_options,
    "unseen-cookie-kept": changes.unseen_cookies,
    "static-files": changes.static,
    "page-texts": changes.sentences,
    "no-store": changes.caching,
    "client-addresses": request_changes.client_addresses,
    "cookie-domain-labels": request_changes.cookie_domains,
    "rewritten-dots": changes.rewritten_dots,
    "challenges": changes.challenges,
    "request-lines": request_changes.request_lines,
    "long-targets": request_changes.long_targets,
}

PROOFS: Mapping[str, str] = {
    "clean-path-dots": "core/upstreams/test_routes.py::test_forward_unclean_path_redirects",
    "trusted-proxies": "core/request/test_original.py::test_fh02_default_trusted_proxies_are_private",
    "bypass-without-uri": "core/access/test_auth_bypass.py::test_auth_check_without_original_uri_matches_no_path_rule",
    "empty-patterns": "core/access/test_auth_bypass.py::test_bypass_empty_pattern_refused",
    "unknown-variables": "server/config/test_sources.py::test_unknown_variable_is_error",
    "misspelled-constraints": "core/endpoints/test_forward_auth.py::test_auth_check_misspelled_constraint_denied",
    "unix-gateways": "core/request/test_original.py::test_unix_socket_peer_trusted_by_default_or_if_listed",
    "state-and-issuer": "core/login/test_callback.py::test_lg02_callback_with_wrong_state_does_not_redeem",
    "id-token-claims": "core/login/test_id_token.py::test_jw16_to_jw37_lg29_invalid_claims_fail_login",
    "commas-in-groups": "core/login/test_claims.py::test_hs11_comma_in_group_does_not_split_it",
    "empty-credentials": "core/identity/test_headers.py::test_header_empty_credentials_left_out_of_requests",
    "roles-without-keycloak": "server/config/test_load.py::test_provider_options_invalid_rejected",
    "cookie-domain-forms": "server/config/test_load.py::test_cookie_domains_of_oauth2_proxy_accepted",
    "keycloak-roles": "core/login/test_claims.py::test_roles_of_access_token_completed_by_those_of_id_token",
    "keycloak-role-groups": "core/login/test_claims.py::test_az14_group_with_role_prefix_dropped",
    "gitlab-project-groups": "core/providers/test_gitlab.py::test_gitlab_login_reads_identity",
    "verified-id-tokens": "core/providers/test_google.py::test_id_token_signature_verified",
    "allowed-groups-apply": "core/providers/test_gitlab.py::test_gitlab_group_restriction",
    "redeem-url-alone": "core/settings/test_providers.py::test_provider_problems_invalid_option_reported",
    "requested-authentication": "core/login/test_requested_authentication.py::test_acr_compared_with_configured_values",
    "entra-tenants": "core/providers/test_microsoft.py::test_entra_tenant_is_tid_and_agrees_with_issuer",
    "bitbucket-workspaces": "core/providers/test_bitbucket.py::test_bitbucket_workspace_restriction",
    "signed-out-page": "core/logout/test_signed_out.py::test_signed_out_page_offers_another_sign_in",
    "signed-userinfo": "core/providers/test_userinfo.py::test_signed_userinfo_read",
    "client-error-statuses": "core/login/test_callback.py::test_callback_with_foreign_code_is_forbidden",
    "third-party-login": "core/login/test_third_party.py::test_third_party_login_passes_hint_and_returns_to_target",
    "login-page-as-target": "core/login/test_redirects.py::test_or44_target_of_login_page_is_its_own_target",
    "late-keys": "peers/test_scenes.py::test_login_and_bearer_with_late_keys",
    "refreshed-algorithm": "core/providers/test_token_types.py::test_refreshed_id_token_of_another_algorithm_ends_session",
    "logout-token-algorithm": "core/logout/test_logout.py::test_logout_token_of_another_algorithm_than_sessions_rejected",
    "token-types": "core/providers/test_token_types.py::test_header_type_of_another_use_rejected",
    "email-claim-types": "core/login/test_claims.py::test_email_claim_of_other_type_rejected",
    "unverified-email": "core/providers/test_profiles.py::test_unverified_email_denied_unless_allowed",
    "membership-at-refresh": "core/providers/test_github.py::test_refresh_after_leaving_organization_denied",
    "lost-logins": "core/login/test_loop_guard.py::test_lost_login_restarts_once",
    "cookies-from-the-future": "core/sessions/test_sealing.py::test_ck08_time_in_the_future_rejected",
    "twin-cookies": "peers/test_scenes.py::test_twin_session_cookies_valid_one_counts",
    "bypass-own-target": "core/access/test_auth_bypass.py::test_bypass_forwarded_request_must_match_by_its_own_target",
    "trusted-ips-of-clients": "core/access/test_auth_bypass.py::test_fh13_to_fh17_trusted_ips_match_client_address",
    "positional-arguments": "server/config/test_sources.py::test_parse_flags_positional_argument_rejected_unshown",
    "bearer-authorized-party": "core/access/test_credentials_bearer.py::test_bearer_authorized_parties_accepted",
    "htpasswd-attempts": "core/access/test_htpasswd.py::test_htpasswd_attempts_limited_per_client",
    "times-in-headers": "core/identity/test_headers.py::test_header_time_formatted_like_go",
    "session-format": "core/sessions/test_oauth2_proxy_format.py::test_session_cookie_of_oauth2_proxy_read",
    "content-security-policy": "core/pages/test_pages.py::test_ou07_ou08_ou10_page_security_headers",
    "ready-after-metadata": "core/login/test_flow.py::test_start_before_discovery_shows_error_page",
    "dollars-in-alpha-files": "server/config/test_alpha_read.py::test_substitute_variables_replaces_references",
    "converted-secrets": "server/config/test_alpha_convert.py::test_convert_to_alpha_prints_no_secret",
    "config-test": "server/config/test_load.py::test_load_settings_reports_problem_once",
    "websocket-origins": "core/upstreams/test_upgrades.py::test_upgrade_from_other_origin_denied",
    "websocket-checks": "server/net/test_tunnel.py::test_tunnel_session_revoked_is_closed",
    "websockets-disabled": "core/upstreams/test_upgrades.py::test_forward_rejected_upgrade_omits_it",
    "ambiguous-upstream-responses": "peers/test_upstream_heads.py::test_ambiguous_upstream_response_rejected_by_authproxy_only",
    "symlinks-in-files": "server/static/test_static_files.py::test_static_missing_or_outside_root_rejected",
    "auth-log": "peers/test_logs.py::test_log_templates_with_conditions_and_functions",
    "bearer-clock-skew": "peers/test_scenes.py::test_bearer_expired_within_clock_skew_accepted",
    "store-outage": "peers/test_scenes.py::test_redis_with_restricted_user_fails_and_recovers",
    "redis-permissions": "server/stores/test_server.py::test_redis_user_restricted_as_for_oauth2_proxy",
}


def apply_differences(comparison: Comparison) -> tuple[Observed, set[str]]:
    """Return the expected response of authproxy and the rows that changed it."""
    used = set()
    response = comparison.expected
    for name, change in CHANGES.items():
        changed = replace(response, **change(replace(comparison, expected=response)))
        if changed != response:
            used.add(name)
        response = changed
    return response, used


BEGIN, END = "<!-- differences: begin -->", "<!-- differences: end -->"


def table() -> str:
    """Return the table as Markdown, between the marks in docs/differences.md."""
    rows = [
        f"| {row.what} | {row.why} | {_options(row)} | {row.instead} |"
        for row in DIFFERENCES
    ]
    head = [
        "| Difference | Reason | Touched by | For oauth2-proxy's behavior |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([BEGIN, *head, *rows, END])


def _options(row: Difference) -> str:
    keys = dict.fromkeys(row.when.keys + row.look.keys)
    return ", ".join(f"`{key}`" for key in keys) or "any configuration"


def _rewrite(page: Path) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + table() + after)


if __name__ == "__main__":
    _rewrite(Path(__file__).parents[2] / "docs" / "differences.md")
