"""The original request: who is believed, and what is too ambiguous to be believed."""

from __future__ import annotations

import pytest
from authproxy_core import original as original_module
from authproxy_core.errors import RequestError
from authproxy_core.messages import Header, Request
from authproxy_core.original import Original, Trust, host_name, parse_address
from hypothesis import given
from hypothesis import strategies as st
from support.world import HOST, settings

GATEWAY = "10.0.0.1"
STRANGER = "203.0.113.9"
TRUST = Trust(settings(reverse_proxy=True, trusted_proxies=(GATEWAY, "fd00::/8")))
DEFAULT = Trust(settings(reverse_proxy=True))
OFF = Trust(settings())


def request(
    *fields: Header, peer: str = GATEWAY, target: bytes = b"/own", secure: bool = False
) -> Request:
    return Request(b"GET", target, ((b"host", HOST), *fields), peer, secure)


def judged(*fields: Header, trust: Trust = TRUST, **changes: object) -> Original:
    return trust.original(request(*fields, **changes))  # type: ignore[arg-type]


FORWARDED: tuple[Header, ...] = (
    (b"x-forwarded-method", b"POST"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"Other.example.com:8443"),
    (b"x-forwarded-uri", b"/public/x?y=1"),
)


def test_a_trusted_gateway_is_believed() -> None:
    found = judged(*FORWARDED)
    assert found.method == b"POST"
    assert found.scheme == "https"
    assert host_name(found.host) == "other.example.com"
    assert found.uri == b"/public/x?y=1"
    assert found.forwarded


@pytest.mark.parametrize("trust", [TRUST, DEFAULT, OFF])
def test_fh01_fh02_a_stranger_is_not(trust: Trust) -> None:
    found = judged(*FORWARDED, trust=trust, peer=STRANGER)
    assert (found.method, found.scheme, found.uri) == (b"GET", "http", b"/own")
    assert found.host == HOST.decode()
    assert not found.forwarded


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("127.0.0.1", True), ("::1", True), ("10.9.9.9", True), ("172.16.0.1", True),
        ("192.168.1.1", True), ("fd00::1", True), ("fe80::1", True), ("", True),
        ("::ffff:10.0.0.1", True), (STRANGER, False), ("100.64.0.1", False),
        ("2001:db8::1", False), ("::ffff:203.0.113.9", False), ("nonsense", False),
    ],
)  # fmt: skip
def test_fh02_fh17_who_is_trusted_when_nobody_is_named(peer: str, trusted: bool) -> None:
    assert DEFAULT.trusts(peer) is trusted
    assert DEFAULT.trusts(peer) is trusted
    assert not OFF.trusts(peer)


def test_verdicts_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original_module, "MAX_REMEMBERED", 2)
    trust = Trust(settings(reverse_proxy=True))
    assert [trust.trusts(f"10.0.0.{n}") for n in range(5)] == [True] * 5


@pytest.mark.parametrize(
    "field",
    [
        (b"x-forwarded-uri", b"/public/, /admin"),
        (b"x-forwarded-uri", b"%"), (b"x-forwarded-uri", b"/%zz"),
        (b"x-forwarded-uri", b"http://["), (b"x-forwarded-uri", b"/\x00"),
        (b"x-forwarded-uri", b"/\xff\xfe"), (b"x-forwarded-uri", b"/" + b"x" * 70_000),
        (b"x-forwarded-uri", b"https://app.example.com/public/"),
        (b"x-forwarded-uri", b"//public/x"), (b"x-forwarded-uri", b"public/"),
        (b"x-forwarded-uri", b"*"), (b"x-forwarded-uri", b"/a#b"),
        (b"x-forwarded-method", b"GET, POST"), (b"x-forwarded-method", b"G ET"),
        (b"x-forwarded-host", b"app.example.com, evil.com"),
        (b"x-forwarded-host", b"a b"), (b"x-forwarded-host", b"[::1"),
        (b"x-forwarded-host", b"a:99999"), (b"x-forwarded-host", b"x" * 300),
        (b"x-forwarded-host", b"[1:2]"),
    ],
)  # fmt: skip
def test_fh05_fh07_fh08_fh10_fh20_what_is_ambiguous_is_an_error(field: Header) -> None:
    with pytest.raises(RequestError):
        judged(field)


@pytest.mark.parametrize(
    "name", [b"x-forwarded-uri", b"x-forwarded-host", b"x-forwarded-method", b"host"]
)
def test_fh05_a_second_line_is_an_error(name: bytes) -> None:
    value = {b"host": HOST, b"x-forwarded-uri": b"/a", b"x-forwarded-method": b"GET"}
    field = (name, value.get(name, b"a.example.com"))
    with pytest.raises(RequestError):
        judged(field, field)


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        (b"https", "https"), (b"HTTPS", "https"), (b"http", "http"), (b"", "https"),
        (b"javascript", "https"), (b"https,http", "https"),
    ],
)  # fmt: skip
def test_or37_fh23_only_two_schemes_are_known(proto: bytes, scheme: str) -> None:
    assert judged((b"x-forwarded-proto", proto), secure=True).scheme == scheme


@pytest.mark.parametrize(
    "name", [b"x_forwarded_uri", b"x-forwarded_uri", b"x.forwarded.uri"]
)
def test_fh25_twins_are_other_fields(name: bytes) -> None:
    assert judged((name, b"/public/")).uri == b"/own"


def test_fh26_connection_does_not_remove_what_is_judged() -> None:
    connection = (b"connection", b"x-forwarded-uri, x-forwarded-host")
    assert judged(connection, *FORWARDED).uri == b"/public/x?y=1"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (b"203.0.113.9", "203.0.113.9"),
        (b"10.0.0.5, 203.0.113.9", "203.0.113.9"),
        (b"127.0.0.1, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (b"203.0.113.9:4711", "203.0.113.9"),
        (b"[2001:db8::1]:4711", "2001:db8::1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"::ffff:203.0.113.9", "203.0.113.9"),
        (b"10.0.0.1, 10.0.0.1", "10.0.0.1"),
        (b"nonsense", GATEWAY),
        (b"nonsense, 10.0.0.1", GATEWAY),
        (b"", GATEWAY),
        (b", ".join([b"10.0.0.1"] * 50), GATEWAY),
    ],
)
def test_fh13_fh14_the_chain_is_walked_from_the_right(chain: bytes, client: str) -> None:
    trust = Trust(
        settings(
            reverse_proxy=True,
            trusted_proxies=(GATEWAY,),
            real_client_ip_header="X-Forwarded-For",
        )
    )
    seen = request((b"x-forwarded-for", chain))
    assert trust.client(seen) == client
    assert trust.original(seen).client == client


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        (((b"x-real-ip", b"203.0.113.9"),), "203.0.113.9"),
        (((b"x-real-ip", b"nonsense"),), GATEWAY),
        (((b"x-real-ip", b"1.2.3.4"), (b"x-real-ip", b"5.6.7.8")), GATEWAY),
        (((b"cf-connecting-ip", b"1.2.3.4"), (b"forwarded", b"for=1.2.3.4")), GATEWAY),
        ((), GATEWAY),
    ],
)
def test_fh16_only_the_configured_field_names_the_client(
    fields: tuple[Header, ...], client: str
) -> None:
    assert TRUST.client(request(*fields)) == client
    assert TRUST.client(request(*fields, peer=STRANGER)) == STRANGER


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("APP.example.com", "app.example.com"), ("app.example.com.", "app.example.com"),
        ("app.example.com:443", "app.example.com"), ("[::1]:80", "[::1]"),
    ],
)  # fmt: skip
def test_fh19_hosts_are_compared_in_one_form(host: str, name: str) -> None:
    assert host_name(judged((b"x-forwarded-host", host.encode())).host) == name


def test_the_host_for_logs_never_fails() -> None:
    assert TRUST.host(request(*FORWARDED)) == "Other.example.com:8443"
    assert TRUST.host(request((b"x-forwarded-host", b"a b"))) == ""
    assert TRUST.host(request(*FORWARDED, peer=STRANGER)) == HOST.decode()
    assert TRUST.host(Request(b"GET", b"/", (), GATEWAY)) == ""


def test_a_request_without_host_is_an_error() -> None:
    with pytest.raises(RequestError):
        TRUST.original(Request(b"GET", b"/", (), GATEWAY))


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        (b"https://app.example.com/x?y=1", b"/x?y=1"),
        (b"http://app.example.com", b"/"),
        (b"https://app.example.com?x=1", b"/?x=1"),
        (b"*", b"/"),
    ],
)
def test_a_target_in_another_form_is_read_by_its_path(target: bytes, uri: bytes) -> None:
    try:
        assert OFF.original(request(target=target)).uri == uri
    except RequestError:
        pass  # refusing is as good as reading it by its path


def test_addresses() -> None:
    assert parse_address("x") is None
    assert str(parse_address("::ffff:1.2.3.4")) == "1.2.3.4"


FIELDS = st.sampled_from(
    [name for name, _ in FORWARDED] + [b"x-real-ip", b"host", b"x-forwarded-for"]
)


@given(st.lists(st.tuples(FIELDS, st.binary(max_size=40)), max_size=6), st.binary())
def test_fh07_whatever_comes_is_read_or_refused(
    fields: list[Header], target: bytes
) -> None:
    seen = Request(b"GET", target, tuple(fields), GATEWAY)
    for trust in (TRUST, DEFAULT, OFF):
        trust.client(seen)
        trust.host(seen)
        try:
            found = trust.original(seen)
        except RequestError:
            continue
        assert found.uri.startswith(b"/")
        assert found.scheme in ("http", "https")
