"""`AuthProxy`: routing, the auth check, pages, forwarding, construction."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import (
    AuthProxy,
    ClientGone,
    CookieSettings,
    Forward,
    HeaderRule,
    Respond,
    Secret,
    SettingsError,
    UpstreamSettings,
)
from authproxy_core.access.membership import MAX_CACHED_QUERY_BYTES
from authproxy_core.settings.root import PageSettings
from support.harness import (
    Harness,
    header,
    headers,
    provider_settings,
    rule,
    settings,
)

APP = UpstreamSettings(id="app", uri="http://10.0.0.9:8080/")
REQUEST_RULES = (
    rule("X-Forwarded-User", "user"),
    rule("X-Forwarded-Email", "email"),
    rule("X-Forwarded-Groups", "groups"),
)


def proxied(**changes: Any) -> Harness:
    """A harness with an application behind the proxy."""
    values: dict[str, Any] = {
        "upstreams": (APP,),
        "inject_request_headers": REQUEST_RULES,
    }
    return Harness(settings(**(values | changes)))


def forward(harness: Harness, target: str, *fields: Any, **changes: Any) -> Forward:
    decision = harness.send(target, *fields, **changes)
    assert isinstance(decision, Forward), decision
    return decision


# -- the auth check


def test_auth_check_without_session_gets_401_without_identity(harness: Harness) -> None:
    response = harness.get("/oauth2/auth")
    assert (response.status, response.body) == (401, b"Unauthorized\n")
    assert header(response, b"cache-control") == b"no-store"
    names = {name for name, _ in response.headers}
    assert not {b"authorization", b"gap-auth", b"set-cookie"} & names


@pytest.mark.parametrize("status", [200, 202, 204])
def test_auth_check_success_status_configurable(status: int) -> None:
    harness = Harness(settings(auth_success_status=status))
    harness.log_in()
    assert harness.get("/oauth2/auth").status == status


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("allowed_groups=admins", 202),
        ("allowed_groups=nobody", 403),
        ("allowed_groups=nobody,role:admin", 202),
        ("allowed_groups=nobody&allowed_groups=staff", 202),
        ("allowed_groups=", 403),
        ("allowed_groups=,", 403),
        ("allowed_emails=", 403),
        ("allowed_email_domains=", 403),
        ("allowed_groups", 403),
        ("x=1;allowed_groups=nobody", 403),
        ("allowed_groups=Admins", 403),
        ("allowed_emails=alice@example.com", 202),
        ("allowed_emails=bob@example.com", 403),
        ("allowed_email_domains=example.com", 202),
        ("allowed_email_domains=EXAMPLE.com", 202),
        ("allowed_email_domains=.example.com", 202),
        ("allowed_email_domains=other.com", 403),
        ("allowed_groups=staff&allowed_emails=bob@example.com", 403),
        ("allowed_groups=%zz", 400),
        ("other=x", 202),
    ],
)
def test_az11_az14_auth_check_query_constraints(
    harness: Harness, query: str, status: int
) -> None:
    harness.log_in()
    for _ in range(2):
        assert harness.get(f"/oauth2/auth?{query}").status == status


def test_auth_check_reusable_only_for_cached_entries(harness: Harness) -> None:
    harness.log_in()
    harness.proxy = harness.new_proxy(
        harness.settings
    )  # which has not cached the session
    kept = [harness.get("/oauth2/auth").reusable for _ in range(3)]
    assert kept == [False, True, True]
    assert harness.get("/oauth2/auth", jar={}).reusable
    assert not harness.get("/page", jar={}).reusable


def test_endpoint_paths_list_endpoints_and_health_checks(harness: Harness) -> None:
    paths = harness.proxy.endpoint_paths
    assert paths >= {b"/oauth2/auth", b"/oauth2/callback", b"/ping", b"/ready"}
    assert b"/" not in paths


def test_session_cache_misses_counted(harness: Harness) -> None:
    harness.log_in()
    harness.proxy = harness.new_proxy(harness.settings)
    for _ in range(5):
        harness.get("/oauth2/auth")
    assert (
        harness.proxy.session_cache_misses == 2
    )  # a session seen only once is not cached


def test_constraint_cache_bounded(harness: Harness) -> None:
    harness.log_in()
    for number in range(600):
        assert harness.get(f"/oauth2/auth?allowed_groups=g{number}").status == 403
    assert harness.get("/oauth2/auth?allowed_groups=staff").status == 202


def test_constraint_cache_long_query_evaluated(harness: Harness) -> None:
    harness.log_in()
    padding = "x" * MAX_CACHED_QUERY_BYTES
    for group, status in (("staff", 202), ("nobody", 403)):
        target = f"/oauth2/auth?allowed_groups={group}&x={padding}"
        assert harness.get(target).status == status


def test_az34_limits_checked_on_each_use(harness: Harness) -> None:
    harness.log_in("bob")
    assert harness.get("/oauth2/auth").status == 202
    stricter = settings(provider={"allowed_groups": ("admins",)})
    harness.proxy = harness.new_proxy(stricter)
    response = harness.get("/oauth2/auth")
    assert (response.status, response.body) == (403, b"Forbidden\n")
    assert [event.reason for event in response.events] == ["groups"]
    assert b"_oauth2_proxy" in harness.jar  # the cookie is kept
    assert harness.get("/oauth2/userinfo").status == 403
    assert harness.get("/page").status == 403
    assert harness.run(harness.proxy.identify(harness.request("/"))) is None


def test_fa01_invalid_cookie_gets_401_and_is_cleared(harness: Harness) -> None:
    for jar in (
        {b"_oauth2_proxy": b"broken"},
        {b"_oauth2_proxy": b"a|b|c"},
        {b"_oauth2_proxy_0": b"x", b"_oauth2_proxy_1": b"y"},
    ):
        response = harness.get("/oauth2/auth", jar=jar)
        assert response.status == 401
        cleared = {line.partition(b"=")[0] for line in headers(response, b"set-cookie")}
        assert set(jar) <= cleared
        assert all(b"Max-Age=0" in line for line in headers(response, b"set-cookie"))


def test_ck05_session_of_another_instance_rejected(harness: Harness) -> None:
    harness.log_in()
    other = Harness(settings(cookie={"name": "_other"}))
    jar = {b"_other": harness.jar[b"_oauth2_proxy"]}
    assert other.get("/oauth2/auth", jar=jar).status == 401


def test_ck07_older_secret_unseals(harness: Harness) -> None:
    harness.log_in()
    old = harness.settings.cookie.secrets[0]
    new = Secret(b"another-secret-of-32-bytes-here!")
    both = CookieSettings(secrets=(new, old))
    harness.proxy = harness.new_proxy(settings(cookie={"secrets": both.secrets}))
    assert harness.get("/oauth2/auth").status == 202
    harness.proxy = harness.new_proxy(settings(cookie={"secrets": (new,)}))
    assert harness.get("/oauth2/auth").status == 401


def test_ck14_cookie_parts_of_two_sessions_rejected(harness: Harness) -> None:
    harness.config.padding = 9000
    jars = []
    for user in ("alice", "bob"):
        harness.jar.clear()
        harness.log_in(user)
        jars.append(dict(harness.jar))
    mixed = {**jars[0], b"_oauth2_proxy_1": jars[1][b"_oauth2_proxy_1"]}
    assert harness.get("/oauth2/auth", jar=jars[0]).status == 202
    assert harness.get("/oauth2/auth", jar=mixed).status == 401


def test_ck26_sign_in_page_clears_invalid_cookie_and_keeps_valid_one(
    harness: Harness,
) -> None:
    response = harness.get("/oauth2/sign_in", jar={b"_oauth2_proxy": b"broken"})
    assert headers(response, b"set-cookie")
    harness.log_in()
    assert not headers(harness.get("/oauth2/sign_in"), b"set-cookie")
    assert harness.get("/oauth2/auth").status == 202


def test_minimal_session_contains_no_tokens() -> None:
    harness = Harness(
        settings(
            cookie={"minimal": True},
            inject_response_headers=(rule("X-User", "user"),),
        )
    )
    harness.log_in()
    assert len(harness.jar[b"_oauth2_proxy"]) < 700
    assert header(harness.get("/oauth2/auth"), b"gap-auth") == b"alice@example.com"


@pytest.mark.parametrize("format", ["authproxy", "oauth2-proxy"])
def test_cookie_format_supports_login_refresh_and_sign_out(format: str) -> None:
    harness = Harness(settings(cookie={"format": format, "refresh": 60.0}))
    assert harness.log_in(rd="/x").status == 302
    assert harness.get("/oauth2/auth").status == 202
    harness.clock.now += 61
    assert headers(harness.get("/oauth2/auth"), b"set-cookie")
    harness.get("/oauth2/sign_out")
    assert harness.jar == {}


def test_oauth2_proxy_cookie_rejected_by_option() -> None:
    writer = Harness(settings(cookie={"format": "oauth2-proxy"}))
    url = writer.start_login()
    login = dict(writer.jar)
    writer.finish_login(url)
    reader = Harness(settings(cookie={"read_oauth2_proxy": False}))
    assert reader.get("/oauth2/auth", jar=writer.jar).status == 401
    state = url.partition("state=")[2].partition("&")[0]
    response = reader.get(f"/oauth2/callback?code=x&state={state}", jar=login)
    assert response.status == 403


def test_oauth2_proxy_cookie_accepted_by_another_process() -> None:
    harness = Harness(settings(cookie={"format": "oauth2-proxy"}))
    harness.log_in()
    harness.proxy = harness.new_proxy(settings())
    assert harness.get("/oauth2/auth").status == 202


def test_oauth2_proxy_format_csrf_cookie_per_request() -> None:
    cookie = {"format": "oauth2-proxy", "csrf_per_request": True}
    harness = Harness(settings(cookie=cookie, encode_state=True))
    first, second = harness.start_login("/1"), harness.start_login("/2")
    assert len(harness.jar) == 2
    assert header(harness.finish_login(second), b"location") == b"/2"
    assert header(harness.finish_login(first), b"location") == b"/1"


def test_oauth2_proxy_login_state_nonce_optional_but_must_match() -> None:
    harness = Harness(settings(cookie={"format": "oauth2-proxy"}))
    harness.config.id_token_claims["nonce"] = None
    assert harness.log_in().status == 302
    harness.config.id_token_claims["nonce"] = "other"
    assert harness.log_in().status == 403


# -- other endpoints


def test_ping_and_ready_endpoints(harness: Harness) -> None:
    assert harness.get("/ping").body == b"OK"
    assert harness.get("/ready").status == 200
    waiting = Harness(ready=False)
    assert waiting.get("/ping").status == 200
    response = waiting.get("/ready")
    assert (response.status, header(response, b"retry-after")) == (503, b"5")


def test_sk29_sk31_health_path_matched_exactly(harness: Harness) -> None:
    for path in ("/ping/", "/ping/../admin", "/ping%2f", "/PING", "/ready/x"):
        assert harness.get(path).status in (400, 403)
    named = Harness(settings(ping_user_agent="Probe/1"))
    assert named.get("/ping").status == 403
    assert named.get("/ping", (b"user-agent", b"Probe/1")).status == 200
    assert named.get("/admin", (b"user-agent", b"Probe/1")).status == 403


def test_health_paths_disabled_by_empty_option() -> None:
    harness = Harness(settings(ping_path="", ready_path=""))
    assert harness.get("/ping").status == 403
    assert harness.get("/ready").status == 403


def test_robots_txt_disallows_all(harness: Harness) -> None:
    assert harness.get("/robots.txt").body == b"User-agent: *\nDisallow: /\n"


def test_userinfo_returns_identity_without_tokens(harness: Harness) -> None:
    assert harness.get("/oauth2/userinfo").status == 401
    harness.log_in()
    response = harness.get("/oauth2/userinfo")
    assert header(response, b"content-type") == b"application/json"
    assert b'"email":"alice@example.com"' in response.body
    assert b'"preferredUsername":"alice"' in response.body
    assert b"token" not in response.body
    broken = harness.get("/oauth2/userinfo", jar={b"_oauth2_proxy": b"x"})
    assert headers(broken, b"set-cookie")


def test_userinfo_omits_empty_fields() -> None:
    harness = Harness(
        settings(
            provider={"type": "oidc", "skip_claims_from_profile_url": True},
            inject_response_headers=(rule("X-Team", "team"),),
        )
    )
    harness.config.id_token_claims.update(
        {"groups": None, "preferred_username": None, "team": "red"}
    )
    harness.log_in()
    body = harness.get("/oauth2/userinfo").body
    assert b"groups" not in body
    assert b"preferredUsername" not in body
    assert b'"additionalClaims":{"team":"red"}' in body


@pytest.mark.parametrize("target", ["/oauth2/start?x=%zz", "/oauth2/sign_in?rd=%zz"])
def test_malformed_query_gets_400(harness: Harness, target: str) -> None:
    response = harness.get(target)
    assert response.status == 400
    assert [event.kind for event in response.events] == ["bad_request"]


@pytest.mark.parametrize("host", [b"", b"a b", b"app.example.com/evil", b"a@b"])
def test_or47_malformed_host_gets_400(harness: Harness, host: bytes) -> None:
    assert harness.get("/oauth2/start", (b"host", host)).status == 400
    assert harness.get("/page", (b"host", host)).status == 400


def test_start_client_disconnect_during_form_handled(harness: Harness) -> None:
    form = (b"content-type", b"application/x-www-form-urlencoded")
    flow = harness.proxy.handle(harness.request("/oauth2/start", form, method=b"POST"))
    next(flow)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as stop:
        flow.throw(ClientGone("the client left"))  # type: ignore[union-attr]
    assert stop.value.value.status == 400
    assert stop.value.value.events[0].reason == "client_gone"


def test_start_accepts_posted_form(harness: Harness) -> None:
    harness.body = b"rd=/posted"
    form = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")
    response = harness.get("/oauth2/start", form, method=b"POST")
    url = header(response, b"location").decode()
    assert header(harness.finish_login(url), b"location") == b"/posted"


# -- signing out


@pytest.mark.parametrize("rd", ["//evil.com", "https://evil.com/", "/oauth2/sign_out"])
def test_or41_or44_sign_out_redirects_to_root(harness: Harness, rd: str) -> None:
    harness.log_in()
    response = harness.get(f"/oauth2/sign_out?rd={rd}")
    assert header(response, b"location") == b"/"
    assert [event.kind for event in response.events] == ["logged_out"]


def test_lo07_sign_out_without_session(harness: Harness) -> None:
    for _ in range(2):
        response = harness.get("/oauth2/sign_out?rd=/bye")
        assert (response.status, header(response, b"location")) == (302, b"/bye")
        assert response.events == ()


def test_lo01_cross_site_image_does_not_sign_out(harness: Harness) -> None:
    harness.log_in()
    foreign = (
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-mode", b"no-cors"),
    )
    assert harness.get("/oauth2/sign_out", *foreign).status == 403
    assert harness.get("/oauth2/auth").status == 202
    navigation = (foreign[0], (b"sec-fetch-mode", b"navigate"))
    assert harness.get("/oauth2/sign_out", *navigation).status == 302


def test_lo04_id_token_sent_to_provider_logout_only() -> None:
    harness = Harness(settings(whitelist_domains=("idp.example.com", "other.example")))
    harness.log_in()
    hint = "%3Fid_token_hint%3D%7Bid_token%7D"
    logout = "https://idp.example.com/realms/main/logout"
    kept = dict(harness.jar)
    response = harness.get(f"/oauth2/sign_out?rd={logout}{hint}")
    assert header(response, b"location").startswith(
        logout.encode() + b"?id_token_hint=ey"
    )
    for other in (
        "https://other.example/realms/main/logout",
        f"{logout}/x",
        "https://[",
    ):
        harness.jar = dict(kept)
        location = header(
            harness.get(f"/oauth2/sign_out?rd={other}{hint}"), b"location"
        )
        assert b"hint=ey" not in location
    anonymous = harness.get(f"/oauth2/sign_out?rd={logout}{hint}", jar={})
    assert header(anonymous, b"location") == logout.encode() + b"?id_token_hint="


def test_sign_out_without_end_session_endpoint() -> None:
    harness = Harness(settings(whitelist_domains=("idp.example.com",)), ready=False)
    response = harness.get(
        "/oauth2/sign_out?rd=https://idp.example.com/x%3Fh%3D%7Bid_token%7D"
    )
    assert header(response, b"location") == b"https://idp.example.com/x?h="


def test_sign_out_redirects_to_backend_logout_url(harness: Harness) -> None:
    provider = harness.proxy._providers["keycloak"]
    url = provider.end_session_url("IT", "https://app.example.com/")
    assert "id_token_hint=IT" in url
    assert "post_logout_redirect_uri=https%3A%2F%2Fapp.example.com%2F" in url


# -- pages and forwarding


def test_page_without_session_gets_sign_in_page(harness: Harness) -> None:
    response = harness.get("/deep?x=1")
    assert response.status == 403
    assert b"Sign in with Keycloak" in response.body
    assert b"rd=%2Fdeep%3Fx%3D1" in response.body


@pytest.mark.parametrize(
    "field",
    [
        (b"accept", b"application/json"),
        (b"accept", b"text/html, application/json"),
        (b"upgrade", b"websocket"),
    ],
)
def test_api_request_without_session_gets_401(harness: Harness, field: Any) -> None:
    response = harness.get("/page", field)
    assert (response.status, response.body) == (401, b"{}")


def test_force_json_errors_returns_401() -> None:
    assert Harness(settings(force_json_errors=True)).get("/page").status == 401


def test_skip_provider_button_starts_login() -> None:
    harness = Harness(settings(skip_provider_button=True))
    for target in ("/deep", "/oauth2/sign_in?rd=/deep"):
        response = harness.get(target, jar={b"_oauth2_proxy": b"broken"})
        assert response.status == 302
        url = header(response, b"location").decode()
        assert header(harness.finish_login(url), b"location") == b"/deep"


def test_request_forwarded_with_identity_headers() -> None:
    harness = proxied()
    harness.log_in()
    decision = forward(harness, "/x?y=1", (b"x-custom", b"1"))
    assert decision.upstream.id == "app"
    assert (decision.upstream.host, decision.upstream.port) == ("10.0.0.9", 8080)
    assert decision.target == b"/x?y=1"
    sent = dict(decision.headers)
    assert sent[b"host"] == b"app.example.com"
    assert sent[b"x-forwarded-email"] == b"alice@example.com"
    assert sent[b"x-forwarded-for"] == b"192.0.2.7"
    assert sent[b"x-forwarded-proto"] == b"https"
    assert sent[b"x-custom"] == b"1"
    assert decision.user == "alice@example.com"
    assert any(name == b"gap-auth" for name, _ in decision.response_headers)


@pytest.mark.parametrize(
    "name",
    [
        b"x-forwarded-user",
        b"x_forwarded_user",
        b"x-forwarded_user",
        b"x.forwarded.user",
        b"x-forwarded-groups",
    ],
)
def test_hs01_hs04_client_identity_headers_stripped(name: bytes) -> None:
    harness = proxied()
    harness.log_in("bob")
    decision = forward(harness, "/", (name, b"admin"))
    values = [value for _, value in decision.headers]
    assert b"admin" not in values


def test_hs07_hop_by_hop_fields_removed_and_injected_kept() -> None:
    harness = proxied()
    harness.log_in()
    decision = forward(
        harness,
        "/",
        (b"connection", b"X-Forwarded-User, x-custom, close"),
        (b"x-custom", b"1"),
        (b"te", b"deflate"),
        (b"upgrade-insecure-requests", b"1"),
    )
    names = [name for name, _ in decision.headers]
    assert b"x-custom" not in names
    assert b"te" not in names
    assert b"upgrade-insecure-requests" in names
    assert dict(decision.headers)[b"x-forwarded-user"]


def test_session_cookies_not_forwarded() -> None:
    harness = proxied()
    harness.log_in()
    harness.jar[b"app"] = b"1"
    harness.jar[b"_oauth2_proxy_x_csrf"] = b"2"
    harness.jar[b"_oauth2_proxy_csrf"] = b"3"
    harness.jar[b"_oauth2_proxy_settings"] = b"4"
    decision = forward(harness, "/")
    cookie = dict(decision.headers)[b"cookie"]
    assert cookie == b"app=1; _oauth2_proxy_settings=4"
    for name in (b"app", b"_oauth2_proxy_settings"):
        del harness.jar[name]
    assert b"cookie" not in dict(forward(harness, "/").headers)


def test_forwarded_for_appended_behind_gateway_and_unix_socket() -> None:
    harness = proxied(reverse_proxy=True)
    harness.log_in()
    chain = (b"x-forwarded-for", b"203.0.113.9")
    decision = forward(harness, "/", chain, peer="10.0.0.1")
    assert dict(decision.headers)[b"x-forwarded-for"] == b"203.0.113.9, 10.0.0.1"
    decision = forward(harness, "/", chain, peer="")
    assert dict(decision.headers)[b"x-forwarded-for"] == b"203.0.113.9"


def test_upstream_chosen_by_path() -> None:
    harness = proxied(
        upstreams=(
            APP,
            UpstreamSettings(id="api", path="/api/", uri="https://api.internal"),
            UpstreamSettings(id="exact", path="/exact", uri="unix:///run/app.sock"),
            UpstreamSettings(id="fixed", path="/fixed", static_code=204),
            UpstreamSettings(id="none", path="/dev/null", uri="file:///dev/null"),
            UpstreamSettings(
                id="own", path="/own/", uri="http://own:81", pass_host_header=False
            ),
        )
    )
    harness.log_in()
    assert forward(harness, "/api/x").upstream.scheme == "https"
    assert forward(harness, "/api/x").upstream.port == 443
    assert forward(harness, "/exact").upstream.unix == "/run/app.sock"
    assert forward(harness, "/exact/x").upstream.id == "app"
    assert dict(forward(harness, "/own/").headers)[b"host"] == b"own:81"
    assert harness.get("/fixed").status == 204
    assert harness.get("/dev/null").status == 404


def test_no_upstream_gets_404(harness: Harness) -> None:
    harness.log_in()
    response = harness.get("/page")
    assert (response.status, response.body) == (404, b"404 page not found\n")


def test_upstream_unknown_scheme_rejected() -> None:
    bad = UpstreamSettings(id="x", uri="gopher://x")
    with pytest.raises(SettingsError, match="gopher"):
        Harness(settings(upstreams=(bad,)))


def test_query_constraints_apply_to_proxied_requests() -> None:
    harness = proxied()
    harness.log_in("bob")
    denied = harness.get("/page?allowed_groups=admins")
    assert (denied.status, denied.body) == (403, b"Forbidden\n")  # as in oauth2-proxy
    assert forward(harness, "/page?allowed_groups=staff").target


@pytest.mark.parametrize(
    ("reason", "status"), [("timeout", 504), ("refused", 502), ("busy", 503)]
)
def test_upstream_failed_page(reason: str, status: int) -> None:
    harness = proxied(pages=PageSettings(show_debug_on_error=True))
    harness.log_in()
    request = harness.request("/x")
    decision = forward(harness, "/x")
    page = harness.proxy.upstream_failed(request, decision, reason)
    assert page.status == status
    assert reason.encode() in page.body
    assert page.events[0].detail == f"upstream app: {reason}"


def test_response_headers_of_every_source() -> None:
    from authproxy_core import ClaimSource

    harness = Harness(
        settings(
            inject_response_headers=(
                HeaderRule("X-Secret", (Secret(b"s3cret"),)),
                HeaderRule("X-Basic", (ClaimSource("user", "", Secret(b"pw")),)),
                rule("X-Created", "created_at"),
                rule("X-Expires", "expires_on"),
                rule("X-Empty", "refresh_token"),
                HeaderRule("X-Two", (ClaimSource("user"), ClaimSource("email"))),
            ),
            inject_request_headers=(
                HeaderRule("X-Kept", (ClaimSource("user"),), True),
            ),
            upstreams=(APP,),
        )
    )
    harness.config.issue_refresh_token = False
    harness.log_in()
    response = harness.get("/oauth2/auth")
    assert header(response, b"x-secret") == b"s3cret"
    assert header(response, b"x-basic").startswith(b"Basic ")
    assert header(response, b"x-created").endswith(b" +0000 UTC")
    assert header(response, b"x-expires").endswith(b" +0000 UTC")
    assert header(response, b"x-empty") == b""
    assert header(response, b"x-two").count(b",") == 1
    decision = forward(harness, "/", (b"x-kept", b"client"))
    kept = [value for name, value in decision.headers if name == b"x-kept"]
    assert kept[0] == b"client"
    assert len(kept) == 2


# -- construction and readiness


def test_auth_proxy_reports_all_settings_problems() -> None:
    bad = settings(
        cookie={
            "secrets": (Secret(b"short"),),
            "name": "a b",
            "refresh": 999999.0,
            "path": "x",
            "samesite": "none",
            "secure": False,
            "domains": ("a b",),
            "minimal": True,
        },
        provider={
            "client_id": "",
            "client_secret": Secret(b""),
            "issuer": "ftp://x",
            "response_mode": "fragment",
            "allowed_groups": ("",),
            "skip_discovery": True,
        },
        email_domains=(),
        trusted_proxies=("10.0.0.1/8",),
        proxy_prefix="oauth2/",
        inject_response_headers=(
            rule("Host", "user"),
            rule("X-A", "id_token"),
            rule("x-a", "user"),
        ),
    )
    with pytest.raises(SettingsError) as error:
        AuthProxy(bad)
    text = str(error.value)
    for word in (
        "cookie_secret", "cookie_name", "cookie_refresh", "cookie_path",
        "cookie_samesite", "cookie_domains", "session_cookie_minimal", "client_id",
        "client_secret", "oidc_issuer_url", "auth_request_response_mode",
        "allowed_groups", "oidc_jwks_url", "email_domains", "trusted_proxy_ips",
        "proxy_prefix", "'Host'", "duplicate",
    ):  # fmt: skip
        assert word in text, word
    assert "short" not in text


def test_auth_proxy_reports_conflicting_settings() -> None:
    with pytest.raises(SettingsError, match="at least one provider"):
        AuthProxy(settings(providers=()))
    with pytest.raises(SettingsError, match="used twice"):
        AuthProxy(settings(providers=(provider_settings(), provider_settings())))
    two = (provider_settings(), provider_settings(id="b"))
    with pytest.raises(SettingsError, match="more than one"):
        AuthProxy(settings(providers=two, skip_provider_button=True))
    with pytest.raises(SettingsError, match="cookie_secret: missing"):
        AuthProxy(settings(cookie={"secrets": ()}))
    with pytest.raises(SettingsError, match="oidc_issuer_url: missing"):
        AuthProxy(settings(provider={"issuer": ""}))


def test_secret_hidden_and_compared_by_value() -> None:
    secret = Secret("s3cret")
    assert "s3cret" not in repr(secret)
    assert secret == Secret(b"s3cret")
    assert secret != Secret(b"other")
    assert secret != "s3cret"
    assert len({secret, Secret(b"s3cret")}) == 1


def test_warm_up_retries_until_provider_is_ready() -> None:
    harness = Harness(ready=False)
    harness.config.failing["discovery"] = 500
    tries = []

    def fetch(effect: Any) -> Any:
        tries.append(effect.url)
        if len(tries) == 3:
            del harness.config.failing["discovery"]
        return harness.idp.fetch(effect)

    harness.on_fetch = fetch
    harness.run(harness.proxy.warm_up())
    assert harness.proxy.ready
    kinds = [event.kind for event in harness.events]
    assert kinds == ["provider_failed", "provider_ready"]
    assert harness.clock.now > 1_790_000_000


@pytest.mark.parametrize(
    ("discovery", "reason"),
    [
        ({"issuer": "https://other.test"}, "issuer"),
        ({"issuer": None}, "discovery_invalid"),
        ({"token_endpoint": ""}, "discovery_invalid"),
        ({"jwks_uri": "http://idp.example.com/jwks"}, "discovery_invalid"),
        ({"userinfo_endpoint": "ftp://x"}, "discovery_invalid"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "algorithms"),
        ({"jwks_uri": "https://idp.example.com/realms/main/nothing"}, "jwks_failed"),
    ],
)
def test_jw31_invalid_discovery_document_rejected(
    discovery: dict[str, Any], reason: str
) -> None:
    harness = Harness(ready=False)
    harness.config.discovery.update(discovery)
    flow = harness.proxy.warm_up()
    response: Any = None
    while type(effect := flow.send(response)).__name__ != "Sleep":
        response = harness.perform(effect)
    assert harness.events[-1].reason == reason
    assert not harness.proxy.ready


def test_skip_discovery_uses_configured_endpoints() -> None:
    base = "https://idp.example.com/realms/main"
    harness = Harness(
        settings(
            provider={
                "skip_discovery": True,
                "login_url": f"{base}/authorize?kc_idp_hint=x",
                "redeem_url": f"{base}/token",
                "jwks_url": f"{base}/jwks",
                "profile_url": f"{base}/userinfo",
                "signing_algs": ("RS256",),
            }
        )
    )
    assert harness.start_login().startswith(f"{base}/authorize?kc_idp_hint=x&")
    assert harness.log_in().status == 302
    assert harness.idp.count("discovery") == 0


def test_auth_proxy_on_event_optional() -> None:
    harness = Harness()
    proxy = AuthProxy(
        harness.settings, clock=harness.clock, random_bytes=harness.random
    )
    harness.run(proxy.warm_up())
    assert proxy.ready


@given(
    st.binary(max_size=200).map(lambda text: b"/" + text),
    st.lists(
        st.tuples(st.sampled_from([b"cookie", b"accept"]), st.binary(max_size=99))
    ),
)
def test_arbitrary_request_never_allowed(target: bytes, fields: Any) -> None:
    for path in (target, b"/oauth2/auth?" + target, b"/oauth2/callback?" + target):
        decision = SHARED.send(path, *fields)
        assert isinstance(decision, Respond)
        assert decision.status >= 300


SHARED = Harness()


def test_denied_page_login_returns_to_page() -> None:
    harness = Harness(settings())
    harness.log_in()
    strict = settings(email_domains=("example.org",))
    harness.proxy = harness.new_proxy(strict)
    page = harness.get("/deep?x=1")
    assert page.status == 403
    assert b'href="/deep?x=1"' in page.body

    strict = settings(email_domains=("example.org",), force_json_errors=True)
    harness.proxy = harness.new_proxy(strict)
    response = harness.get("/deep?x=1")
    assert (response.status, response.body) == (403, b"{}")
    assert header(response, b"content-type") == b"application/json"
    assert (response.verdict, [event.kind for event in response.events]) == (
        "denied",
        ["denied"],
    )


@pytest.mark.parametrize("button", [True, False])
def test_sign_in_form_redirect_target(button: bool) -> None:
    harness = Harness(settings(skip_provider_button=not button))
    harness.body = b"rd=/deep&username=carol"
    form = (b"content-type", b"application/x-www-form-urlencoded")
    response = harness.get("/oauth2/sign_in", form, method=b"POST")
    if button:
        assert b"rd=%2Fdeep" in response.body
    else:
        harness.finish_login(header(response, b"location").decode())
        assert response.status == 302
