"""Routing to upstreams, and the request headers that they get."""

from __future__ import annotations

import html
from typing import Any

import pytest

from authproxy_core import Forward, Respond, ServeFile, UpstreamSettings
from authproxy_core.errors import SettingsError
from authproxy_core.messages import header_values, upstream_name
from authproxy_core.settings.root import ClaimSource, HeaderRule
from authproxy_core.settings.rules import AccessRule, Condition, RuleSettings
from authproxy_core.upstreams.headers import MAX_FIELD_NAMES
from support.forwarding import field_names, forward, signed_in
from support.harness import Harness, header, settings

OPEN = signed_in(reverse_proxy=True)


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
        ("/a%2Fb//c%3fd", b"/a%2Fb/c%3fd"),
        ("/a/../b%2Fc%2f", b"/b%2Fc%2f"),
        ("/files/a%2Fb/../c", b"/files/c"),
        ("/a//../b", b"/a/b"),
        ("/a/b/%2E%2e/.%2e/..", b"/"),
        ("/a/b/%2e?q", b"/a/b/?q"),
        ("/.//\\evil.example", b"/%5Cevil.example"),
        ("/a//b!$&'()*+,;=:@~|c", b"/a/b!$&'()*+,;=:@~%7Cc"),
    ],
)
def test_forward_unclean_path_redirects(target: str, location: bytes) -> None:
    response = signed_in().get(target)
    link = (
        b'<a href="%b">Moved Permanently</a>.\n'
        % html.escape(location.decode()).encode()
    )
    assert (response.status, response.body) == (301, link)
    assert header(response, b"location") == location


@pytest.mark.parametrize(
    "target", ["/a%2Fb", "/a/%252e%252e/b", "/%2E%2e%2e/b", "/a%2F"]
)
def test_forward_escaped_path_without_dot_segments_kept(target: str) -> None:
    assert forward(signed_in(), target).target == target.encode()


@pytest.mark.parametrize(
    "target",
    [
        "/api/x", "/%61pi/x", "/x/../api/x", "/x/%2e%2e/api/x", "//api/x", "/./api/x",
        "/x//..//api/x", "/api%2fx", "/x%2f..%2fapi%2fx", "/api;a/x", "/x/..;/api/x",
        "/x%5c..%5capi/x", "/api%252fx", "/x/.%00./api/x", "/%c0%afapi/x", "/api/../x",
    ],
)  # fmt: skip
def test_sk35_route_is_that_of_the_path_which_the_rules_checked(target: str) -> None:
    """A path that is routed to the protected upstream has met its rule."""
    rules = RuleSettings(
        rules=(AccessRule(paths=("/api/",), when=Condition(groups=("admins",))),)
    )
    harness = Harness(
        settings(access=rules, upstreams=(upstream_at("/api/"), upstream_at("/")))
    )
    harness.log_in("bob")
    decision = harness.send(target)
    if isinstance(decision, Forward):
        assert upstream_name(decision.upstream) == "/"
        assert not decision.target.startswith((b"/api/", b"//"))
    else:
        assert isinstance(decision, Respond)
        assert decision.status in (301, 400, 403)


def test_route_with_raw_path_matches_undecoded_path() -> None:
    harness = signed_in(upstream_at("/a%2Fb/"), upstream_at("/"), proxy_raw_path=True)
    assert forward(harness, "/a%2Fb/x").upstream.id == "/a%2Fb/"
    assert forward(harness, "/a%2F%2Fb").upstream.id == "/"
    assert header(harness.get("/a//b?x"), b"location") == b"/a/b?x"
    assert header(harness.get("//\\evil.example"), b"location") == b"/%5Cevil.example"
    assert forward(harness, "/%2e%2e/x").target == b"/%2e%2e/x"


@pytest.mark.parametrize(
    "target", ["/rw/..%2f..%2fadmin", "/rw/%2e%2e%2fadmin", "/rw/..%5cadmin"]
)
def test_raw_path_with_rewrite_stays_in_target(target: str) -> None:
    harness = signed_in(
        upstream_at("^/rw/(.*)$", "/base/$1"), upstream_at("/"), proxy_raw_path=True
    )
    assert harness.get(target).status == 400
    assert forward(harness, "/rw/a%2Fb").target == b"/base/a/b"


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
