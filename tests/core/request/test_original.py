"""The original request: trusted peers, and ambiguous fields that are rejected."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from authproxy_core.errors import RequestError
from authproxy_core.messages import Request
from authproxy_core.request.original import (
    MAX_CACHED_ADDRESSES,
    MAX_URI,
    AddressSet,
    OriginalRequest,
    TrustedProxies,
    host_name,
    parse_address,
)
from authproxy_core.settings.root import Settings

GATEWAY = "10.0.0.1"
ATTACKER = "203.0.113.9"
OFF = TrustedProxies(Settings(real_client_ip_header="x-forwarded-for"))
PRIVATE = TrustedProxies(Settings(reverse_proxy=True))
LISTED = TrustedProxies(Settings(reverse_proxy=True, trusted_proxies=(GATEWAY,)))
CHAIN = TrustedProxies(
    Settings(
        reverse_proxy=True,
        trusted_proxies=(GATEWAY, "198.51.100.0/24", "2001:db8::/32"),
        real_client_ip_header="X-Forwarded-For",
    )
)


def request(
    *fields: tuple[str, str | bytes],
    peer: str = GATEWAY,
    target: bytes = b"/oauth2/auth",
    host: str | None = "app.example.com",
    secure: bool = False,
) -> Request:
    """A request of *peer* with *fields* after its Host field."""
    original = [("host", host)] if host is not None else []
    headers = tuple(
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in [*original, *fields]
    )
    return Request(b"GET", target, headers, peer, secure)


def is_rejected(*fields: tuple[str, str | bytes]) -> bool:
    """Return whether *fields* are rejected from the gateway, and from it only."""
    untrusted = LISTED.original(request(*fields, peer=ATTACKER))
    assert untrusted == LISTED.original(request(peer=ATTACKER))
    try:
        LISTED.original(request(*fields))
    except RequestError:
        return True
    return False


FORWARDED = (
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "Shop.example.com:8443"),
    ("x-forwarded-uri", "/admin?x=/public/"),
    ("x-forwarded-method", "POST"),
    ("x-real-ip", "192.0.2.7"),
)


def test_original_from_trusted_gateway() -> None:
    assert LISTED.original(request(*FORWARDED)) == OriginalRequest(
        method=b"POST",
        scheme="https",
        host="Shop.example.com:8443",
        uri=b"/admin?x=/public/",
        client="192.0.2.7",
        forwarded=True,
        trusted=True,
    )


def test_original_without_forwarded_fields_is_request() -> None:
    original = OriginalRequest(b"GET", "https", "app.example.com", b"/x?y", GATEWAY)
    trusted = replace(original, trusted=True)
    assert LISTED.original(request(target=b"/x?y", secure=True)) == trusted
    assert OFF.original(request(*FORWARDED, target=b"/x?y", secure=True)) == original


def test_fh01_forwarded_fields_of_public_peer_ignored() -> None:
    for trust in (OFF, PRIVATE, LISTED):
        plain = request(peer=ATTACKER, target=b"/admin")
        spoofed = request(*FORWARDED, peer=ATTACKER, target=b"/admin")
        assert trust.original(spoofed) == trust.original(plain)
        assert trust.client(spoofed) == ATTACKER
        assert trust.host(spoofed) == "app.example.com"


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("169.254.8.1", True),
        ("100.64.0.1", False),
        ("::1", True),
        ("::ffff:10.0.0.1", True),
        (f"::ffff:{ATTACKER}", False),
        ("fd12::1", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("2001:db8::1", False),
        ("0.0.0.0", False),
        ("::", False),
        (ATTACKER, False),
        ("not-an-address", False),
    ],
)
def test_fh02_default_trusted_proxies_are_private(peer: str, trusted: bool) -> None:
    assert PRIVATE.trusts(peer) is trusted
    assert PRIVATE.trusts(peer) is trusted  # the cached result
    assert not OFF.trusts(peer)


def test_trusted_proxies_replace_default() -> None:
    assert LISTED.trusts(GATEWAY)
    assert not LISTED.trusts("")
    assert not LISTED.trusts("10.0.0.2")
    assert not LISTED.trusts("127.0.0.1")


def test_unix_socket_peer_trusted_by_default_or_if_listed() -> None:
    for proxies, trusted in (((), True), (("unix",), True), ((GATEWAY,), False)):
        trust = TrustedProxies(Settings(reverse_proxy=True, trusted_proxies=proxies))
        assert trust.trusts("") is trusted
    assert not trust.trusts("unix")
    assert not TrustedProxies(Settings(trusted_proxies=("unix",))).trusts("")


def test_fh04_original_ignores_x_original_url() -> None:
    other = (("x-original-url", "/public/"), ("x-original-uri", "/public/"))
    assert LISTED.original(request(*FORWARDED, *other)) == LISTED.original(
        request(*FORWARDED)
    )


@pytest.mark.parametrize(
    "name", ["x-forwarded-uri", "x-forwarded-host", "x-forwarded-method"]
)
def test_fh05_fh20_repeated_field_rejected(name: str) -> None:
    good = dict(FORWARDED)[name]
    assert not is_rejected((name, good))
    assert is_rejected((name, good), (name, good))


@pytest.mark.parametrize(
    "uri", ["/public/, /admin", "/public/,/admin", "/public/,\t/admin"]
)
def test_fh05_comma_list_of_uris_rejected(uri: str) -> None:
    assert is_rejected(("x-forwarded-uri", uri))


@pytest.mark.parametrize(
    "uri",
    [
        "%",
        "/%",
        "/%zz",
        "/a%2",
        "http://[",
        "/\x00",
        "/\x7f",
        "/a b",
        "/a\tb",
        "/a\r\nb",
        "/x#y",
        "/x?y#z",
        "/x?y z",
        b"/\xff",
        b"/x?\xff",
        b"/\xc0\xae",
        b"/\xed\xa0\x80",
        "/" + "a" * MAX_URI,
    ],
)
def test_fh07_malformed_forwarded_uri_rejected(uri: str | bytes) -> None:
    assert is_rejected(("x-forwarded-uri", uri))


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example.com/public/",
        "//public/x",
        "///public/x",
        "/\\public/x",
        "public/",
        "*",
        "",
        " /public/",
    ],
)
def test_fh08_forwarded_uri_not_in_origin_form_rejected(uri: str) -> None:
    assert is_rejected(("x-forwarded-uri", uri))


@pytest.mark.parametrize(
    "uri",
    [
        "/",
        "/?",
        "/a//b",
        "/a,b?c,/d",
        "/q?discount=100%&u=https://other.org//x",
        "/ä?ö",
        "/a%2Fb/../c;d",
        "/" + "a" * (MAX_URI - 1),
    ],
)
def test_original_valid_forwarded_uri_unchanged(uri: str) -> None:
    assert LISTED.original(request(("x-forwarded-uri", uri))).uri == uri.encode()


@pytest.mark.parametrize("method", ["GET, POST", "G ET", "", "GET\t", "GE(T)"])
def test_fh10_forwarded_method_must_be_token(method: str) -> None:
    assert is_rejected(("x-forwarded-method", method))


@pytest.mark.parametrize("method", ["get", "TRACE", "PROPFIND"])
def test_fh10_forwarded_method_keeps_case(method: str) -> None:
    original = LISTED.original(request(("x-forwarded-method", method)))
    assert original.method == method.encode()


def test_fh11_forwarded_method_of_public_peer_ignored() -> None:
    preflight = request(("x-forwarded-method", "OPTIONS"), peer=ATTACKER)
    assert LISTED.original(preflight).method == b"GET"


@pytest.mark.parametrize("spoofed", ["127.0.0.1", "10.0.0.5", GATEWAY])
def test_fh13_forwarded_for_of_public_peer_ignored(spoofed: str) -> None:
    sent = request(("x-forwarded-for", spoofed), peer=ATTACKER)
    assert CHAIN.client(sent) == CHAIN.original(sent).client == ATTACKER


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], GATEWAY),
        ([""], GATEWAY),
        ([","], GATEWAY),
        (["unknown"], GATEWAY),
        ([f"10.0.0.5, {ATTACKER}"], ATTACKER),
        (["10.0.0.5", ATTACKER], ATTACKER),
        ([f"{ATTACKER},198.51.100.7 ,\t198.51.100.8"], ATTACKER),
        ([f"10.0.0.5, {ATTACKER}", "198.51.100.7"], ATTACKER),
        (["198.51.100.6, 198.51.100.7"], "198.51.100.6"),
        (["192.0.2.7, unknown, 198.51.100.7"], "198.51.100.7"),
        ([f"10.0.0.5, {ATTACKER}:4711"], ATTACKER),
        ([f"10.0.0.5, ::ffff:{ATTACKER}"], ATTACKER),
        (["[2606:4700::1]:443, [2001:DB8::1]"], "2606:4700::1"),
        (["2606:4700::1, 2001:db8:0::1"], "2606:4700::1"),
        ([f"127.0.0.1, {ATTACKER}, {GATEWAY}"], ATTACKER),
        ([", ".join([GATEWAY] * 50)], GATEWAY),
        ([ATTACKER + ", 198.51.100.7" * 31], ATTACKER),
        # A hop is never the client: past MAX_HOPS trusted ones it is unknown.
        ([ATTACKER + ", 198.51.100.7" * 33], ATTACKER),
        ([ATTACKER + ", 198.51.100.7" * 255], ATTACKER),
        ([ATTACKER + ", 198.51.100.7" * 256], GATEWAY),
        (["1.2.3.4" + " " * 100], GATEWAY),
    ],
)
def test_fh14_client_found_right_to_left_over_trusted_hops(
    lines: list[str], client: str
) -> None:
    sent = request(*(("x-forwarded-for", line) for line in lines))
    assert CHAIN.client(sent) == client
    assert CHAIN.original(sent).client == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:80", "192.0.2.7"),
        ("[2001:DB8::7]:80", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 192.0.2.8", GATEWAY),
        ("192.0.2.07", GATEWAY),
        ("192.0.2.256", GATEWAY),
        ("0xc0.0.2.7", GATEWAY),
        ("3221226007", GATEWAY),
        ("fe80::1%eth0", GATEWAY),
        ("[::1", GATEWAY),
        ("[zz]", GATEWAY),
        ("localhost", GATEWAY),
        ("", GATEWAY),
    ],
)
def test_client_real_ip_must_be_single_address(value: str, client: str) -> None:
    sent = request(("x-real-ip", value))
    assert LISTED.client(sent) == LISTED.original(sent).client == client


def test_client_repeated_real_ip_ignored() -> None:
    sent = request(("x-real-ip", "192.0.2.7"), ("x-real-ip", "192.0.2.7"))
    assert LISTED.client(sent) == LISTED.original(sent).client == GATEWAY


@pytest.mark.parametrize(
    "name",
    [
        "x-forwarded-for",
        "cf-connecting-ip",
        "x-proxyuser-ip",
        "x-envoy-external-address",
        "true-client-ip",
        "forwarded",
    ],
)
def test_fh16_only_configured_client_header_read(name: str) -> None:
    sent = request((name, "127.0.0.1"))
    assert LISTED.client(sent) == LISTED.original(sent).client == GATEWAY


def test_fh17_ipv4_mapped_address_and_network_match_ipv4() -> None:
    plain = AddressSet(["203.0.113.0/24"])
    mapped = AddressSet(["::ffff:203.0.113.0/120", "::ffff:192.0.2.1"])
    for addresses in (plain, mapped):
        assert ATTACKER in addresses
        assert f"::ffff:{ATTACKER}" in addresses
        assert "::ffff:cb00:7109" in addresses
        assert "203.0.114.1" not in addresses
        assert "::203.0.113.9" not in addresses
    assert "192.0.2.1" in mapped
    assert "192.0.2.2" not in mapped
    everything = AddressSet(["::ffff:0:0/96"])
    assert ATTACKER in everything
    assert "2001:db8::1" not in everything
    # Other IPv6 networks contain no IPv4 address.
    assert ATTACKER not in AddressSet(["::/0", "64:ff9b::/96"])
    assert LISTED.trusts(f"::ffff:{GATEWAY}")


@pytest.mark.parametrize(
    "host",
    [
        "APP.example.com",
        "app.example.com.",
        "app.example.com:443",
        "aPP.Example.com.:8443",
    ],
)
def test_fh19_host_name_normalizes_spellings(host: str) -> None:
    original = LISTED.original(request(("x-forwarded-host", host)))
    assert original.host == host
    assert host_name(original.host) == "app.example.com"


def test_original_forwarded_only_for_another_host() -> None:
    same = request(("x-forwarded-host", "APP.example.com"))
    assert not LISTED.original(same).forwarded
    other = request(("x-forwarded-host", "app.example.com:8443"))
    assert LISTED.original(other).forwarded


def test_host_name_keeps_brackets_of_ipv6() -> None:
    assert host_name("[2001:DB8::1]:8443") == "[2001:db8::1]"
    assert host_name("[::1]") == "[::1]"
    assert host_name("10.0.0.1:80") == "10.0.0.1"


def test_fh20_list_of_hosts_rejected() -> None:
    assert is_rejected(("x-forwarded-host", "app.example.com, evil.com"))
    assert is_rejected(("x-forwarded-host", "app.example.com,evil.com"))
    assert is_rejected(("x-forwarded-host", ""))


def test_fh23_or37_scheme_of_public_peer_ignored() -> None:
    sent = request(("x-forwarded-proto", "http"), peer=ATTACKER, secure=True)
    assert LISTED.original(sent).scheme == "https"


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        (["https"], "https"),
        (["HTTPS"], "https"),
        (["Http"], "http"),
        (["javascript"], "default"),
        (["https,http"], "default"),
        (["https", "https"], "default"),
        ([""], "default"),
        ([" https"], "default"),
    ],
)
@pytest.mark.parametrize("secure", [True, False])
def test_or37_forwarded_scheme_must_be_http_or_https(
    values: list[str], scheme: str, secure: bool
) -> None:
    default = "https" if secure else "http"
    fields = (("x-forwarded-proto", value) for value in values)
    original = LISTED.original(request(*fields, secure=secure))
    assert original.scheme == (default if scheme == "default" else scheme)


@pytest.mark.parametrize(
    "twin",
    [
        "x_forwarded_uri",
        "x-forwarded_uri",
        "x.forwarded.uri",
        "x-forwarded-uri ",
        "X-Forwarded-Uri",
        "x_forwarded_host",
        "x_real_ip",
    ],
)
def test_fh25_similar_field_names_ignored(twin: str) -> None:
    for fields in ((), FORWARDED):
        with_twin = request((twin, "/public/"), *fields, (twin, "/public/"))
        assert LISTED.original(with_twin) == LISTED.original(request(*fields))


def test_fh26_connection_options_do_not_hide_forwarded_fields() -> None:
    named = ("connection", "close, x-forwarded-uri, x-forwarded-host, host")
    assert LISTED.original(request(named, *FORWARDED)) == LISTED.original(
        request(*FORWARDED)
    )


GOOD_HOSTS = [
    "localhost",
    "my_service:8080",
    "a.b-c.example.com.",
    "10.0.0.1:65535",
    "[2001:db8::1]",
    "[::1]:80",
]
BAD_HOSTS = [
    "",
    "auth.example.com:@evil.com",
    "auth.example.com/evil",
    "user@auth.example.com",
    "auth.example.com:",
    "auth.example.com:65536",
    "auth.example.com:8a",
    "auth.example.com:80:80",
    "auth example.com",
    " auth.example.com",
    "auth.example.com..",
    ".example.com",
    "a..b",
    "exämple.com",
    "ex%61mple.com",
    "a.com,b.com",
    "a.com\\b",
    "a.com\x00",
    "::1",
    "[]",
    "[:::1]",
    "[1:2]",
    "[::1]x",
    "[::1",
    "[::1]:99999",
    "a" * 64 + ".com",
    "a." * 130 + "com",
    "x" * 300,
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_or47_valid_host_accepted(host: str) -> None:
    for sent in (
        request(host=host, peer=ATTACKER),
        request(("x-forwarded-host", host)),
    ):
        assert LISTED.original(sent).host == LISTED.host(sent) == host


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_or47_invalid_host_rejected(host: str) -> None:
    for sent in (
        request(host=host, peer=ATTACKER),
        request(host=host),
        request(("x-forwarded-host", "app.example.com"), host=host),
        request(("x-forwarded-host", host)),
    ):
        with pytest.raises(RequestError):
            LISTED.original(sent)
        assert LISTED.host(sent) in ("", "app.example.com")


@pytest.mark.parametrize("peer", [ATTACKER, GATEWAY])
def test_or47_missing_or_repeated_host_rejected(peer: str) -> None:
    for sent in (
        request(host=None, peer=peer),
        request(("host", "app.example.com"), peer=peer),
    ):
        with pytest.raises(RequestError):
            LISTED.original(sent)
    assert LISTED.host(request(host=None)) == ""


@pytest.mark.parametrize(
    "target",
    [b"", b"*", b"http://app.example.com/", b"app:443", b"/a b", b"/%zz", b"/#x"],
)
@pytest.mark.parametrize("peer", [ATTACKER, GATEWAY])
def test_original_target_must_be_in_origin_form(target: bytes, peer: str) -> None:
    with pytest.raises(RequestError):
        LISTED.original(request(target=target, peer=peer))


def test_original_target_with_two_slashes_accepted() -> None:
    # The target is forwarded as it is; for rules, it is ambiguous.
    assert LISTED.original(request(target=b"//x", peer=ATTACKER)).uri == b"//x"


def test_client_without_header_is_peer() -> None:
    trust = TrustedProxies(Settings(reverse_proxy=True, real_client_ip_header=""))
    sent = request(("x-real-ip", "192.0.2.7"))
    assert trust.client(sent) == trust.original(sent).client == GATEWAY


def test_original_error_text_contains_no_input() -> None:
    with pytest.raises(RequestError) as caught:
        LISTED.original(request(("x-forwarded-uri", "evil-text")))
    assert "evil" not in str(caught.value)


def test_address_set_cache_bounded() -> None:
    addresses = AddressSet(["10.0.0.0/8"])
    for number in range(2 * MAX_CACHED_ADDRESSES):
        text = f"10.0.{number >> 8}.{number & 255}"
        assert text in addresses
    assert "11.0.0.1" not in addresses
    assert len(addresses._known) <= MAX_CACHED_ADDRESSES


def test_parse_address_strict() -> None:
    assert str(parse_address("::ffff:10.0.0.1")) == "10.0.0.1"
    assert parse_address("010.0.0.1") is None
    assert parse_address("10.0.0.1/8") is None


NASTY = st.text("/\\.:@%?#,;& \t\r\n\x00[]a0f2é\ud800", max_size=20).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
NAMES = st.sampled_from(
    [
        b"host",
        b"x-forwarded-host",
        b"x-forwarded-uri",
        b"x-forwarded-proto",
        b"x-forwarded-method",
        b"x-forwarded-for",
        b"x-real-ip",
    ]
)
VALUES = (
    NASTY
    | st.binary(max_size=20)
    | st.sampled_from([b"app.example.com", b"/x", b"https", b"GET", b"192.0.2.7"])
    | st.ip_addresses().map(lambda address: str(address).encode())
)
AUTHORITY = re.compile(r"[A-Za-z0-9_.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=8),
    st.sampled_from(["", GATEWAY, ATTACKER, "?"]) | st.text(max_size=5),
    NASTY | st.just(b"/x"),
    st.sampled_from([OFF, PRIVATE, LISTED, CHAIN]),
)
def test_original_any_request_parsed_or_rejected(
    headers: list[tuple[bytes, bytes]], peer: str, target: bytes, trust: TrustedProxies
) -> None:
    sent = Request(b"GET", target, (*headers, (b"accept", b"*/*")), peer)
    client = trust.client(sent)
    assert client == peer or parse_address(client) is not None
    assert trust.host(sent) == "" or AUTHORITY.fullmatch(trust.host(sent))
    try:
        original = trust.original(sent)
    except RequestError:
        return
    assert original.client == client
    assert AUTHORITY.fullmatch(original.host)
    assert original.uri.startswith(b"/")
    assert not set(original.uri) & set(b" #\x00\r\n\t\x7f")
    original.uri.decode()
    if not trust.trusts(peer):
        assert (original.uri, original.method) == (target, b"GET")
        assert not original.forwarded
