"""Routing to upstreams, and the request headers that they get."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import Any

import msgspec
import pytest

from authproxy_core import (
    Forward,
    Respond,
    Secret,
    ServeFile,
    Upstream,
    UpstreamSettings,
)
from authproxy_core.errors import SettingsError
from authproxy_core.messages import Header, Headers, header_values, upstream_name
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import ClaimSource, HeaderRule, SessionSettings
from authproxy_core.upstreams.headers import MAX_FIELD_NAMES
from support.fleet import Fleet
from support.harness import Harness, header, rule, settings, with_changes

APP = UpstreamSettings(id="app", uri="http://app.internal:8080")
WEBSOCKET: Headers = (
    (b"connection", b"keep-alive, Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
)


def signed_in(*upstreams: UpstreamSettings, **changes: Any) -> Harness:
    """Return a harness with a signed-in user."""
    harness = Harness(settings(upstreams=upstreams or (APP,), **changes))
    harness.log_in()
    return harness


OPEN = signed_in(reverse_proxy=True)


def forward(harness: Harness, target: str, *headers: Header, **changes: Any) -> Forward:
    decision = harness.send(target, *headers, **changes)
    assert isinstance(decision, Forward), decision
    return decision


def upstream_at(path: str, rewrite: str = "", **changes: Any) -> UpstreamSettings:
    return UpstreamSettings(
        id=path, path=path, uri="http://x", rewrite_target=rewrite, **changes
    )


# -- routing


def test_forward_strips_session_cookies() -> None:
    harness = signed_in()
    session = next(
        value for name, value in harness.request("/").headers if name == b"cookie"
    )
    for line, passed in (
        (session, []),
        (session + b"; a=1;b=2 ;; c; ", [b"a=1; b=2; c"]),
        (b"a=1; " + session, [b"a=1"]),
        (session + b"; ;", []),
    ):
        sent = forward(harness, "/", (b"cookie", line), jar={})
        assert header_values(sent.headers, b"cookie") == passed


def test_routes_rewriting_first_then_longer_path() -> None:
    harness = signed_in(
        upstream_at("/"),
        upstream_at("/a/long/prefix/"),
        upstream_at("/x/"),
        upstream_at("^/a", "/r"),
        upstream_at("^/a/b", "/q"),
    )
    for target, chosen in (
        ("/a/long/prefix/x", "^/a"),
        ("/a/bc", "^/a/b"),
        ("/x/y", "/x/"),
        ("/x", "/"),
        ("/y", "/"),
    ):
        assert forward(harness, target).upstream.id == chosen


def test_forward_rewrites_target() -> None:
    harness = signed_in(upstream_at("^/api/(.*)$", "/$1?v=1"))
    assert forward(harness, "/api/a%20b?z=1&a=2").target == b"/a%20b?a=2&v=1&z=1"


def test_forward_without_rewrite_keeps_target() -> None:
    target = "/a%2fb%20;x?q=%zz&;"
    assert forward(signed_in(), target).target == target.encode()


def test_route_matches_decoded_path() -> None:
    harness = signed_in(upstream_at("/a b/"), upstream_at("/c/"))
    assert forward(harness, "/%61%20b/x").upstream.id == "/a b/"
    assert forward(harness, "/%61%20b/x").target == b"/%61%20b/x"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/a%2F%2Fb", b"/a/b"),
        ("/%2F/?q", b"/?q"),
        ("/%2e%2e/x", b"/x"),
        ("/a/./b?q=//", b"/a/b?q=//"),
        ("/a//", b"/a/"),
        ("/a/..%2f..%2f%2fevil.example", b"/evil.example"),
        ("/.%5C..//x", b"/.%5C../x"),
    ],
)
def test_forward_unclean_path_redirects(target: str, location: bytes) -> None:
    response = signed_in().get(target)
    assert (response.status, response.body) == (301, b"")
    assert header(response, b"location") == location


def test_route_with_raw_path_matches_undecoded_path() -> None:
    harness = signed_in(upstream_at("/a%2Fb/"), upstream_at("/"), proxy_raw_path=True)
    assert forward(harness, "/a%2Fb/x").upstream.id == "/a%2Fb/"
    assert forward(harness, "/a%2F%2Fb").upstream.id == "/"
    assert header(harness.get("/a//b?x"), b"location") == b"/a/b?x"


def test_forward_path_without_final_slash_redirects() -> None:
    harness = signed_in(upstream_at("/a/"), upstream_at("^/r/$", "/"))
    assert header(harness.get("/a?q=1"), b"location") == b"/a/?q=1"
    assert header(harness.get("/r"), b"location") == b"/r/"
    assert harness.get("/b").status == 404
    assert harness.get("/a/..%2Fb/").status == 301


def test_route_with_path_variables() -> None:
    harness = signed_in(
        upstream_at("/u/{name}/"),
        upstream_at("/n/{id:[0-9]{2,3}}"),
        upstream_at("/c.d/{x}"),
    )
    assert forward(harness, "/u/x/y").upstream.id == "/u/{name}/"
    assert forward(harness, "/n/12").upstream.id == "/n/{id:[0-9]{2,3}}"
    assert forward(harness, "/c.d/%C3%BC").upstream.id == "/c.d/{x}"
    for target in ("/n/1", "/n/12/", "/n/1234", "/cxd/1"):
        assert harness.get(target).status == 404
    assert harness.get("/u/%FF/y").status == 400


@pytest.mark.parametrize(
    ("upstream", "problem"),
    [
        (upstream_at("/{a"), "braces"),
        (upstream_at("/a}b{c}"), "braces"),
        (upstream_at("/{a:(}"), "missing"),
        (upstream_at("/{a}{b:[}"), "missing"),
        (upstream_at("(", "/x"), "missing"),
        (upstream_at("a"), "starts with /"),
        (UpstreamSettings(id="", uri="http://x"), "empty id"),
        (UpstreamSettings(id="x", uri="file:x"), "expected a URL"),
        (UpstreamSettings(id="x", uri="gopher://x"), "gopher"),
    ],
)
def test_invalid_upstream_rejected(upstream: UpstreamSettings, problem: str) -> None:
    with pytest.raises(SettingsError, match="upstreams: .*" + problem):
        Harness(settings(upstreams=(upstream,)))


def test_invalid_upstreams_reported_together() -> None:
    twice = UpstreamSettings(id="x", uri="http://x")
    with pytest.raises(SettingsError) as raised:
        Harness(settings(upstreams=(twice, twice, upstream_at("a"))))
    assert len(raised.value.problems) == 3


def test_upstream_tls_and_connection_settings() -> None:
    [upstream] = [
        forward(
            signed_in(
                UpstreamSettings(
                    id="x",
                    uri="https://10.0.0.1",
                    ca_pem="PEM",
                    trust_system=False,
                    server_name="app.internal",
                    disable_keep_alives=True,
                    insecure_skip_tls_verify=True,
                )
            ),
            "/",
        ).upstream
    ]
    assert (upstream.ca_pem, upstream.trust_system) == ("PEM", False)
    assert (upstream.server_name, upstream.port) == ("app.internal", 443)
    assert not upstream.keep_alive
    assert not upstream.verify


# -- static files


def serve_file(harness: Harness, target: str) -> ServeFile:
    decision = harness.send(target)
    assert isinstance(decision, ServeFile), decision
    return decision


def test_forward_serves_static_files() -> None:
    harness = signed_in(
        UpstreamSettings(id="root", path="/", uri="file:///srv/www/"),
        UpstreamSettings(id="web", path="/web/", uri="file:///srv/a%20b"),
        UpstreamSettings(id="one", path="/one", uri="file:///srv/one"),
        UpstreamSettings(
            id="re", path="^/old/(.*)", uri="file:///srv/new", rewrite_target="/n/$1"
        ),
        UpstreamSettings(id="var", path="/v/{x}/", uri="file:///srv/var"),
    )
    for target, root, path in (
        ("/", "/srv/www/", "/"),
        ("/a%20b/c?q", "/srv/www/", "/a b/c"),
        ("/web/x/y", "/srv/a b", "/x/y"),
        ("/one", "/srv/one", "/"),
        ("/old/x%20y", "/srv/new", "/n/x y"),
        ("/v/1/2", "/srv/var", "/v/1/2"),
    ):
        decision = serve_file(harness, target)
        assert (decision.root, decision.path) == (root, path)
    assert upstream_name(serve_file(harness, "/one")) == "one"
    assert upstream_name(forward(signed_in(), "/")) == "app"
    assert upstream_name(harness.get("/%FF")) == ""
    assert serve_file(harness, "/one").user == "alice@example.com"
    assert harness.get("/%FF").status == 400


# -- request headers


def field_names(decision: Forward) -> list[bytes]:
    return [name for name, _ in decision.headers]


@pytest.mark.parametrize("peer", ["10.0.0.1", "203.0.113.9"])
def test_forward_strips_identity_headers_of_client(peer: str) -> None:
    harness = signed_in(reverse_proxy=True)
    spoofed = (
        (b"x-forwarded-user", b"root"),
        (b"x_auth_request.email", b"root"),
        (b"gap-auth", b"root"),
        (b"transfer_encoding", b"chunked"),
        (b"content_length", b"5"),
        (b"x-custom", b"1"),
    )
    found = field_names(forward(harness, "/", *spoofed, peer=peer))
    assert b"x-custom" in found
    assert not {name for name, _ in spoofed[:-1]} & {*found}


def test_forward_keeps_client_header_if_rule_preserves_it() -> None:
    kept = HeaderRule("X-Forwarded-User", (ClaimSource("user"),), True)
    harness = signed_in(inject_request_headers=(kept,))
    decision = forward(harness, "/", (b"x-forwarded-user", b"me"))
    assert header_values(decision.headers, b"x-forwarded-user")[0] == b"me"
    harness = signed_in(strip_identity_headers=False)
    assert b"gap-auth" in field_names(forward(harness, "/", (b"gap-auth", b"x")))


def test_forward_strips_exact_spelling_only() -> None:
    exact = HeaderRule("X-Forwarded-User", (ClaimSource("user"),), strip_exactly=True)
    harness = signed_in(upstream_at("/"), inject_request_headers=(exact,))
    sent = ((b"x-forwarded-user", b"eve"), (b"x_forwarded_user", b"eve"))

    decision = forward(harness, "/", *sent)

    assert len(header_values(decision.headers, b"x-forwarded-user")) == 1
    assert dict(decision.headers)[b"x-forwarded-user"] != b"eve"
    assert dict(decision.headers)[b"x_forwarded_user"] == b"eve"


def test_forward_keeps_forwarded_headers_of_trusted_proxy() -> None:
    harness = signed_in(reverse_proxy=True)
    told = (
        (b"x-forwarded-for", b"198.51.100.1"),
        (b"x-forwarded-port", b"8443"),
        (b"x-original-url", b"/admin"),
        (b"forwarded", b"for=198.51.100.1"),
    )
    trusted = forward(harness, "/", *told, peer="10.0.0.1")
    chain = header_values(trusted.headers, b"x-forwarded-for")
    assert chain == [b"198.51.100.1, 10.0.0.1"]
    assert header_values(trusted.headers, b"forwarded") == [
        b"for=198.51.100.1",
        b"for=10.0.0.1",
    ]
    assert {b"x-forwarded-port", b"x-original-url"} <= {*field_names(trusted)}
    stranger = forward(harness, "/", *told, peer="203.0.113.9")
    chain = header_values(stranger.headers, b"x-forwarded-for")
    assert chain == [b"203.0.113.9"]
    assert not {b"forwarded", b"x-forwarded-port", b"x-original-url"} & {
        *field_names(stranger)
    }
    six = forward(harness, "/", (b"forwarded", b"for=x"), peer="::1")
    assert header_values(six.headers, b"forwarded")[1] == b'for="[::1]"'
    assert b"x-forwarded-for" not in field_names(forward(harness, "/", peer=""))


# Written out, because a name missing in the code's list would be missing here too.
ORIGINS = (
    b"forwarded x-client-ip x-cluster-client-ip x-forwarded-method x-forwarded-port "
    b"x-forwarded-prefix x-forwarded-scheme x-forwarded-server x-forwarded-ssl "
    b"x-forwarded-uri x-original-host x-original-method x-original-uri x-original-url "
    b"x-real-ip x-rewrite-url"
).split()
IDENTITIES = (
    b"gap-auth gap-signature x-auth-request-access-token x-auth-request-email "
    b"x-auth-request-groups x-auth-request-preferred-username x-auth-request-user "
    b"x-forwarded-access-token x-forwarded-email x-forwarded-groups "
    b"x-forwarded-preferred-username x-forwarded-user"
).split()


@pytest.mark.parametrize("name", [*ORIGINS, *IDENTITIES])
def test_forward_drops_forwarded_and_identity_headers_of_client(name: bytes) -> None:
    value = b"/forged" if name.endswith(b"uri") else b"forged"
    for spelt in (name, name.replace(b"-", b"_"), name.replace(b"-", b".")):
        field = (spelt, value)
        assert field not in forward(OPEN, "/", field, peer="203.0.113.9").headers
        passes = name in ORIGINS
        trusted = forward(OPEN, "/", field, peer="10.0.0.1").headers
        assert (field in trusted) is passes


def test_forward_untrusted_unix_peer_adds_no_hop() -> None:
    found = field_names(
        forward(signed_in(), "/", (b"x-forwarded-for", b"1.2.3.4"), peer="")
    )
    assert b"x-forwarded-for" not in found


def test_forward_returns_identity_headers_separately() -> None:
    """The object is reused, so that its encoding can be cached."""
    user = HeaderRule("X-Forwarded-User", (ClaimSource("email"),))
    harness = signed_in(inject_request_headers=(user,))
    one, two = forward(harness, "/a"), forward(harness, "/b", (b"x-a", b"b"))
    assert one.identity is two.identity
    assert one.headers[-len(one.identity) :] == one.identity
    assert two.headers[-len(two.identity) :] == two.identity
    assert one.reusable
    assert one.response_headers is two.response_headers
    assert one.response_headers[0] == (b"gap-auth", b"alice@example.com")
    refreshing = signed_in(cookie={"refresh": 60.0})
    refreshing.clock.now += 61
    renewed = forward(refreshing, "/")
    assert header_values(renewed.response_headers, b"set-cookie")
    assert not renewed.reusable


def test_forward_via_configured() -> None:
    decision = forward(signed_in(via="authproxy"), "/", (b"via", b"1.1 edge"))
    vias = header_values(decision.headers, b"via")
    assert vias == [b"1.1 edge", b"1.1 authproxy"]


def test_forward_te_trailers_if_client_accepts_them() -> None:
    decision = forward(signed_in(), "/", (b"te", b"gzip"), (b"te", b"x, Trailers"))
    assert header_values(decision.headers, b"te") == [b"trailers"]


def test_field_policy_cache_is_bounded() -> None:
    harness = signed_in()
    for number in range(MAX_FIELD_NAMES + 5):
        field = (b"x-%d" % number, b"1")
        assert b"x-%d" % number in field_names(forward(harness, "/", field))


# -- upgrades


def test_forward_websocket_upgrade() -> None:
    harness = signed_in(inject_request_headers=(rule("X-Forwarded-User", "user"),))
    decision = forward(harness, "/ws", *WEBSOCKET)
    assert decision.upgrade
    assert header_values(decision.headers, b"upgrade") == [b"websocket"]
    assert b"sec-websocket-version" in field_names(decision)
    assert header_values(decision.headers, b"x-forwarded-user") != [b""]
    assert not forward(harness, "/ws").upgrade


@pytest.mark.parametrize(
    "headers",
    [
        ((b"upgrade", b"websocket"),),
        ((b"upgrade", b"websocket"), (b"connection", b"close")),
        ((b"upgrade", b"h2c"), (b"connection", b"upgrade, http2-settings")),
        ((b"upgrade", b"HTTP/2.0"), (b"connection", b"upgrade")),
        ((b"upgrade", b"TLS/1.0"), (b"connection", b"upgrade")),
        ((b"upgrade", b"websocket, h2c"), (b"connection", b"upgrade")),
        ((b"upgrade", b"a/"), (b"connection", b"upgrade")),
        ((b"upgrade", b"websocket"), *WEBSOCKET),
        ((b"content-length", b"5"), *WEBSOCKET),
        ((b"transfer-encoding", b"chunked"), *WEBSOCKET),
    ],
)
def test_forward_rejected_upgrade_omits_it(headers: Headers) -> None:
    decision = forward(signed_in(), "/", *headers)
    assert not decision.upgrade
    assert b"upgrade" not in field_names(decision)


def test_forward_other_protocol_upgrade() -> None:
    spdy = ((b"upgrade", b"SPDY/3.1"), (b"connection", b"Upgrade"))
    decision = forward(signed_in(), "/", *spdy, (b"content-length", b"0"))
    assert header_values(decision.headers, b"upgrade") == [b"SPDY/3.1"]


def test_forward_upgrade_disabled_by_option() -> None:
    assert not forward(
        signed_in(upstream_at("/", proxy_websockets=False)), "/", *WEBSOCKET
    ).upgrade


def test_upgrade_without_session_returns_401() -> None:
    harness = Harness(settings(upstreams=(APP,)))
    assert harness.get("/", *WEBSOCKET).status == 401


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        (b"https://app.example.com", True),
        (b"http://APP.example.com:80", True),
        (b"https://app.example.com:443", True),
        (b"https://app.example.com:8443", False),
        (b"https://evil.example", False),
        (b"https://app.example.com.evil.example", False),
        (b"null", False),
        (b"ftp://app.example.com", False),
        (b"https://other.example.com", True),
        (b"https://other.example.com:444", False),
    ],
)
def test_upgrade_from_other_origin_denied(origin: bytes, passes: bool) -> None:
    harness = signed_in(websocket_origins=("https://Other.example.com/",))
    decision = harness.send("/", (b"origin", origin), *WEBSOCKET)
    assert isinstance(decision, Forward) == passes
    if isinstance(decision, Respond):
        assert (decision.status, decision.events[0].reason) == (403, "foreign_origin")
    assert isinstance(harness.send("/", (b"origin", origin)), Forward)


def test_upgrade_with_two_origins_denied_unless_any_allowed() -> None:
    origin = (b"origin", b"https://app.example.com")
    assert signed_in().get("/", origin, origin, *WEBSOCKET).status == 403
    foreign = (b"origin", b"https://evil.example")
    assert forward(
        signed_in(websocket_origins=("*",)), "/", foreign, *WEBSOCKET
    ).upgrade


# -- session re-check of open tunnels


ALLOWED = Forward(
    Upstream(id="app", scheme="http", host="10.0.0.9", port=80), b"GET", b"/ws", ()
)


def is_session_valid(harness: Harness, *headers: Header) -> bool:
    request = harness.request("/ws", *headers)
    found: bool = harness.run(harness.proxy.is_session_valid(request, ALLOWED))
    return found


def test_session_recheck_until_session_expires() -> None:
    harness = signed_in()
    assert is_session_valid(harness)
    harness.clock.now += 167 * 3600
    assert is_session_valid(harness)
    harness.clock.now += 3600
    assert not is_session_valid(harness)


def test_session_recheck_denied_session_closes() -> None:
    harness = signed_in()
    changed = with_changes(harness.settings, email_domains=("other.example",))
    harness.proxy = harness.proxy.with_settings(changed)
    assert not is_session_valid(harness)


def test_session_recheck_without_session_valid_only_if_bypassed() -> None:
    harness = Harness(settings(upstreams=(APP,)))
    assert not is_session_valid(harness)
    harness.jar[b"_oauth2_proxy"] = b"of-a-session-that-is-over"
    assert not is_session_valid(harness)
    request = harness.request("/ws")
    skipped = msgspec.structs.replace(ALLOWED, reason="skipped")
    assert harness.run(harness.proxy.is_session_valid(request, skipped))


@pytest.mark.parametrize("cookie", [b"", b"of-a-session-that-is-over"])
@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_session_recheck_with_credentials_ignores_cookie(
    kind: str, cookie: bytes
) -> None:
    bob = Secret(b"{SHA}" + b64encode(sha1(b"bob").digest()))
    accepted = CredentialSettings(jwt_bearer_tokens=True, users={"bob": bob})
    harness = Harness(settings(upstreams=(APP,), credentials=accepted))
    if cookie:
        harness.jar[b"_oauth2_proxy"] = cookie
    value = {"bearer": f"Bearer {harness.token()}", "basic": "Basic Ym9iOmJvYg=="}[kind]
    field = (b"authorization", value.encode())
    for _ in range(3):  # verified, verified and cached, cached
        decision = forward(harness, "/ws", field, *WEBSOCKET)
        assert (decision.verdict, decision.reason) == ("allowed", kind)
    request = harness.request("/ws", field, *WEBSOCKET)
    assert harness.run(harness.proxy.is_session_valid(request, decision))
    harness.clock.now += 24 * 3600
    assert harness.run(harness.proxy.is_session_valid(request, decision))


def test_upgrade_denied_user_with_credentials_denied() -> None:
    accepted = CredentialSettings(jwt_bearer_tokens=True)
    changes = {"upstreams": (APP,), "email_domains": ("other.example",)}
    harness = Harness(settings(credentials=accepted, **changes))
    field = (b"authorization", f"Bearer {harness.token()}".encode())
    response = harness.get("/ws", field, *WEBSOCKET)
    assert (response.status, response.verdict, response.reason) == (
        403,
        "denied",
        "email",
    )


def test_session_recheck_with_unknown_credentials_uses_session() -> None:
    accepted = CredentialSettings(jwt_bearer_tokens=True)
    harness = signed_in(credentials=accepted)
    field = (b"authorization", b"Bearer opaque")
    decision = forward(harness, "/ws", field, *WEBSOCKET)
    assert decision.reason == "session"
    request = harness.request("/ws", field, *WEBSOCKET)
    assert harness.run(harness.proxy.is_session_valid(request, decision))
    harness.clock.now += 168 * 3600
    assert not harness.run(harness.proxy.is_session_valid(request, decision))


@pytest.mark.parametrize("trusting", [True, False])
def test_session_recheck_after_sign_out_in_store(trusting: bool) -> None:
    stored = SessionSettings(backend="store", shared=True)
    fleet = Fleet(settings(upstreams=(APP,), sessions=stored), trusting=trusting)
    fleet[0].log_in()
    request = fleet.harness.request("/ws")
    assert fleet[1].run(fleet[1].proxy.is_session_valid(request, ALLOWED))
    fleet.store.away = not trusting
    assert fleet[1].run(fleet[1].proxy.is_session_valid(request, ALLOWED))
    fleet.store.away = False
    fleet[0].get("/oauth2/sign_out", (b"sec-fetch-site", b"same-origin"))
    assert not fleet[1].run(fleet[1].proxy.is_session_valid(request, ALLOWED))
