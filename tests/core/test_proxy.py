"""Routing, the auth check, pages, forwarding: what a request comes to."""

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
from authproxy_core.settings.root import PageSettings
from support.world import (
    World,
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


def proxied(**changes: Any) -> World:
    """A world with an application behind the proxy."""
    values: dict[str, Any] = {
        "upstreams": (APP,),
        "inject_request_headers": REQUEST_RULES,
    }
    return World(settings(**(values | changes)))


def forward(world: World, target: str, *fields: Any, **changes: Any) -> Forward:
    decision = world.send(target, *fields, **changes)
    assert isinstance(decision, Forward), decision
    return decision


# -- the auth check


def test_anonymous_is_401_without_page_or_identity(world: World) -> None:
    answer = world.get("/oauth2/auth")
    assert (answer.status, answer.body) == (401, b"Unauthorized\n")
    assert header(answer, b"cache-control") == b"no-store"
    names = {name for name, _ in answer.headers}
    assert not {b"authorization", b"gap-auth", b"set-cookie"} & names


@pytest.mark.parametrize("status", [200, 202, 204])
def test_the_status_of_a_good_check_can_be_chosen(status: int) -> None:
    world = World(settings(auth_success_status=status))
    world.log_in()
    assert world.get("/oauth2/auth").status == status


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
def test_az11_az14_demands_of_the_query(world: World, query: str, status: int) -> None:
    world.log_in()
    for _ in range(2):
        assert world.get(f"/oauth2/auth?{query}").status == status


def test_only_answers_that_come_again_are_marked_as_kept(world: World) -> None:
    world.log_in()
    world.proxy = world.new_proxy(world.settings)  # which has never seen the session
    kept = [world.get("/oauth2/auth").reusable for _ in range(3)]
    assert kept == [False, True, True]
    assert world.get("/oauth2/auth", jar={}).reusable
    assert not world.get("/page", jar={}).reusable


def test_sessions_that_no_cache_held_are_counted(world: World) -> None:
    world.log_in()
    world.proxy = world.new_proxy(world.settings)
    for _ in range(5):
        world.get("/oauth2/auth")
    assert world.proxy.sessions_unsealed == 2  # what was seen once is not kept


def test_queries_are_remembered_within_bounds(world: World) -> None:
    world.log_in()
    for number in range(600):
        assert world.get(f"/oauth2/auth?allowed_groups=g{number}").status == 403
    assert world.get("/oauth2/auth?allowed_groups=staff").status == 202


def test_az34_limits_are_judged_on_each_use(world: World) -> None:
    world.log_in("bob")
    assert world.get("/oauth2/auth").status == 202
    stricter = settings(provider={"allowed_groups": ("admins",)})
    world.proxy = world.new_proxy(stricter)
    answer = world.get("/oauth2/auth")
    assert (answer.status, answer.body) == (403, b"Forbidden\n")
    assert [event.reason for event in answer.events] == ["groups"]
    assert b"_oauth2_proxy" in world.jar  # it is kept
    assert world.get("/oauth2/userinfo").status == 403
    assert world.get("/page").status == 403
    assert world.run(world.proxy.identify(world.request("/"))) is None


def test_fa01_a_broken_cookie_is_401_and_cleared(world: World) -> None:
    for jar in (
        {b"_oauth2_proxy": b"broken"},
        {b"_oauth2_proxy": b"a|b|c"},
        {b"_oauth2_proxy_0": b"x", b"_oauth2_proxy_1": b"y"},
    ):
        answer = world.get("/oauth2/auth", jar=jar)
        assert answer.status == 401
        cleared = {line.partition(b"=")[0] for line in headers(answer, b"set-cookie")}
        assert set(jar) <= cleared
        assert all(b"Max-Age=0" in line for line in headers(answer, b"set-cookie"))


def test_ck05_a_session_of_another_instance_is_not_ours(world: World) -> None:
    world.log_in()
    other = World(settings(cookie={"name": "_other"}))
    jar = {b"_other": world.jar[b"_oauth2_proxy"]}
    assert other.get("/oauth2/auth", jar=jar).status == 401


def test_ck07_an_older_secret_still_unseals(world: World) -> None:
    world.log_in()
    old = world.settings.cookie.secrets[0]
    new = Secret(b"another-secret-of-32-bytes-here!")
    both = CookieSettings(secrets=(new, old))
    world.proxy = world.new_proxy(settings(cookie={"secrets": both.secrets}))
    assert world.get("/oauth2/auth").status == 202
    world.proxy = world.new_proxy(settings(cookie={"secrets": (new,)}))
    assert world.get("/oauth2/auth").status == 401


def test_ck14_parts_of_two_sessions_do_not_make_one(world: World) -> None:
    world.config.padding = 9000
    jars = []
    for user in ("alice", "bob"):
        world.jar.clear()
        world.log_in(user)
        jars.append(dict(world.jar))
    mixed = {**jars[0], b"_oauth2_proxy_1": jars[1][b"_oauth2_proxy_1"]}
    assert world.get("/oauth2/auth", jar=jars[0]).status == 202
    assert world.get("/oauth2/auth", jar=mixed).status == 401


def test_ck26_the_sign_in_page_clears_a_broken_cookie_and_keeps_a_good_one(
    world: World,
) -> None:
    answer = world.get("/oauth2/sign_in", jar={b"_oauth2_proxy": b"broken"})
    assert headers(answer, b"set-cookie")
    world.log_in()
    assert not headers(world.get("/oauth2/sign_in"), b"set-cookie")
    assert world.get("/oauth2/auth").status == 202


def test_minimal_sessions_hold_no_tokens() -> None:
    world = World(
        settings(
            cookie={"minimal": True},
            inject_response_headers=(rule("X-User", "user"),),
        )
    )
    world.log_in()
    assert len(world.jar[b"_oauth2_proxy"]) < 700
    assert header(world.get("/oauth2/auth"), b"gap-auth") == b"alice@example.com"


@pytest.mark.parametrize("format", ["authproxy", "oauth2-proxy"])
def test_both_cookie_formats_serve_a_whole_life(format: str) -> None:
    world = World(settings(cookie={"format": format, "refresh": 60.0}))
    assert world.log_in(rd="/x").status == 302
    assert world.get("/oauth2/auth").status == 202
    world.clock.now += 61
    assert headers(world.get("/oauth2/auth"), b"set-cookie")
    world.get("/oauth2/sign_out")
    assert world.jar == {}


def test_the_format_of_oauth2_proxy_can_be_refused() -> None:
    writer = World(settings(cookie={"format": "oauth2-proxy"}))
    url = writer.begin()
    login = dict(writer.jar)
    writer.finish(url)
    reader = World(settings(cookie={"read_oauth2_proxy": False}))
    assert reader.get("/oauth2/auth", jar=writer.jar).status == 401
    state = url.partition("state=")[2].partition("&")[0]
    answer = reader.get(f"/oauth2/callback?code=x&state={state}", jar=login)
    assert answer.status == 403


def test_another_process_reads_the_format_of_oauth2_proxy() -> None:
    world = World(settings(cookie={"format": "oauth2-proxy"}))
    world.log_in()
    world.proxy = world.new_proxy(settings())
    assert world.get("/oauth2/auth").status == 202


def test_per_request_names_in_the_format_of_oauth2_proxy() -> None:
    cookie = {"format": "oauth2-proxy", "csrf_per_request": True}
    world = World(settings(cookie=cookie, encode_state=True))
    first, second = world.begin("/1"), world.begin("/2")
    assert len(world.jar) == 2
    assert header(world.finish(second), b"location") == b"/2"
    assert header(world.finish(first), b"location") == b"/1"


def test_a_login_of_oauth2_proxy_may_lack_a_nonce_but_not_have_another() -> None:
    world = World(settings(cookie={"format": "oauth2-proxy"}))
    world.config.id_token_claims["nonce"] = None
    assert world.log_in().status == 302
    world.config.id_token_claims["nonce"] = "other"
    assert world.log_in().status == 500


# -- small endpoints


def test_ping_and_ready(world: World) -> None:
    assert world.get("/ping").body == b"OK"
    assert world.get("/ready").status == 200
    waiting = World(ready=False)
    assert waiting.get("/ping").status == 200
    answer = waiting.get("/ready")
    assert (answer.status, header(answer, b"retry-after")) == (503, b"5")


def test_sk29_sk31_health_paths_are_exact(world: World) -> None:
    for path in ("/ping/", "/ping/../admin", "/ping%2f", "/PING", "/ready/x"):
        assert world.get(path).status in (400, 403)
    named = World(settings(ping_user_agent="Probe/1"))
    assert named.get("/ping").status == 403
    assert named.get("/ping", (b"user-agent", b"Probe/1")).status == 200
    assert named.get("/admin", (b"user-agent", b"Probe/1")).status == 403


def test_health_paths_can_be_off() -> None:
    world = World(settings(ping_path="", ready_path=""))
    assert world.get("/ping").status == 403
    assert world.get("/ready").status == 403


def test_robots(world: World) -> None:
    assert world.get("/robots.txt").body == b"User-agent: *\nDisallow: /\n"


def test_userinfo(world: World) -> None:
    assert world.get("/oauth2/userinfo").status == 401
    world.log_in()
    answer = world.get("/oauth2/userinfo")
    assert header(answer, b"content-type") == b"application/json"
    assert b'"email":"alice@example.com"' in answer.body
    assert b'"preferredUsername":"alice"' in answer.body
    assert b"token" not in answer.body
    broken = world.get("/oauth2/userinfo", jar={b"_oauth2_proxy": b"x"})
    assert headers(broken, b"set-cookie")


def test_userinfo_leaves_out_what_is_empty() -> None:
    world = World(
        settings(
            provider={"type": "oidc", "skip_claims_from_profile_url": True},
            inject_response_headers=(rule("X-Team", "team"),),
        )
    )
    world.config.id_token_claims.update(
        {"groups": None, "preferred_username": None, "team": "red"}
    )
    world.log_in()
    body = world.get("/oauth2/userinfo").body
    assert b"groups" not in body
    assert b"preferredUsername" not in body
    assert b'"additionalClaims":{"team":"red"}' in body


@pytest.mark.parametrize("target", ["/oauth2/start?x=%zz", "/oauth2/sign_in?rd=%zz"])
def test_a_malformed_query_is_400(world: World, target: str) -> None:
    answer = world.get(target)
    assert answer.status == 400
    assert [event.kind for event in answer.events] == ["bad_request"]


@pytest.mark.parametrize("host", [b"", b"a b", b"app.example.com/evil", b"a@b"])
def test_or47_a_malformed_host_is_400(world: World, host: bytes) -> None:
    assert world.get("/oauth2/start", (b"host", host)).status == 400
    assert world.get("/page", (b"host", host)).status == 400


def test_a_client_that_leaves_with_its_form_is_answered(world: World) -> None:
    form = (b"content-type", b"application/x-www-form-urlencoded")
    flow = world.proxy.handle(world.request("/oauth2/start", form, method=b"POST"))
    next(flow)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as stop:
        flow.throw(ClientGone("the client left"))  # type: ignore[union-attr]
    assert stop.value.value.status == 400
    assert stop.value.value.events[0].reason == "client_gone"


def test_start_takes_a_posted_form(world: World) -> None:
    world.body = b"rd=/posted"
    form = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")
    answer = world.get("/oauth2/start", form, method=b"POST")
    url = header(answer, b"location").decode()
    assert header(world.finish(url), b"location") == b"/posted"


# -- signing out


@pytest.mark.parametrize("rd", ["//evil.com", "https://evil.com/", "/oauth2/sign_out"])
def test_or41_or44_sign_out_goes_home(world: World, rd: str) -> None:
    world.log_in()
    answer = world.get(f"/oauth2/sign_out?rd={rd}")
    assert header(answer, b"location") == b"/"
    assert [event.kind for event in answer.events] == ["logged_out"]


def test_lo07_sign_out_without_a_session(world: World) -> None:
    for _ in range(2):
        answer = world.get("/oauth2/sign_out?rd=/bye")
        assert (answer.status, header(answer, b"location")) == (302, b"/bye")
        assert answer.events == ()


def test_lo01_another_sites_image_does_not_sign_out(world: World) -> None:
    world.log_in()
    foreign = (
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-mode", b"no-cors"),
    )
    assert world.get("/oauth2/sign_out", *foreign).status == 403
    assert world.get("/oauth2/auth").status == 202
    navigation = (foreign[0], (b"sec-fetch-mode", b"navigate"))
    assert world.get("/oauth2/sign_out", *navigation).status == 302


def test_lo04_the_id_token_goes_to_the_providers_logout_only() -> None:
    world = World(settings(whitelist_domains=("idp.example.com", "other.example")))
    world.log_in()
    hint = "%3Fid_token_hint%3D%7Bid_token%7D"
    logout = "https://idp.example.com/realms/main/logout"
    kept = dict(world.jar)
    answer = world.get(f"/oauth2/sign_out?rd={logout}{hint}")
    assert header(answer, b"location").startswith(
        logout.encode() + b"?id_token_hint=ey"
    )
    for other in (
        "https://other.example/realms/main/logout",
        f"{logout}/x",
        "https://[",
    ):
        world.jar = dict(kept)
        location = header(world.get(f"/oauth2/sign_out?rd={other}{hint}"), b"location")
        assert b"hint=ey" not in location
    anonymous = world.get(f"/oauth2/sign_out?rd={logout}{hint}", jar={})
    assert header(anonymous, b"location") == logout.encode() + b"?id_token_hint="


def test_sign_out_without_an_offer_of_logout() -> None:
    world = World(settings(whitelist_domains=("idp.example.com",)), ready=False)
    answer = world.get(
        "/oauth2/sign_out?rd=https://idp.example.com/x%3Fh%3D%7Bid_token%7D"
    )
    assert header(answer, b"location") == b"https://idp.example.com/x?h="


def test_the_logout_address_of_the_provider(world: World) -> None:
    provider = world.proxy._providers["keycloak"]
    url = provider.end_session_url("IT", "https://app.example.com/")
    assert "id_token_hint=IT" in url
    assert "post_logout_redirect_uri=https%3A%2F%2Fapp.example.com%2F" in url


# -- pages and forwarding


def test_an_anonymous_page_request_gets_the_sign_in_page(world: World) -> None:
    answer = world.get("/deep?x=1")
    assert answer.status == 403
    assert b"Sign in with Keycloak" in answer.body
    assert b"rd=%2Fdeep%3Fx%3D1" in answer.body


@pytest.mark.parametrize(
    "field",
    [
        (b"accept", b"application/json"),
        (b"accept", b"text/html, application/json"),
        (b"upgrade", b"websocket"),
    ],
)
def test_who_can_not_use_a_page_gets_401(world: World, field: Any) -> None:
    answer = world.get("/page", field)
    assert (answer.status, answer.body) == (401, b"{}")


def test_json_can_be_forced() -> None:
    assert World(settings(force_json_errors=True)).get("/page").status == 401


def test_without_the_button_the_login_begins_at_once() -> None:
    world = World(settings(skip_provider_button=True))
    for target in ("/deep", "/oauth2/sign_in?rd=/deep"):
        answer = world.get(target, jar={b"_oauth2_proxy": b"broken"})
        assert answer.status == 302
        url = header(answer, b"location").decode()
        assert header(world.finish(url), b"location") == b"/deep"


def test_a_request_is_forwarded_with_who_it_is() -> None:
    world = proxied()
    world.log_in()
    decision = forward(world, "/x?y=1", (b"x-custom", b"1"))
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
def test_hs01_hs04_what_a_client_says_of_itself_is_stripped(name: bytes) -> None:
    world = proxied()
    world.log_in("bob")
    decision = forward(world, "/", (name, b"admin"))
    values = [value for _, value in decision.headers]
    assert b"admin" not in values


def test_hs07_hop_by_hop_fields_go_and_ours_stay() -> None:
    world = proxied()
    world.log_in()
    decision = forward(
        world,
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


def test_own_cookies_are_not_passed_on() -> None:
    world = proxied()
    world.log_in()
    world.jar[b"app"] = b"1"
    world.jar[b"_oauth2_proxy_x_csrf"] = b"2"
    world.jar[b"_oauth2_proxy_csrf"] = b"3"
    world.jar[b"_oauth2_proxy_settings"] = b"4"
    decision = forward(world, "/")
    cookie = dict(decision.headers)[b"cookie"]
    assert cookie == b"app=1; _oauth2_proxy_settings=4"
    for name in (b"app", b"_oauth2_proxy_settings"):
        del world.jar[name]
    assert b"cookie" not in dict(forward(world, "/").headers)


def test_forwarded_for_grows_behind_a_gateway_and_a_socket() -> None:
    world = proxied(reverse_proxy=True)
    world.log_in()
    chain = (b"x-forwarded-for", b"203.0.113.9")
    decision = forward(world, "/", chain, peer="10.0.0.1")
    assert dict(decision.headers)[b"x-forwarded-for"] == b"203.0.113.9, 10.0.0.1"
    decision = forward(world, "/", chain, peer="")
    assert dict(decision.headers)[b"x-forwarded-for"] == b"203.0.113.9"


def test_upstreams_are_chosen_by_path() -> None:
    world = proxied(
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
    world.log_in()
    assert forward(world, "/api/x").upstream.scheme == "https"
    assert forward(world, "/api/x").upstream.port == 443
    assert forward(world, "/exact").upstream.unix == "/run/app.sock"
    assert forward(world, "/exact/x").upstream.id == "app"
    assert dict(forward(world, "/own/").headers)[b"host"] == b"own:81"
    assert world.get("/fixed").status == 204
    assert world.get("/dev/null").status == 404


def test_without_upstreams_there_is_nothing(world: World) -> None:
    world.log_in()
    answer = world.get("/page")
    assert (answer.status, answer.body) == (404, b"404 page not found\n")


def test_an_upstream_of_another_kind_is_refused() -> None:
    bad = UpstreamSettings(id="x", uri="gopher://x")
    with pytest.raises(SettingsError, match="gopher"):
        World(settings(upstreams=(bad,)))


def test_demands_of_the_query_hold_for_pages_too() -> None:
    world = proxied()
    world.log_in("bob")
    assert world.get("/page?allowed_groups=admins").status == 403
    assert forward(world, "/page?allowed_groups=staff").target


@pytest.mark.parametrize(
    ("reason", "status"), [("timeout", 504), ("refused", 502), ("busy", 503)]
)
def test_the_page_of_an_upstream_that_failed(reason: str, status: int) -> None:
    world = proxied(pages=PageSettings(show_debug_on_error=True))
    world.log_in()
    request = world.request("/x")
    decision = forward(world, "/x")
    page = world.proxy.upstream_failed(request, decision, reason)
    assert page.status == status
    assert reason.encode() in page.body
    assert page.events[0].detail == f"upstream app: {reason}"


def test_headers_of_every_kind() -> None:
    from authproxy_core import ClaimSource

    world = World(
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
    world.config.issue_refresh_token = False
    world.log_in()
    answer = world.get("/oauth2/auth")
    assert header(answer, b"x-secret") == b"s3cret"
    assert header(answer, b"x-basic").startswith(b"Basic ")
    assert header(answer, b"x-created").endswith(b" +0000 UTC")
    assert header(answer, b"x-expires").endswith(b" +0000 UTC")
    assert header(answer, b"x-empty") == b""
    assert header(answer, b"x-two").count(b",") == 1
    decision = forward(world, "/", (b"x-kept", b"client"))
    kept = [value for name, value in decision.headers if name == b"x-kept"]
    assert kept[0] == b"client"
    assert len(kept) == 2


# -- construction, warming up


def test_bad_settings_are_refused_as_a_whole() -> None:
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
        "proxy_prefix", "'Host'", "twice",
    ):  # fmt: skip
        assert word in text, word
    assert "short" not in text


def test_other_problems_of_settings() -> None:
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


def test_secrets_are_not_shown_and_compared_as_a_whole() -> None:
    secret = Secret("s3cret")
    assert "s3cret" not in repr(secret)
    assert secret == Secret(b"s3cret")
    assert secret != Secret(b"other")
    assert secret != "s3cret"
    assert len({secret, Secret(b"s3cret")}) == 1


def test_warm_up_goes_on_until_the_provider_is_there() -> None:
    world = World(ready=False)
    world.config.failing["discovery"] = 500
    tries = []

    def fetch(effect: Any) -> Any:
        tries.append(effect.url)
        if len(tries) == 3:
            del world.config.failing["discovery"]
        return world.idp.fetch(effect)

    world.on_fetch = fetch
    world.run(world.proxy.warm_up())
    assert world.proxy.ready
    kinds = [event.kind for event in world.events]
    assert kinds == ["provider_failed", "provider_failed", "provider_ready"]
    assert world.clock.now > 1_790_000_000


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
def test_jw31_a_discovery_document_that_does_not_fit(
    discovery: dict[str, Any], reason: str
) -> None:
    world = World(ready=False)
    world.config.discovery.update(discovery)
    flow = world.proxy.warm_up()
    answer: Any = None
    while type(effect := flow.send(answer)).__name__ == "Fetch":
        answer = world.idp.fetch(effect)  # type: ignore[arg-type]
    assert world.events[-1].reason == reason
    assert not world.proxy.ready


def test_without_discovery_the_configured_endpoints_are_used() -> None:
    base = "https://idp.example.com/realms/main"
    world = World(
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
    assert world.begin().startswith(f"{base}/authorize?kc_idp_hint=x&")
    assert world.log_in().status == 302
    assert world.idp.count("discovery") == 0


def test_an_embedder_needs_no_callback_for_events() -> None:
    world = World()
    proxy = AuthProxy(world.settings, clock=world.clock, random_bytes=world.random)
    world.run(proxy.warm_up())
    assert proxy.ready


@given(
    st.binary(max_size=200).map(lambda text: b"/" + text),
    st.lists(
        st.tuples(st.sampled_from([b"cookie", b"accept"]), st.binary(max_size=99))
    ),
)
def test_whatever_comes_is_answered_and_never_2xx(target: bytes, fields: Any) -> None:
    for path in (target, b"/oauth2/auth?" + target, b"/oauth2/callback?" + target):
        decision = SHARED.send(path, *fields)
        assert isinstance(decision, Respond)
        assert decision.status >= 300


SHARED = World()


def test_a_page_that_a_user_may_not_see_leads_back_to_itself() -> None:
    world = World(settings())
    world.log_in()
    strict = settings(email_domains=("example.org",))
    world.proxy = world.new_proxy(strict)
    page = world.get("/deep?x=1")
    assert page.status == 403
    assert b'href="/deep?x=1"' in page.body

    strict = settings(email_domains=("example.org",), force_json_errors=True)
    world.proxy = world.new_proxy(strict)
    answer = world.get("/deep?x=1")
    assert (answer.status, answer.body) == (403, b"{}")
    assert header(answer, b"content-type") == b"application/json"
    assert (answer.verdict, [event.kind for event in answer.events]) == (
        "denied",
        ["denied"],
    )


@pytest.mark.parametrize("button", [True, False])
def test_a_form_may_say_where_a_login_ends(button: bool) -> None:
    world = World(settings(skip_provider_button=not button))
    world.body = b"rd=/deep&username=carol"
    form = (b"content-type", b"application/x-www-form-urlencoded")
    answer = world.get("/oauth2/sign_in", form, method=b"POST")
    if button:
        assert b"rd=%2Fdeep" in answer.body
    else:
        world.finish(header(answer, b"location").decode())
        assert answer.status == 302
