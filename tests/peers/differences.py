"""Where authproxy answers differently on purpose: one table, and what it claims.

An entry that the side-by-side requests can show says what it makes of the original's
answer; the result of all entries must be authproxy's answer, field by field, so that an
entry which no longer differs fails as one that lacks. Others name the test that proves
them. ``python -m peers.differences`` in the folder of the tests prints the table that
the README shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import changes
from .changes import Change, Seen
from .observed import Observed


@dataclass(frozen=True)
class Difference:
    """A row: what differs, why, and how to have it as in the original, if one may.

    ``change`` gives the fields of the original's answer that are different in ours,
    nothing when it does not apply. Without it ``proof`` names a test, FILE::FUNCTION.
    """

    what: str
    why: str
    instead: str = ""
    change: Callable[[Seen], Change] | None = None
    proof: str = ""


HOLE = "nothing: it is a hole"
DEFECT = "nothing: it is a defect"

# The order counts: each entry sees what the ones before have made.
DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "the nonce is sent and checked, and PKCE with S256 when the provider offers it",
        "a stolen authorization code or ID token can't be used (RFC 9700 §4.5)",
        '`insecure_oidc_skip_nonce = true`, `code_challenge_method = "none"`',
        changes.login_request,
    ),
    Difference(
        "a session or login cookie of our own is not passed to the upstream",
        "it could use it",
        instead=HOLE,
        change=changes.own_cookies,
    ),
    Difference(
        "whatever could name a user is removed from the client's fields, in every "
        "spelling that folds to it, configured or not",
        "upstreams take `X-Forwarded-Email` for ours even where we send none",
        "`strip_identity_headers = false`",
        changes.identity_spoofs,
    ),
    Difference(
        "`X-Forwarded-Host` and `-Proto` are always sent upstream; `X-Forwarded-*` and "
        "the like from peers that are not trusted are not passed on",
        "the upstream can rely on them",
        instead="`trusted_proxy_ips` for those who are believed; the rest is a hole",
        change=changes.origin_headers,
    ),
    Difference(
        "identity headers are always sent, empty if need be",
        "gateways that copy headers keep what the client sent otherwise",
        instead=HOLE,
        change=changes.empty_identity,
    ),
    Difference(
        "the upstream's `Host` is what a trusted `X-Forwarded-Host` says",
        "it builds its addresses as the browser sees them",
        "`pass_host_header = false` sends the upstream's own host",
        changes.upstream_host,
    ),
    Difference(
        "a session that may not come in gets 403 and is kept",
        "a gateway would send it to log in again, for ever",
        '`forbidden_session = "clear"`',
        changes.kept_denied,
    ),
    Difference(
        "a constraint without a value (`allowed_groups=`) lets nobody in; one behind a "
        "`;` counts",
        "a variable that was empty in a gateway's template let everybody in",
        instead=HOLE,
        change=changes.constraints,
    ),
    Difference(
        "looking at the sign-in page does not end a good session",
        "any site can make a browser look at it",
        instead=HOLE,
        change=changes.kept_session,
    ),
    Difference(
        "signing out clears the session cookie even when the request did not show it",
        "a path or a domain may have kept it away",
        instead=DEFECT,
        change=changes.cleared_session,
    ),
    Difference(
        "a `;` in a query is no error, nor is a malformed query of the application's",
        "`;` is a letter like others (WHATWG URL), and the application's query is its "
        "own business",
        "`allow_query_semicolons = true` reads `;` as `&` in queries of own endpoints",
        changes.semicolons,
    ),
    Difference(
        "a callback that nobody asked for is answered 403, a malformed one 400, not 500",
        "the client is wrong, not the server",
        instead=DEFECT,
        change=changes.callback_statuses,
    ),
    Difference(
        "a WebSocket without a session gets 401, not a page",
        "no browser shows a page for it",
        instead=DEFECT,
        change=changes.websocket,
    ),
    Difference(
        "where a login or sign-out leads is judged as a browser reads it; addresses of "
        "the own origin and legal queries survive",
        "open redirects, lost deep links",
        instead=HOLE,
        change=changes.redirect_targets,
    ),
    Difference(
        "`{id_token}` is filled into configured addresses only, not into what `rd` of a "
        "sign-out says",
        "any site could have the browser bring it the token",
        "`sign_out_at_provider`, `backend_logout_url`",
        changes.placeholders,
    ),
    Difference(
        "`force_https` leads to the address that a trusted `X-Forwarded-Uri` says",
        "that is where the browser was",
        instead=DEFECT,
        change=changes.https_targets,
    ),
    Difference(
        "a path is cleaned (`//`, `..`) for those who are logged in only, and for others "
        "after the login",
        "a request is judged as it came",
        instead=DEFECT,
        change=changes.clean_paths,
    ),
    Difference(
        "an ambiguous path (`..`, `//`, `;`, an encoded separator …) is skipped past the "
        "login by no rule",
        "the upstream may read it as another path than the one that was judged",
        instead=HOLE,
        change=changes.ambiguous_paths,
    ),
    Difference(
        "with a store, a page clears the session cookie only when the request shows it",
        "there is nothing to clear",
        instead=DEFECT,
        change=changes.unseen_cookies,
    ),
    Difference(
        "below `{prefix}/static/` there are two stylesheets of our own with the names and "
        "classes of the original's, and nothing else",
        "our pages bring their style along; templates made for the original look decent",
        "serve its files at these paths in front, or name them elsewhere in your templates",
        changes.static,
    ),
    Difference(
        "sentences on pages are our own",
        "they say what to do next",
        "`banner`, custom templates",
        changes.sentences,
    ),
    Difference(
        "what is ours (401, 403, userinfo, JSON, robots.txt) is never to be stored",
        "the original leaves that to caches on the way",
        instead=HOLE,
        change=changes.caching,
    ),
    # What one request does not show.
    Difference(
        "`X-Forwarded-*` and the real-client-IP header are believed from "
        "`trusted_proxy_ips` only; without that option, from loopback and private "
        "addresses; the client is found from right to left over trusted hops",
        "anybody could choose the URL that is judged, and an address",
        'name your gateways in `trusted_proxy_ips`; `["0.0.0.0/0", "::/0"]` are all',
        proof="core/request/test_original.py::test_fh02_nobody_listed_means_private_peers_only",
    ),
    Difference(
        "state is compared before the code is redeemed, `iss` is checked (RFC 9207), and "
        "a login is finished once",
        "login CSRF, mix-up",
        instead=HOLE,
        proof="core/login/test_flow.py::"
        "test_lg02_a_wrong_state_is_refused_before_the_code_is_redeemed",
    ),
    Difference(
        "`azp`, `at_hash`, `iat`, `sub` of ID tokens and the `sub` of userinfo are "
        "checked",
        "OpenID Connect Core",
        instead=HOLE,
        proof="core/login/test_flow.py::"
        "test_jw16_to_jw37_lg29_claims_that_do_not_fit_end_the_login",
    ),
    Difference(
        "commas in group names are escaped (`%2C`); request headers are not joined with "
        "commas",
        "a group `a,b` would pass for two (RFC 9110 §5.3)",
        instead=HOLE,
        proof="core/login/test_flow.py::test_hs11_a_comma_in_a_group_does_not_make_two",
    ),
    Difference(
        "groups called `role:…` are dropped for `keycloak-oidc`",
        "they would pass for roles",
        instead=HOLE,
        proof="core/login/test_flow.py::test_az14_a_group_can_not_pass_for_a_role",
    ),
    Difference(
        "groups called `project:…` are dropped for `gitlab`",
        "they would pass for projects",
        instead=HOLE,
        proof="core/providers/test_openid.py::test_gitlab_says_who_it_is",
    ),
    Difference(
        "ID tokens of `google`, `azure` and `login.gov` are checked like all others, "
        "and `google` is asked for `openid` as well",
        "the original takes Google's unchecked, and Azure's access token in place of one",
        "`scope` for what is asked",
        proof="core/providers/test_google.py::test_the_signature_is_checked",
    ),
    Difference(
        "`allowed_groups` counts for `gitlab`, `keycloak` and `google` when their own "
        "option is not given",
        "there it is ignored, and everybody comes in",
        instead=HOLE,
        proof="core/providers/test_openid.py::test_groups_of_gitlab",
    ),
    Difference(
        "a `redeem_url` of one's own needs a `validate_url` and a `profile_url`",
        "the default ones would get the tokens of another server",
        instead="name all three addresses",
        proof="core/settings/test_providers.py::test_each_mistake_has_its_line",
    ),
    Difference(
        "`bitbucket_team` means a workspace, and asks for the scope `account`",
        "Bitbucket has made workspaces of its teams; nobody would come in",
        instead=DEFECT,
        proof="core/providers/test_profiles.py::test_teams_of_bitbucket",
    ),
    Difference(
        "addresses that `bitbucket`, `digitalocean` or `keycloak` call unverified are "
        "refused too",
        "anybody can claim them",
        "`insecure_oidc_allow_unverified_email = true`",
        proof="core/providers/test_profiles.py::"
        "test_an_unverified_address_is_refused_unless_allowed",
    ),
    Difference(
        "who is let in by organisation, team, repository, project or directory is asked "
        "again at every refresh, and lists that can't be read let nobody in",
        "who has left would stay until the session ends",
        instead=HOLE,
        proof="core/providers/test_github.py::test_who_leaves_the_organisation_is_out",
    ),
    Difference(
        "a browser that comes back from a login that is lost (too old, finished in "
        "another tab, begun on another host) is sent to log in again, once; a loop of "
        "logins ends in a page that says why",
        "the original ends in an error page, or in the browser's own about redirects",
        "`restart_lost_logins = false`",
        proof="core/login/test_loop_guard.py::test_a_lost_login_begins_again_once",
    ),
    Difference(
        "what we pass on ourselves must fit a skip rule by its own path and method too, "
        "not only by `X-Forwarded-Uri`; a rule without `^` is named at start",
        "a gateway may leave the client's field",
        instead=HOLE,
        proof="core/access/test_auth_bypass.py::test_what_we_pass_on_ourselves_must_fit_as_it_is",
    ),
    Difference(
        "a gateway that does not name its client gets nobody past `trusted_ips`; health "
        "paths and robots.txt answer requests for themselves only",
        "its own address is trusted, and it takes each 2xx for a grant",
        instead=HOLE,
        proof="core/access/test_auth_bypass.py::test_fh13_to_fh17_the_address_of_the_client",
    ),
    Difference(
        "bearer JWTs are refused when they were issued to another client (`azp`)",
        "a token that was made for somebody else",
        '`bearer_authorized_parties = ["*"]`',
        proof="core/access/test_credentials_bearer.py::"
        "test_clients_whose_tokens_are_accepted_can_be_named",
    ),
    Difference(
        "users of `htpasswd_file`: wrong tries are bounded, cost and say the same; the "
        "form is accepted from the own page only; a session ends with its user's line",
        "guessing, login CSRF",
        instead=HOLE,
        proof="core/access/test_htpasswd.py::test_tries_are_bounded_by_client",
    ),
    Difference(
        "`created_at` and `expires_on` in headers are UTC and whole seconds, and empty "
        "when unknown",
        "the original ends the connection when they are unknown",
        instead=DEFECT,
        proof="core/identity/test_headers.py::test_times_in_headers",
    ),
    Difference(
        "sessions have a format of their own (AES-256-GCM), and old parts are cleared",
        "one key for encryption and signature, parts that stay behind",
        '`cookie_format = "oauth2-proxy"`; its cookies are always read unless '
        "`cookie_read_oauth2_proxy = false`",
        proof="core/sessions/test_oauth2_proxy_format.py::test_the_session_cookie_of_the_original_is_read",
    ),
    Difference(
        "pages carry a strict Content-Security-Policy; custom ones may run their scripts",
        "clickjacking, injected scripts",
        instead="custom templates, for scripts and styles; the rest is a hole",
        proof="core/pages/test_pages.py::test_ou07_ou08_ou10_headers_of_own_pages",
    ),
    Difference(
        "`/ready` is 503 until the provider's metadata and keys are there; the program "
        "starts without them",
        "a provider that is away must not keep it from starting",
        instead=DEFECT,
        proof="core/login/test_flow.py::test_start_before_discovery_says_so",
    ),
    Difference(
        "`$1`, `$2` … in an alpha file stay what they are",
        "the original makes `$1` of each",
        instead=DEFECT,
        proof="server/config/test_alpha_read.py::test_variables_are_filled_in",
    ),
    Difference(
        "`--convert-config-to-alpha` prints references to variables in place of secrets",
        "its output ends in tickets and repositories",
        "set the variable that it names",
        proof="server/config/test_alpha_convert.py::test_secrets_are_not_printed",
    ),
    Difference(
        "what an original would find out when a request comes, or pass over (bad "
        "`code_challenge_method`, `cookie_csrf_samesite`, unknown provider types, log "
        "templates, TLS files, misspelt keys), is told by `--config-test`, all at once",
        "nothing half-started",
        instead=DEFECT,
        proof="server/config/test_load.py::test_a_problem_is_told_once",
    ),
    Difference(
        "a WebSocket that a page of another site opens with the user's session gets 403",
        "the same-origin policy does not keep it from reading everything (RFC 6455 §10.2)",
        '`websocket_origins = ["*"]`',
        proof="core/upstreams/test_routes.py::test_only_own_pages_open_websockets",
    ),
    Difference(
        "a WebSocket ends within a minute when its session has expired or was revoked",
        "it would outlive the login for as long as it likes",
        '`upgrade_check_interval = "0s"`',
        proof="server/net/test_tunnel.py::test_a_tunnel_ends_with_its_session",
    ),
    Difference(
        "`proxy_websockets = false` switches upgrades off; `h2c` is never passed on",
        "the original passes upgrades even then; behind `h2c` any request could hide",
        "`proxy_websockets = true`",
        proof="core/upstreams/test_routes.py::test_upgrades_that_are_not_passed_on",
    ),
    Difference(
        "a folder of files is not left by symbolic links, and a file without a known "
        "ending is text or bytes, never HTML",
        "what others can write there would be read, or run, as ours",
        "`file_follow_symlinks = true`",
        proof="server/static/test_static_files.py::test_what_is_not_served",
    ),
    Difference(
        "the slash that is missing at the end of a path is put before the query",
        "it is a part of the path",
        instead=DEFECT,
        proof="core/upstreams/test_routes.py::test_a_folder_without_its_slash_is_redirected",
    ),
)


def expected(seen: Seen) -> tuple[Observed, set[str]]:
    """What ours should be, and which entries had their part in it."""
    used = set()
    theirs = seen.theirs
    for entry in DIFFERENCES:
        if entry.change is None:
            continue
        change = entry.change(replace(seen, theirs=theirs))
        changed = replace(theirs, **change)
        if changed != theirs:
            used.add(entry.what)
        theirs = changed
    return theirs, used


BEGIN, END = "<!-- differences: begin -->", "<!-- differences: end -->"


def table() -> str:
    """The table as the README shows it, between its marks."""
    rows = [
        f"| {entry.what} | {entry.why} | {entry.instead} |" for entry in DIFFERENCES
    ]
    head = ["| what | why | as in oauth2-proxy by |", "| --- | --- | --- |"]
    return "\n".join([BEGIN, *head, *rows, END])


def _rewrite(readme: Path) -> None:
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + table() + after)


if __name__ == "__main__":
    _rewrite(Path(__file__).parents[2] / "README.md")
