"""Requests that need no login: rows SK, FH and AZ32 of the attack catalog."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authproxy_core import Forward, Respond, Settings, SettingsError, UpstreamSettings
from authproxy_core.access.auth_bypass import (
    AuthBypass,
    HttpsRedirect,
    unambiguous_path,
)
from authproxy_core.request.original import OriginalRequest, TrustedProxies
from authproxy_core.settings.auth_bypass import (
    AuthBypassSettings,
    auth_bypass_problems,
    auth_bypass_warnings,
    parse_route,
)
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import check
from support.harness import Harness, header, headers, rule, settings, with_changes

GATEWAY = "10.0.0.1"
UNTRUSTED = "203.0.113.9"
ROUTES = ("^/public/", "GET=^/healthz$")
PREFLIGHT = (
    (b"origin", b"https://front.example"),
    (b"access-control-request-method", b"PUT"),
)
APP = UpstreamSettings(id="app", uri="http://10.0.0.9:8080/")
ACCEPTED = UpstreamSettings(id="ok", uri="static://202", static_code=202)


def harness(*routes: str, upstream: UpstreamSettings = APP, **changes: Any) -> Harness:
    """A harness with ``skip_auth_routes`` and other bypass options."""
    names = set(AuthBypassSettings.__struct_fields__)
    gate = {name: changes.pop(name) for name in [*changes] if name in names}
    return Harness(
        settings(
            reverse_proxy=True,
            trusted_proxies=(GATEWAY,),
            upstreams=(upstream,),
            inject_request_headers=(rule("X-Forwarded-Email", "email"),),
            auth_bypass=AuthBypassSettings(**({"skip_auth_routes": routes} | gate)),
            **changes,
        )
    )


RULED = harness(*ROUTES)
STATIC = harness(*ROUTES, upstream=ACCEPTED)


def skipped(
    target: str | bytes, *fields: Any, given: Harness = RULED, **changes: Any
) -> bool:
    """Return whether a request without session is allowed at every endpoint.

    As a request of a client in proxy mode, and as what a gateway asks about. Where they
    differ, the request is rejected in one of them for its form.
    """
    raw = target.encode() if isinstance(target, str) else target
    forwarded = given.send(raw, *fields, jar={}, **{"peer": UNTRUSTED, **changes})
    method = changes.get("method", b"GET")
    about = (
        (b"x-forwarded-uri", raw),
        (b"x-forwarded-method", method),
        (b"x-real-ip", UNTRUSTED.encode()),
    )
    asked = given.get("/oauth2/auth", *about, *fields, jar={}, peer=GATEWAY)
    passed = isinstance(forwarded, Forward)
    assert passed or (isinstance(forwarded, Respond) and forwarded.status != 202)
    assert (asked.status == 202) == passed or asked.status == 400
    return passed


@pytest.mark.parametrize(
    "target",
    ["/public/", "/public/x?y=//z/../;#"[:-1], "/%70ublic/x", "/public/é%C3%A9", "/public/a%20b.c", "/public/100%25.pdf", "/healthz", "/healthz?x"],
)  # fmt: skip
def test_bypass_matching_path_needs_no_login(target: str) -> None:
    assert skipped(target)
    for path in ("/oauth2/auth", "/oauth2/forward_auth"):
        fields = ((b"x-forwarded-uri", target.encode()),)
        assert RULED.get(path, *fields, jar={}, peer=GATEWAY).status == 202
    tail = RULED.get(b"/oauth2/forward_auth" + target.encode(), jar={}, peer=GATEWAY)
    assert tail.status == 202


@pytest.mark.parametrize(
    "target",
    [
        "/admin?x=/public/", "/admin?/public/", "/admin?a=1#/public/",  # SK01, SK02
        "/admin%3f/public/", "/healthz%23/../admin", "/healthz#x", "/healthz%23x",  # SK04
        "/public/../admin", "/public/./../admin", "/public/x/../../admin",  # SK05
        "/public/.", "/public/..", "/public/x/.",
        "/public%2f..%2fadmin", "/public/..%2fadmin", "/public%2F%2e%2e%2fadmin",  # SK07
        "/public/%2e%2e/admin", "/public/.%2e/admin", "/public/%2e/admin",
        "/public/..%5cadmin", "/public\\..\\admin", "/public/..\\admin",  # SK08
        "/public/..;/admin", "/public;/../admin", "/public/;x=/../admin",  # SK10
        "/admin;/public/", "/public/x;y", "/public/x%3by",
        "//public/../admin", "///admin", "/.//admin", "//admin", "//public/x",  # SK11
        "/public//x", "/public/%2fx",
        "/public%00/../admin", "/public/%00", "/admin%00.png",  # SK13
        "/public/%c0%ae%c0%ae/admin", "/public/%e0%80%ae", "/public/%ed%a0%80",  # SK14
        "/public/%ff",
        "/public/%0a/../admin", "/x%0a/public/", "/healthz%0a", "/public/%7f",  # SK16
        "/public/%0d%0ax", "/public/%C2%85",
        "/public/%252e%252e/admin", "/public/%252fx", "/public/%2541",  # encoded twice
        "/public/..%20/admin", "/public/.../admin", "/public/%20/x",
        "/public/\uff0e\uff0e/admin", "/public\uff0f..\uff0fadmin",  # full width
        "/public/x%EF%BC%BCy",
        "/public/%zz", "/public/%", "/public/%u002e",  # SK25
        "/public/%2e%2e;/admin", "/public/%2e%2e%3b/admin", "/public/..;v=1/admin",  # SK37
        "/public/.;/..;/admin", "/public/a/..;/..;/admin", "/public/file;v=1", "/;/admin",
        "/public/x%3f/../../admin", "/public%23/../admin", "/public/..%3f/admin",  # SK41
        "/public/%09", "/public/x#", "/public/x?a#b",
        "/%EF%BD%81dmin", "/%20admin", "/%E2%80%8Badmin", "/%CD%8Fadmin",  # SK43
    ],
)  # fmt: skip
def test_sk_ambiguous_path_matches_no_bypass_rule(target: str) -> None:
    """SK23: neither plain nor negated rules apply."""
    assert not skipped(target)
    assert not skipped(target, given=harness("^/public/", "!=^/admin", *ROUTES))
    assert not skipped(target, given=harness("GET!=^/admin"))
    assert not skipped(target, given=harness(skip_auth_regex=("^/public/",)))


@pytest.mark.parametrize("target", ["/admin", "/", "/publi", "/Public/", "/x/public/"])
def test_bypass_other_path_needs_login(target: str) -> None:
    assert not skipped(target)


@pytest.mark.parametrize(
    ("method", "target", "passes"),
    [
        (b"GET", "/healthz", True),
        (b"POST", "/healthz", False),  # SK19
        (b"HEAD", "/healthz", False),  # SK20
        (b"get", "/healthz", False),
        (b"FOO", "/healthz", False),
        (b"FOO", "/public/x", True),
    ],
)
def test_sk19_sk20_bypass_method_compared_exactly(
    method: bytes, target: str, passes: bool
) -> None:
    assert skipped(target, method=method) == passes


@pytest.mark.parametrize(
    ("route", "method", "target", "passes"),
    [
        ("!=^/admin", b"GET", "/x", True),
        ("!=^/admin", b"GET", "/admin", False),
        ("!=^/admin", b"GET", "/%61dmin", False),
        ("post!=^/admin", b"POST", "/x", True),
        ("post!=^/admin", b"GET", "/x", False),
        ("=^/x", b"PUT", "/x", True),
        ("^/a=b", b"GET", "/a=b", False),  # "^/a" is not a method
        ("GET=^/a=b$", b"GET", "/a=b", True),
        ("GET=^/a!=b$", b"GET", "/a!=b", True),
        ("GET=^/a!=b$", b"GET", "/x", False),  # oauth2-proxy negates it
        ("/mid", b"GET", "/a/mid/b", True),
        (r"^/(?i:X)/\d+$", b"GET", "/x/12", True),
        (r"^/\d$", b"GET", "/%D9%A1", False),  # Go's \d is ASCII
    ],
)
def test_bypass_route_syntax(
    route: str, method: bytes, target: str, passes: bool
) -> None:
    assert skipped(target, given=harness(route), method=method) == passes


def test_bypass_skip_auth_regex_matches() -> None:
    ruled = harness(skip_auth_regex=("^/a=b$",))
    assert skipped("/a=b", given=ruled, method=b"PUT")
    assert not skipped("/a=c", given=ruled)


def test_sk17_bypass_rule_matches_in_linear_time() -> None:
    ruled = harness("^(a+)+$", "^/(a*)*b$")
    assert not skipped("/" + "a" * 30_000 + "!", given=ruled)


def test_sk22_preflight_allowed_without_identity() -> None:
    ruled = harness(skip_auth_preflight=True)
    assert skipped("/admin", *PREFLIGHT, given=ruled, method=b"OPTIONS")
    assert not skipped("/admin", *PREFLIGHT, given=ruled)
    decision = ruled.send(
        "/admin", *PREFLIGHT, jar={}, method=b"OPTIONS", peer=UNTRUSTED
    )
    assert isinstance(decision, Forward)
    assert (b"x-forwarded-email", b"") in decision.headers


@pytest.mark.parametrize("fields", [(), PREFLIGHT[:1], PREFLIGHT[1:]])
def test_sk22_options_without_preflight_fields_needs_login(fields: Any) -> None:
    ruled = harness(skip_auth_preflight=True)
    assert not skipped("/admin", *fields, given=ruled, method=b"OPTIONS")


def test_fh11_preflight_method_of_untrusted_peer_ignored() -> None:
    ruled = harness(skip_auth_preflight=True)
    fields = ((b"x-forwarded-method", b"OPTIONS"), *PREFLIGHT)
    answer = ruled.get("/oauth2/auth", *fields, jar={}, peer=UNTRUSTED)
    assert answer.status == 401
    assert ruled.get("/oauth2/auth", *fields, jar={}, peer=GATEWAY).status == 202


# -- source of the original request


@pytest.mark.parametrize("route", ["!=^/admin", "GET!=^/admin", "^/", "GET=.*"])
def test_auth_check_without_original_uri_matches_no_path_rule(route: str) -> None:
    """SK40: the endpoint's own path says nothing of the original."""
    ruled = harness(route)
    uri = (b"x-forwarded-uri", b"/x")
    for path in ("/oauth2/auth", "/oauth2/auth?x=1", "/oauth2/forward_auth"):
        assert ruled.get(path, jar={}, peer=GATEWAY).status == 401
        assert ruled.get(path, uri, jar={}, peer=UNTRUSTED).status == 401
        assert ruled.get(path, uri, jar={}, peer=GATEWAY).status == 202
        own = (b"x-forwarded-uri", path.encode())
        assert ruled.get(path, own, jar={}, peer=GATEWAY).status == 401
    escaped = ruled.get("/oauth2/auth%3Fx=1", jar={}, peer=GATEWAY)
    assert escaped.status == 401


def test_fh01_fh02_forwarded_uri_of_untrusted_peer_ignored() -> None:
    field = (b"x-forwarded-uri", b"/public/x")
    for path in ("/oauth2/auth", "/oauth2/forward_auth", "/admin"):
        for given_world in (
            RULED,
            STATIC,
            Harness(settings(auth_bypass=RULED.settings.auth_bypass)),
        ):
            response = given_world.get(path, field, jar={}, peer=UNTRUSTED)
            assert response.status in (401, 403)


@pytest.mark.parametrize(
    "fields",
    [
        ((b"x-forwarded-uri", b"/public/"), (b"x-forwarded-uri", b"/admin")),  # FH05
        ((b"x-forwarded-uri", b"/public/, /admin"),),
        ((b"x-forwarded-uri", b"https://app.example.com/public/"),),  # FH08
        ((b"x-forwarded-uri", b"//public/x"),),
        ((b"x-forwarded-uri", b"public/"),),
        ((b"x-forwarded-uri", b"*"),),
        ((b"x-forwarded-uri", b""),),
        ((b"x-forwarded-uri", b"%"),),  # FH07
        ((b"x-forwarded-uri", b"http://["),),
        ((b"x-forwarded-uri", b"/\x00"),),
        ((b"x-forwarded-uri", b"/public/\xff"),),
        ((b"x-forwarded-uri", b"/public/" + b"x" * 65_536),),
        ((b"x-forwarded-uri", b"/public/"), (b"x-original-url", b"https://h/admin")),
        ((b"x-forwarded-uri", b"/public/"), (b"x-original-uri", b"/admin")),  # FH04
        ((b"x-forwarded-uri", b"/public/"), (b"x-original-uri", b"admin")),
        ((b"x-forwarded-uri", b"/healthz"), (b"x-forwarded-method", b"get")),  # FH10
        ((b"x-forwarded-uri", b"/healthz"), (b"x-forwarded-method", b"GET, POST")),
        ((b"x-forwarded-uri", b"/healthz"), (b"x-forwarded-method", b"TRACE")),
        ((b"x-forwarded-uri", b"/healthz"), (b"x-forwarded-method", b"")),
        ((b"x_forwarded_uri", b"/public/"),),  # FH25
        ((b"x.forwarded.uri", b"/public/"), (b"x-forwarded-uri", b"/admin")),
        ((b"x-forwarded-uri", b"/admin"), (b"connection", b"x-forwarded-uri")),  # FH26
    ],
)
def test_fh_invalid_forwarded_fields_match_no_bypass_rule(fields: Any) -> None:
    for ruled in (RULED, STATIC):
        for path in ("/oauth2/auth", "/oauth2/forward_auth", "/", "/admin"):
            response = ruled.get(path, *fields, jar={}, peer=GATEWAY)
            assert response.status in (400, 401, 403), path


@pytest.mark.parametrize(
    "uri",
    [
        b"https://example.com/public", b"//admin/public", b"example.com:443", b"*",
        b"public/x", b"%2fpublic/x", b"javascript:/public", b"", b"/public#x", b"/public x",
        b"/public\tx", b"/public/%zz", b"/public?a#b", b"/public?a b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", [".*", "!=^/admin", "^$"])
def test_sk38_uri_that_is_no_path_matches_no_wide_rule(route: str, uri: bytes) -> None:
    ruled = harness(route)
    for path in ("/oauth2/auth", "/oauth2/forward_auth"):
        response = ruled.get(path, (b"x-forwarded-uri", uri), jar={}, peer=GATEWAY)
        assert response.status in (400, 401)


@pytest.mark.parametrize("route", ["GET!=^/admin", ".*"])
def test_sk40_similar_field_names_name_no_original(route: str) -> None:
    ruled = harness(route)
    for name in (b"x_forwarded_uri", b"x-forwarded_uri", b"x.forwarded.uri"):
        response = ruled.get("/oauth2/auth", (name, b"/x"), jar={}, peer=GATEWAY)
        assert response.status == 401


def test_hs02_identity_headers_of_anonymous_client_not_forwarded() -> None:
    names = (
        "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups",
        "x-forwarded-preferred-username", "x-forwarded-access-token",
        "x-auth-request-user", "x-auth-request-email", "x_forwarded_email",
        "x-forwarded_email", "x.forwarded.email", "remote-user",
    )  # fmt: skip
    for name in names:
        field = (name.encode(), b"admin")
        sent = RULED.send("/public/x", field, jar={}, peer=UNTRUSTED)
        assert isinstance(sent, Forward)
        assert b"admin" not in [value for _, value in sent.headers], name
        assert (b"x-forwarded-email", b"") in sent.headers


def test_fh04_agreeing_forwarded_fields_accepted() -> None:
    fields = (
        (b"x-forwarded-uri", b"/public/x"),
        (b"x-original-url", b"https://app.example.com/public/x"),
    )
    assert RULED.get("/oauth2/auth", *fields, jar={}, peer=GATEWAY).status == 202


def test_bypass_forwarded_request_must_match_by_its_own_target() -> None:
    """A gateway may forward a client's X-Forwarded-Uri; the upstream ignores it."""
    field = (b"x-forwarded-uri", b"/public/x")
    response = RULED.send("/admin", field, jar={}, peer=GATEWAY)
    assert not isinstance(response, Forward)
    assert isinstance(RULED.send("/public/y", field, jar={}, peer=GATEWAY), Forward)
    method = (b"x-forwarded-method", b"GET")
    sent = RULED.send("/healthz", method, jar={}, peer=GATEWAY, method=b"POST")
    assert not isinstance(sent, Forward)
    # After the auth check, the gateway forwards the request, not authproxy.
    assert STATIC.get("/", field, jar={}, peer=GATEWAY).status == 202
    assert STATIC.get("/", jar={}, peer=GATEWAY).status == 403


# -- addresses of clients


@pytest.mark.parametrize(
    ("name", "fields", "peer", "passes"),
    [
        ("x-real-ip", (), "192.0.2.7", True),  # connected directly
        ("x-real-ip", (), UNTRUSTED, False),
        ("x-real-ip", (), "", False),  # a unix socket
        ("x-real-ip", (), GATEWAY, False),  # it must send the client's address
        ("x-real-ip", ((b"x-real-ip", b"192.0.2.7"),), GATEWAY, True),
        ("x-real-ip", ((b"x-real-ip", b"[2001:db8::7]:80"),), GATEWAY, True),
        ("x-real-ip", ((b"x-real-ip", b"::ffff:192.0.2.7"),), GATEWAY, True),  # FH17
        ("x-real-ip", ((b"x-real-ip", b"192.0.2.7"),), "", False),  # unix not listed
        ("x-real-ip", ((b"x-real-ip", b"192.0.2.7"),), UNTRUSTED, False),  # FH13
        ("x-real-ip", ((b"x-real-ip", b"192.0.2.7, 1.2.3.4"),), GATEWAY, False),
        ("x-real-ip", 2 * ((b"x-real-ip", b"192.0.2.7"),), GATEWAY, False),
        ("x-real-ip", ((b"x-real-ip", b"localhost"),), GATEWAY, False),
        ("x-real-ip", ((b"x-forwarded-for", b"192.0.2.7"),), GATEWAY, False),  # FH16
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7"),), GATEWAY, True),
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7, 10.0.0.1"),), GATEWAY, True),
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7, 203.0.113.9"),), GATEWAY, False),  # FH14
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-for", b"203.0.113.9")), GATEWAY, False),
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7, x"),), GATEWAY, False),
        ("x-forwarded-for", ((b"x-forwarded-for", b"10.0.0.1"),), GATEWAY, False),
        ("x-forwarded-for", ((b"x-forwarded-for", b""),), GATEWAY, False),
        ("x-forwarded-for", ((b"forwarded", b"for=192.0.2.7"),), GATEWAY, False),
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7" + b", 10.0.0.1" * 40),), GATEWAY, True),
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7, " * 300 + b"10.0.0.1"),), GATEWAY, True),
        ("x-forwarded-for", ((b"x-forwarded-for", b"192.0.2.7" + b", 10.0.0.1" * 300),), GATEWAY, False),
    ],
)  # fmt: skip
def test_fh13_to_fh17_trusted_ips_match_client_address(
    name: str, fields: Any, peer: str, passes: bool
) -> None:
    ruled = harness(
        trusted_ips=("192.0.2.0/24", "2001:db8::/32"), real_client_ip_header=name
    )
    response = ruled.get("/oauth2/auth", *fields, jar={}, peer=peer)
    assert response.status == (202 if passes else 401)
    assert isinstance(ruled.send("/a", *fields, jar={}, peer=peer), Forward) == passes


@pytest.mark.parametrize("name", ["x-real-ip", "x-forwarded-for"])
@pytest.mark.parametrize(
    "values",
    [
        [],
        ["nonsense"],
        [""],
        [" "],
        [","],
        ["198.51.100.1", "x"],
        ["10.0.0.9, 203.0.113.9"],
        ["10.0.0.9", "203.0.113.9"],
    ],
)
def test_trusted_ips_gateway_address_does_not_count_for_clients(
    name: str, values: list[str]
) -> None:
    """FH32: even if the gateway's address is in ``trusted_ips``."""
    ruled = harness(trusted_ips=("10.0.0.0/8",), real_client_ip_header=name)
    fields = [(name.encode(), value.encode()) for value in values]
    response = ruled.get("/oauth2/auth", *fields, jar={}, peer=GATEWAY)
    assert response.status == 401
    assert ruled.get("/a", *fields, jar={}, peer=GATEWAY).status == 403
    known = (name.encode(), b"10.0.0.9")
    assert ruled.get("/oauth2/auth", known, jar={}, peer=GATEWAY).status == 202


@pytest.mark.parametrize(
    "name",
    [
        "x-real-ip", "x-proxyuser-ip", "x-envoy-external-address", "cf-connecting-ip",
        "x-forwarded-for",
    ],
)  # fmt: skip
def test_fh31_untrusted_peer_counts_with_its_own_address(name: str) -> None:
    """Whether its header names an exempt address or the peer itself is exempt."""
    ruled = harness(trusted_ips=("192.0.2.7",), real_client_ip_header=name)
    for claimed, peer, passes in (
        (b"192.0.2.7", UNTRUSTED, False),
        (b"203.0.113.9", "192.0.2.7", True),
        (b"192.0.2.7", GATEWAY, True),
    ):
        field = (name.encode(), claimed)
        response = ruled.get("/oauth2/auth", field, jar={}, peer=peer)
        assert response.status == (202 if passes else 401)


def test_az32_trusted_ip_neither_adds_nor_removes_identity() -> None:
    ruled = harness(trusted_ips=("192.0.2.7",), provider={"allowed_groups": ("none",)})
    response = ruled.get("/oauth2/auth", jar={})
    assert response.status == 202
    assert header(response, b"x-auth-request-email") == b""
    assert not headers(response, b"gap-auth")
    ruled.proxy = ruled.new_proxy(harness(trusted_ips=("192.0.2.7",)).settings)
    ruled.log_in()
    ruled.proxy = ruled.new_proxy(ruled.settings)
    # The bypass depends on the request only, so groups are not required.
    response = ruled.get("/oauth2/auth")
    assert (response.status, response.user) == (202, "alice@example.com")
    assert ruled.get("/oauth2/auth?allowed_groups=nobody").status == 403
    assert ruled.get("/oauth2/auth?allowed_groups=nobody", jar={}).status == 202


# -- sessions of exempt requests


def test_bypass_with_session_gets_identity_headers() -> None:
    ruled = harness("^/public/", cookie={"refresh": 60.0})
    ruled.log_in()
    ruled.clock.now += 100
    decision = ruled.send("/public/x", peer=UNTRUSTED)
    assert isinstance(decision, Forward)
    assert (b"x-forwarded-email", b"alice@example.com") in decision.headers
    assert any(name == b"set-cookie" for name, _ in decision.response_headers)
    assert isinstance(
        ruled.send("/public/x?allowed_groups=no", peer=UNTRUSTED), Respond
    )
    assert isinstance(ruled.send("/admin", peer=UNTRUSTED), Forward)


def test_bypass_authorized_session_answered_before_bypass_rules() -> None:
    """Bypass rules also allow unauthorized users; query constraints apply to all."""
    user = harness("^/public/", email_domains=("example.com",))
    user.log_in()
    uri = (b"x-forwarded-uri", b"/public/x")
    for _ in range(2):
        first = user.get("/oauth2/auth", uri, peer=GATEWAY)
        assert (first.status, first.reason) == (202, "session")
    assert user.get("/oauth2/auth", uri, peer=GATEWAY) is first  # the cached response
    demanding = "/oauth2/auth?allowed_groups=nobody"
    assert user.get(demanding, uri, peer=GATEWAY).status == 403
    others = with_changes(user.settings, email_domains=("elsewhere.com",))
    user.proxy = user.proxy.with_settings(others)
    assert user.get("/oauth2/auth", peer=GATEWAY).status == 403
    let_in = user.get("/oauth2/auth", uri, peer=GATEWAY)
    assert (let_in.status, let_in.reason) == (202, "skipped")
    assert isinstance(user.send("/public/x", peer=UNTRUSTED), Forward)
    assert isinstance(user.send("/closed", peer=UNTRUSTED), Respond)


def test_bypass_session_of_another_host_ignored() -> None:
    bound = {"hosts": ("app.example.com",)}
    user = harness("^/public/", provider=bound)
    user.log_in()
    other = (b"host", b"b.example.com")
    for uri, statuses in (("/admin", (202, 401)), ("/public/", (202, 202))):
        fields = ((b"x-forwarded-uri", uri.encode()),)
        assert user.get("/oauth2/auth", *fields, peer=GATEWAY).status == statuses[0]
        foreign = user.get("/oauth2/auth", *fields, other, peer=GATEWAY)
        assert foreign.status == statuses[1]
        assert not headers(foreign, b"gap-auth")


def test_bypass_cached_token_answered_before_bypass_rules() -> None:
    accepted = CredentialSettings(jwt_bearer_tokens=True)
    caller = harness("^/public/", credentials=accepted)
    field = (b"authorization", f"Bearer {caller.token()}".encode())
    for _ in range(3):  # a token seen only once is not cached
        assert caller.get("/oauth2/auth", field, peer=GATEWAY).status == 202
    request = caller.request("/oauth2/auth", field, peer=GATEWAY)
    assert isinstance(caller.proxy.check(request), Respond)
    caller.clock.now += 24 * 3600
    assert caller.get("/oauth2/auth", field, peer=GATEWAY).status == 401


def test_invalid_session_cookie_cleared_by_response() -> None:
    jar = {b"_oauth2_proxy": b"broken"}
    decision = RULED.send("/public/x", peer=UNTRUSTED, jar=jar)
    assert isinstance(decision, Forward)
    [(_, value)] = [f for f in decision.response_headers if f[0] == b"set-cookie"]
    assert b"Max-Age=0" in value


def test_userinfo_bypass_without_session_returns_empty_document() -> None:
    field = (b"x-forwarded-uri", b"/public/x")
    response = RULED.get("/oauth2/userinfo", field, jar={}, peer=GATEWAY)
    assert (response.status, response.body) == (200, b"{}")
    assert RULED.get("/oauth2/userinfo", jar={}, peer=GATEWAY).status == 401
    user = harness(*ROUTES)
    user.log_in()
    response = user.get("/oauth2/userinfo", field, peer=GATEWAY)
    assert b"alice@example.com" in response.body


# -- API routes


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        ("/api/x", (), 401),
        ("/x?y=/api/", (), 401),
        ("/page", (), 403),
        ("/page", ((b"x-forwarded-uri", b"/api/x"),), 401),
        ("/api/x", ((b"x-forwarded-uri", b"/page"),), 403),
    ],
)
def test_api_route_without_session_gets_401_json(
    target: str, fields: Any, status: int
) -> None:
    ruled = harness(api_routes=("/api/",))
    response = ruled.get(target, *fields, jar={}, peer=GATEWAY)
    assert response.status == status
    assert (response.body == b"{}") == (status == 401)


def test_forward_auth_api_route_not_redirected_to_login() -> None:
    ruled = harness(api_routes=("^/api/",), skip_provider_button=True)
    browser = ((b"sec-fetch-mode", b"navigate"), (b"x-forwarded-proto", b"https"))
    for uri, status in ((b"/api/x", 401), (b"/page", 302)):
        fields = ((b"x-forwarded-uri", uri), *browser)
        response = ruled.get("/oauth2/forward_auth", *fields, jar={}, peer=GATEWAY)
        assert response.status == status


# -- HTTPS redirect


@pytest.mark.parametrize(
    ("fields", "secure", "port", "location"),
    [
        ((), False, 443, "https://app.example.com/x?y"),
        ((), True, 443, ""),
        (((b"x-forwarded-proto", b"HTTPS"),), False, 443, ""),
        (((b"x-forwarded-proto", b"http"),), True, 443, "https://app.example.com/x?y"),
        (((b"host", b"a.example:8080"),), False, 8443, "https://a.example:8443/x?y"),
        (((b"host", b"a.example:8080"),), False, 443, "https://a.example/x?y"),
        (((b"host", b"a.example"),), False, 8443, "https://a.example/x?y"),
        (((b"host", b"[::1]"),), False, 8443, "https://[::1]/x?y"),
        (((b"host", b"[::1]:80"),), False, 8443, "https://[::1]:8443/x?y"),
        (((b"x-forwarded-host", b"b.example"),), False, 443, "https://b.example/x?y"),
        (((b"x-forwarded-uri", b"/z"),), False, 443, "https://app.example.com/z"),
    ],
)
def test_force_https_redirects_http_request(
    fields: Any, secure: bool, port: int, location: str
) -> None:
    strict = harness(force_https=True, https_port=port)
    response = strict.get("/x?y", *fields, jar={}, secure=secure, peer=GATEWAY)
    assert response.status == (308 if location else 403)
    if location:
        assert header(response, b"location") == location.encode()
        ping = strict.get("/ping", *fields, jar={}, secure=secure, peer=GATEWAY)
        assert ping.status == 308


def test_force_https_auth_check_redirects_to_original_url() -> None:
    strict = harness(force_https=True)
    response = strict.get("/oauth2/forward_auth/deep?x", jar={}, secure=False)
    assert header(response, b"location") == b"https://app.example.com/deep?x"
    fields = ((b"x-forwarded-uri", b"/deep"), (b"x-forwarded-proto", b"http"))
    response = strict.get("/oauth2/forward_auth", *fields, jar={}, peer=GATEWAY)
    assert header(response, b"location") == b"https://app.example.com/deep"
    assert strict.get("/x", (b"host", b"a b"), jar={}).status == 400


# -- health paths


def test_sk28_sk31_health_path_ignores_other_original_uri() -> None:
    for path in ("/ping", "/ready", "/robots.txt"):
        about = (b"x-forwarded-uri", b"/admin")
        assert RULED.get(path, about, jar={}, peer=GATEWAY).status == 403
        own = (b"x-forwarded-uri", path.encode())
        assert RULED.get(path, own, jar={}, peer=GATEWAY).status == 200
        assert RULED.get(path, about, jar={}, peer=UNTRUSTED).status == 200


def test_sk32_health_path_hides_exactly_one_path_of_the_application() -> None:
    hidden = harness("^/public/", ping_path="/admin")
    assert hidden.get("/admin", jar={}).body == b"OK"
    for target in ("/admin/", "/admin/x", "/Admin", "/%61dmin", "//admin", "/admin;x"):
        assert not skipped(target, given=hidden)


@pytest.mark.parametrize(
    ("path", "agent", "status"),
    [
        ("/liveness_check", b"GoogleHC/1.0", 200),
        ("/readiness_check", b"GoogleHC/1.0", 200),
        ("/ping", b"GoogleHC/1.0", 200),
        ("/ping", b"probe", 200),
        ("/liveness_check", b"probe", 200),
        ("/liveness_check", b"other", 403),
        ("/ping", b"other", 403),
        ("/admin", b"GoogleHC/1.0", 403),
    ],
)
def test_gcp_healthchecks_paths_and_user_agent(
    path: str, agent: bytes, status: int
) -> None:
    checked = harness(gcp_healthchecks=True, ping_user_agent="probe")
    response = checked.get(path, (b"user-agent", agent), jar={})
    assert response.status == status


# -- settings


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        ({"skip_auth_routes": ("GET=(",)}, "skip_auth_routes: got '(', expected"),
        ({"skip_auth_routes": ("=(?=x)",)}, "skip_auth_routes"),
        ({"skip_auth_regex": (r"\1",)}, "skip_auth_regex"),
        ({"api_routes": ("a{2000}",)}, "api_routes"),
        ({"trusted_ips": ("10.0.0.1/8",)}, "trusted_ips: got '10.0.0.1/8', expected"),
        ({"trusted_ips": ("home",)}, "trusted_ips"),
    ],
)
def test_bypass_invalid_option_reported(gate: Any, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check(settings(auth_bypass=AuthBypassSettings(**gate)))
    assert len(caught.value.problems) == 1
    assert text in caught.value.problems[0]


@pytest.mark.parametrize(
    ("pattern", "anchored"),
    [
        ("^/a", True),
        (r"\A/a", True),
        ("(?i)^/a", True),
        ("^(/a|/b)$", True),
        ("^/a[|]b", True),
        (r"^/a\|b", True),
        ("^/a|/b", False),
        ("/a", False),
        ("(^/a)", False),
        ("", False),
    ],
)
def test_bypass_unanchored_rule_warned(pattern: str, anchored: bool) -> None:
    gate = AuthBypassSettings(
        skip_auth_regex=(pattern,),
        skip_auth_routes=(f"GET={pattern}", f"GET!={pattern}"),
    )
    options = ["skip_auth_regex", "skip_auth_routes"]
    found = list(auth_bypass_warnings(gate))
    assert [option for option, _ in found] == ([] if anchored else options)
    assert all("not anchored" in text for _, text in found)


@pytest.mark.parametrize(
    ("route", "text"),
    [("^/a=b", "write =^/a=b"), ("=^/a!=b", "is not negated"), ("=^/a=b", "")],
)
def test_bypass_misleading_route_warned(route: str, text: str) -> None:
    found = list(auth_bypass_warnings(AuthBypassSettings(skip_auth_routes=(route,))))
    assert bool(found) == bool(text)
    assert text in "".join(text for _, text in found)


# -- arbitrary input


@given(st.binary(max_size=40))
@example(b"")
def test_unambiguous_path_has_single_decoding(tail: bytes) -> None:
    path = unambiguous_path(b"/" + tail)
    if path is None:
        return
    assert unquote(path) == path
    assert path.startswith("/")
    assert not path.startswith("//")
    assert not set(path) & set("\\;#?\0\r\n")
    assert not {".", ".."} & set(path.split("/"))


@given(st.binary(max_size=40).map(lambda tail: b"/public/" + tail))
def test_bypass_matched_path_is_beneath_rule(target: bytes) -> None:
    gate = AuthBypass(
        AuthBypassSettings(skip_auth_routes=("^/public/",)),
        TrustedProxies(Settings()),
        "/oauth2",
    )
    request = RULED.request(target, jar={})
    original = OriginalRequest(b"GET", "https", "h", target, "")
    if gate.applies(request, original):
        raw = target.partition(b"?")[0].lower()
        assert b"%2f" not in raw
        assert b".." not in raw.split(b"/")


@pytest.mark.parametrize(
    "values",
    [
        {"skip_auth_routes": ("^/public/", "")},
        {"skip_auth_routes": ("GET=",)},
        {"skip_auth_routes": ("!=",)},
        {"skip_auth_regex": ("",)},
        {"api_routes": ("^/api/", "")},
    ],
)
def test_bypass_empty_pattern_refused(values: dict[str, Any]) -> None:
    [problem] = auth_bypass_problems(AuthBypassSettings(**values))
    assert problem.startswith(f"{next(iter(values))}: got an empty pattern")


@given(st.text(max_size=30))
def test_parse_route_splits_or_reports(route: str) -> None:
    method, _, pattern = parse_route(route)
    assert route.startswith(method)
    assert route.endswith(pattern)
    gate = AuthBypassSettings(skip_auth_routes=(route,))
    assert all("skip_auth_routes: got" in text for text in auth_bypass_problems(gate))
    assert all(option == "skip_auth_routes" for option, _ in auth_bypass_warnings(gate))


def test_force_https_direct_https_request_not_redirected() -> None:
    plain = OriginalRequest(b"GET", "http", "h:80", b"/", "")
    response = HttpsRedirect(AuthBypassSettings(force_https=True)).redirect(plain)
    assert response is not None
    assert header(response, b"location") == b"https://h/"
