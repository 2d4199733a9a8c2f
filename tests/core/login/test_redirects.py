"""Open redirects: accepted targets stay on the host in a browser's URL parser."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authproxy_core.login.redirects import MAX_WRAPPINGS, RedirectPolicy
from authproxy_core.messages import Request
from authproxy_core.request.hosts import listed_hosts
from authproxy_core.request.original import TrustedProxies
from support import whatwg
from support.harness import HOST, Harness, header, settings
from support.programs import find

POLICY = RedirectPolicy(
    settings(whitelist_domains=(".example.com", "listed.test:8443", "any.test:*"))
)
OWN = "app.example.com"

REFUSED = {
    "or01": ["//evil.com", "//evil.com/..", "//evil.com/x/../..", "//evil.com/../../x",
             "/\\evil.com/../../x", "/\\evil.com/.."],
    "or02": ["///evil.com", "////evil.com", "/////evil.com"],
    "or04": ["/%5cevil.com", "//%5cevil.com", "/%5c%5cevil.com", "/%255cevil.com"],
    "or05": ["/%09/evil.com", "/\t/evil.com", "%09//evil.com", "/%09%5cevil.com"],
    "or07": [
        "/%0b/evil.com", "/%0c/evil.com", "/%00/evil.com", "/%20/evil.com",
        "/%a0/evil.com", "/%e2%80%80/evil.com", "/%e3%80%80/evil.com",
    ],
    "or08": [
        "/.//evil.com", "/./\\evil.com", "/..//evil.com", "/../\\evil.com",
        "/.%2f/evil.com", "/%2e%2f/evil.com", "/x/..//evil.com",
    ],
    "or08_at_the_end": ["/.//.", "/%2e//.", "/x/..//.", "/..//x/.."],
    "or10": ["//evil.com/%2f..", "//evil.com/%2e%2e%2f", "////evil.com/%2f%2e%2e"],
    "or11": ["https:evil.com", "https:/evil.com", "https:///evil.com",
             "https:\\\\evil.com", "http:evil.com"],
    "or13": ["ht\ttps://evil.com", "ht\ntp://evil.com", "ht%09tps://evil.com"],
    "or14": ["https://app.example.com@evil.com", "https://app.example.com:pw@evil.com",
             "//app.example.com%40evil.com", "https://u@app.example.com"],
    "or16": ["https://evil.com#@app.example.com", "https://evil.com?.example.com",
             "https://evil.com%23.example.com", "https://evil.com%3F.example.com"],
    "or17": ["https://evil.com;.example.com", "https://evil.com%00.example.com",
             "https://evil.com%0a.example.com", "https://evil.com%2f.example.com"],
    "or19": ["https://example.com.evil.com", "https://app.example.com.evil.com",
             "https://badexample.com"],
    "or22": ["https://app.example.com:8443", "https://listed.test",
             "https://listed.test:80", "https://any.test:99999"],
    "or23": ["https://app.example.com:80@evil.com",
             "https://app.example.com:443%40evil.com"],
    "or25": ["javascript:alert(1)", "/%09/javascript:alert(1)", "data:text/html,x",
             "vbscript:x", "file:///x", "ftp://app.example.com"],
    "or26": ["//[::ffff:1.2.3.4]", "http://0x7f.1", "http://017700000001",
             "//2130706433", "http://[::]"],
    "or28": ["https://xn--exmple-cua.com", "https://ex\u0430mple.com"],
    "or29": ["https://ex%61mple.com/", "https://app.example.com%2eevil.com"],
    "or31": ["", "x", "/" + "x" * 100_000],
    "or44": ["/oauth2/sign_out", "/oauth2/start", "/oauth2/callback?code=1",
             "/x/../oauth2/sign_out", "/%6fauth2/sign_out",
             "/oauth2\\start", "/oauth2/.", "//oauth2/start", "/x/%2e%2e/oauth2//start",
             "https://app.example.com/oauth2/start", "https://APP.example.com/./oauth2/x"],
    "scheme": ["HTTPS://app.example.com", "https:\\\\app.example.com", "//app.example.com"],
    "port": ["https://any.test:080", "https://any.test:-1", "https://any.test:65536"],
    "text": ["/a\x7f", "/a\ud800", "/\u200b/evil.com", "https://app.example.com/\n"],
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_or_rows_rejected(row: str) -> None:
    """All targets of a row are rejected.

    OR02, OR04, OR05, OR07, OR08, OR10, OR11, OR13, OR14, OR16, OR17, OR19, OR22, OR23,
    OR25, OR28, OR29, OR31.
    """
    for target in REFUSED[row]:
        assert not POLICY.allows(target, OWN), target


@pytest.mark.parametrize(
    "target",
    [
        "/", "/ok", "/ok?next=https://other", "/ok?u=https://other.org/x", "/ok?u=//x",
        "/a#b", "/a#//b", "/a/b/?x=/../y", "/%C3%A9", "/\u00e9", "/oauth2", "/oauth2x/",
        "https://app.example.com/x", "https://EXAMPLE.com/x", "http://a.b.example.com",
        "https://listed.test:8443/x", "https://any.test:1", "https://any.test",
        "https://other.example.com/oauth2/start", "https://app.example.com:",
        "https://app.example.com/x//y?z=//w", "/a//b", "/my file?q=a b", "/q?p=100%",
        "/x/..", "/x/.", "/a/../b//c",
    ],
)  # fmt: skip
def test_or32_valid_targets_allowed(target: str) -> None:
    assert POLICY.allows(target, OWN)


def test_or20_whitelist_entry_without_dot_excludes_subdomains() -> None:
    policy = RedirectPolicy(
        settings(whitelist_domains=("example.com", "[::1]", "bad host"))
    )
    assert policy.allows("https://example.com/", OWN)
    assert not policy.allows("https://app.example.com/", OWN)
    assert policy.allows("https://[::1]/", OWN)
    assert not policy.allows("https://[::2]/", OWN)
    assert not policy.allows("https://example.com./", OWN)
    dotted = RedirectPolicy(settings(whitelist_domains=("*.example.com",)))
    assert dotted.allows("https://example.com/", OWN)
    assert len(listed_hosts(["a", "b c", "*.d:*"])) == 2


@pytest.mark.skipif(not whatwg.available(), reason="node is not installed")
def test_or49_public_list_of_payloads_falls_back_to_root() -> None:
    go = find("go")
    if go is None:
        pytest.skip("go is not installed")
    done = subprocess.run(
        [str(go), "env", "GOMODCACHE"], capture_output=True, text=True, check=True
    )
    found = sorted(
        Path(done.stdout.strip()).glob(
            "github.com/oauth2-proxy/oauth2-proxy/v7@*/testdata/openredirects.txt"
        )
    )
    if not found:
        pytest.skip("oauth2-proxy's module is not installed")
    payloads = found[-1].read_text(errors="replace").splitlines()
    assert len(payloads) > 500
    targets = [form for line in payloads for form in (line, unquote(line))]
    strict = RedirectPolicy(settings())
    accepted = [target for target in targets if strict.allows(target, OWN)]
    for target, where in zip(accepted, whatwg.resolve(accepted), strict=True):
        assert where == ("https:", OWN), target


def test_or26_whitelisted_ip_address_matches_one_spelling() -> None:
    listed = ("10.0.0.1", "[2001:db8::1]:8443", ".0.0.1", "0x7f", "*")
    policy = RedirectPolicy(settings(whitelist_domains=listed))
    for target in ("http://10.0.0.1/", "https://[2001:DB8::1]:8443/x"):
        assert policy.allows(target, OWN), target
    for target in (
        "http://010.0.0.1/", "http://9.0.0.1/", "http://0x7f/", "http://10.1/",
        "http://[2001:db8::1]/", "http://[2001:db8:0::1]:8443/", "http://*/",
    ):  # fmt: skip
        assert not policy.allows(target, OWN), target


def test_or40_target_checked_with_current_whitelist() -> None:
    target = "https://app.example.com/x"
    assert POLICY.allows(target, OWN)
    assert not RedirectPolicy(settings()).allows(target, OWN)


ALPHABET = "/\\.%:?#@;&= \t\n\r\0-_2fF5cC0o9aexmplhts[]\u3000\u2024\uff0f\u00ad"


@pytest.mark.skipif(not whatwg.available(), reason="node is not installed")
@hypothesis_settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["", "/", "//", "https://", "/x/", "https://app.example.com"]
            ),
            st.text(ALPHABET, max_size=12),
        ).map("".join),
        min_size=50,
        max_size=100,
    )
)
def test_or49_accepted_target_stays_on_host_in_browsers(
    targets: list[str],
) -> None:
    accepted = [target for target in targets if POLICY.allows(target, OWN)]
    for target, where in zip(accepted, whatwg.resolve(accepted), strict=True):
        assert where is not None, target
        name = where[1].partition(":")[0]
        assert name == "example.com" or name.endswith(".example.com"), target


@given(st.text() | st.text(ALPHABET))
def test_is_safe_never_raises(target: str) -> None:
    assert POLICY.allows(target, OWN) in (True, False)


def choose_target(
    *fields: tuple[bytes, bytes],
    target: bytes = b"/own?x=1",
    rd: str = "",
    peer: str = "10.0.0.1",
) -> str:
    configured = settings(reverse_proxy=True, whitelist_domains=(".example.com",))
    request = Request(b"GET", target, ((b"host", HOST), *fields), peer)
    original = TrustedProxies(configured).original(request)
    return RedirectPolicy(configured).choose(
        request, original, {"rd": rd} if rd else {}
    )


def test_choose_returns_first_allowed_candidate() -> None:
    header = (b"x-auth-request-redirect", b"/header")
    uri = (b"x-forwarded-uri", b"/forwarded?y=2")
    host = (b"x-forwarded-host", b"other.example.com")
    forwarded = (b"x-forwarded-host", b"evil.com")
    assert choose_target(header, uri, rd="/rd") == "/rd"
    assert choose_target(header, uri, rd="//evil.com") == "/header"
    assert choose_target(header, header, uri) == "/forwarded?y=2"
    assert choose_target(uri) == "/forwarded?y=2"
    assert choose_target(host, uri) == "http://other.example.com/forwarded?y=2"
    assert choose_target(forwarded, uri) == "/forwarded?y=2"
    assert choose_target() == "/own?x=1"
    assert choose_target(target=b"/oauth2/sign_in?x=1") == "/"
    assert choose_target((b"x-forwarded-uri", b"/oauth2/auth")) == "/"
    assert choose_target((b"x-auth-request-redirect", b"/\xff")) == "/own?x=1"


def test_or34_forwarded_headers_of_untrusted_client_ignored() -> None:
    fields = (
        (b"x-forwarded-host", b"other.example.com"),
        (b"x-forwarded-uri", b"/forwarded"),
        (b"forwarded", b"host=evil.com"),
        (b"x-original-url", b"https://evil.com/"),
    )
    assert choose_target(*fields, peer="203.0.113.9") == "/own?x=1"


def test_or35_unlisted_host_of_gateway_rejected() -> None:
    forwarded = (b"x-forwarded-host", b"evil.com")
    assert choose_target(forwarded, (b"x-forwarded-uri", b"/x")) == "/x"


def test_or37_forwarded_scheme_limited_to_http_and_https() -> None:
    host = (b"x-forwarded-host", b"other.example.com")
    assert choose_target(host, (b"x-forwarded-proto", b"javascript"), target=b"/x") == (
        "http://other.example.com/x"
    )
    assert choose_target(host, (b"x-forwarded-proto", b"HTTPS"), target=b"/x") == (
        "https://other.example.com/x"
    )


def test_or44_proxy_endpoints_rejected_as_login_target() -> None:
    host = (b"x-forwarded-host", b"other.example.com")
    uri = (b"x-forwarded-uri", b"/oauth2/auth")
    assert choose_target(host, uri) == "http://other.example.com/"
    assert choose_target(uri, rd="/oauth2/sign_out") == "/"


@pytest.mark.parametrize(
    "rd",
    [
        "/oauth2/userinfo",
        "/oauth2/auth",
        "/oauth2/auth?allowed_groups=a#b",
        "https://app.example.com/oauth2/userinfo",
    ],
)
def test_or44_endpoints_that_end_nothing_allowed_as_login_target(rd: str) -> None:
    assert choose_target(rd=rd) == rd
    assert POLICY.allows(rd, OWN)


@pytest.mark.parametrize(
    "rd",
    [
        "/oauth2/%61uth",
        "/oauth2/auth/",
        "/oauth2/auth/../sign_out",
        "/oauth2//auth",
        "/oauth2/auth%2f..%2fsign_out",
        "/oauth2/auth;x",
        "/oauth2/userinfo\\..\\start",
        "/oauth2/forward_auth",
        "//app.example.com/oauth2/auth",
    ],
)
def test_or44_other_spellings_of_endpoints_rejected(rd: str) -> None:
    assert choose_target(rd=rd) == "/own?x=1"
    assert not POLICY.allows(rd, OWN)


def wrap(target: str, times: int, page: str = "/oauth2/sign_in") -> str:
    """Return the URL of a login that returns to a login … that returns to *target*."""
    for _ in range(times):
        target = f"{page}?rd={quote(target, safe='')}"
    return target


@pytest.mark.parametrize("times", range(1, MAX_WRAPPINGS + 1))
@pytest.mark.parametrize("page", ["/oauth2/sign_in", "/oauth2/start"])
def test_or44_target_of_login_page_is_its_own_target(page: str, times: int) -> None:
    for target in ("/x?y=1&z=2#f", "/oauth2/userinfo", "https://b.example.com/x"):
        assert choose_target(rd=wrap(target, times, page)) == target
    absolute = "https://app.example.com" + page
    assert choose_target(rd=wrap("/x", times, absolute)) == "/x"


@pytest.mark.parametrize(
    "rd",
    [
        wrap("/x", MAX_WRAPPINGS + 1),
        wrap("/x", 200),
        wrap("//evil.com", 1),
        wrap("//evil.com", MAX_WRAPPINGS),
        wrap("https://evil.com/x", 2),
        wrap("javascript:alert(1)", 1),
        wrap("/oauth2/sign_out", 1),
        wrap("/oauth2/callback?code=1", 1),
        wrap("", 1),
        "/oauth2/start",
        "/oauth2/start?rd=%ff",
        "/oauth2/start?rd=%zz",
        "/oauth2/start?x=\ud800",
        "/oauth2/start?" + "a=b&" * 1000,
        "/oauth2/sign_out?rd=/x",
        "/oauth2/callback?rd=/x",
        "/oauth2/%73tart?rd=/x",
        "/x/../oauth2/start?rd=/x",
        "https://evil.com/oauth2/start?rd=/x",
    ],
)
def test_or44_login_page_with_other_target_rejected(rd: str) -> None:
    assert choose_target(rd=rd) == "/own?x=1"


def test_or44_login_returns_to_userinfo(harness: Harness) -> None:
    for rd in ("/oauth2/userinfo", "/oauth2/start%3Frd%3D%252Foauth2%252Fuserinfo"):
        response = harness.log_in(rd=rd)
        assert header(response, b"location") == b"/oauth2/userinfo"
        assert harness.get("/oauth2/userinfo").status == 200
    page = harness.get("/oauth2/sign_in?rd=/oauth2/sign_in%3Frd%3D/deep", jar={})
    assert b"/oauth2/start?rd=%2Fdeep" in page.body


def test_or44_empty_prefix_rejects_the_endpoints_only() -> None:
    policy = RedirectPolicy(settings(proxy_prefix=""))
    for target in (
        "/sign_out",
        "/x/../start",
        "/callback/a?b",
        "/sign%5fout%3Fx",
        "//auth",
    ):
        assert policy.is_proxy_endpoint(target, OWN), target
    for target in ("/", "/authors", "/auth.html", "/app/start", "https://a.test/auth"):
        assert not policy.is_proxy_endpoint(target, OWN), target


def test_or41_sign_in_page_allowed_as_sign_out_target() -> None:
    configured = settings()
    policy = RedirectPolicy(configured)
    request = Request(b"GET", b"/oauth2/sign_out", ((b"host", HOST),), "203.0.113.9")
    original = TrustedProxies(configured).original(request)
    for rd, target in (
        ("/oauth2/sign_in", "/oauth2/sign_in"),
        ("//evil.com", "/"),
        ("https://evil.com", "/"),
        ("", "/"),
    ):
        form = {"rd": rd}
        assert (
            policy.choose(request, original, form, allow_proxy_endpoints=True) == target
        )
    assert policy.choose(request, original, {"rd": "/oauth2/sign_in"}) == "/"


@pytest.mark.parametrize("row", sorted(REFUSED.keys() - {"or44"}))
def test_or41_rejected_targets_of_sign_out_fall_back_to_root(row: str) -> None:
    request = Request(b"GET", b"/oauth2/sign_out", ((b"host", HOST),), "203.0.113.9")
    original = TrustedProxies(settings()).original(request)
    for target in REFUSED[row]:
        form = {"rd": target}
        chosen = POLICY.choose(request, original, form, allow_proxy_endpoints=True)
        assert chosen == "/", target


def test_redirect_ambiguous_request_target_falls_back_to_root() -> None:
    # The only candidate is the request target, which browsers do not parse as a path.
    assert choose_target(target=b"//evil.com/x") == "/"
    assert choose_target(target=b"/\\evil.com/x") == "/"


@pytest.mark.parametrize(
    ("rd", "fields", "target"),
    [
        ("https://app.example.com/x?y#z", (), "/x?y#z"),
        ("https://APP.example.com:443?y", (), "/?y"),
        ("http://app.example.com/x", (), "/x"),
        ("https://app.example.com", (), "/"),
        ("https://app.example.com:8443/x", (), "/own"),
        ("http://app.example.com/x", ((b"x-forwarded-proto", b"https"),), "/own"),
        ("https://app.example.com//evil.com", (), "/own"),
        ("https://app.example.com/\\evil.com", (), "/own"),
        ("https://app.example.com@evil.com/x", (), "/own"),
        ("https://app.example.com/oauth2/sign_out", (), "/own"),
        ("https:app.example.com/x", (), "/own"),
        (
            "https://app.example.com:8443/x",
            ((b"x-forwarded-host", b"app.example.com:8443"),),
            "/x",
        ),
        ("https://[::1]/x", ((b"x-forwarded-host", b"[::1]"),), "/x"),
        ("https://[::1]:443/x", ((b"x-forwarded-host", b"[::1]:8443"),), "/own"),
    ],
)
def test_target_on_original_origin_needs_no_whitelist_entry(
    rd: str, fields: tuple[tuple[bytes, bytes], ...], target: str
) -> None:
    configured = settings(reverse_proxy=True)
    request = Request(b"GET", b"/own", ((b"host", HOST), *fields), "10.0.0.1")
    original = TrustedProxies(configured).original(request)
    policy = RedirectPolicy(configured)
    assert policy.choose(request, original, {"rd": rd}) == target
