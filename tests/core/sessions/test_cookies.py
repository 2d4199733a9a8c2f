"""Cookies: parsing, splitting and joining of parts, attributes, clearing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core.errors import SealError
from authproxy_core.messages import Headers
from authproxy_core.sessions.cookies import (
    MAX_COOKIES,
    CookieWriter,
    cookie_name_count,
    first_cookie_value,
    join_cookie_parts,
    read_cookies,
)
from authproxy_core.sessions.sealing import Sealer
from authproxy_core.settings.root import CookieSettings, Secret

NAME = b"_oauth2_proxy"
HOST = "app.example.com"
WEEK = 604800.0
PLAIN = CookieSettings()
VALUES = st.text("abcXYZ019-_=|.", min_size=1).map(str.encode)


def read(*lines: bytes) -> list[tuple[bytes, bytes]]:
    return read_cookies([(b"host", b"a"), *((b"cookie", line) for line in lines)])


def writer(settings: CookieSettings = PLAIN) -> CookieWriter:
    return CookieWriter(settings.name, settings)


def lines(headers: Headers) -> list[bytes]:
    assert all(name == b"set-cookie" for name, _ in headers)
    return [line for _, line in headers]


def stored_cookies(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the cookies that a browser stores, in the order of the fields."""
    jar: dict[bytes, bytes] = {}
    for line in lines(headers):
        name, _, value = line.partition(b";")[0].partition(b"=")
        if b"; Max-Age=0" in line:
            jar.pop(name, None)
        else:
            jar[name] = value
    return list(jar.items())


# reading


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ((b"a=1; s=2",), 1),
        ((b"s_0=2", b"s_1=3"), 2),
        ((b"s=2; b=s",), 2),  # not exact, but never too few
        ((b"a=1",), 0),
    ],
)
def test_cookie_name_count_is_at_least_that_of_its_cookies(
    values: tuple[bytes, ...], count: int
) -> None:
    headers = [(b"host", b"s"), *((b"cookie", value) for value in values)]
    assert cookie_name_count(headers, b"s") == count


def test_cookie_name_count_includes_parts_with_shortened_names() -> None:
    name = b"s" * 300
    part = name[:254] + b"_0"
    assert cookie_name_count([(b"cookie", part + b"=1")], name) == 1


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        (b"a=1", [(b"a", b"1")]),
        (b"a=1; b=2;c=3", [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]),
        (b"a=1; a=2", [(b"a", b"1"), (b"a", b"2")]),
        (b"a=b=c==", [(b"a", b"b=c==")]),
        (b"a=", [(b"a", b"")]),
        (b"a=1;", [(b"a", b"1")]),
        (b"a=1; ", [(b"a", b"1")]),
        (b"; ;; a=1", [(b"a", b"1")]),
        (b"", []),
        (b"a", []),
        (b"=1", []),
        (b"a; b=2", [(b"b", b"2")]),
    ],
)
def test_read_cookies_pairs_of_one_field(
    line: bytes, pairs: list[tuple[bytes, bytes]]
) -> None:
    assert read(line) == pairs


def test_read_cookies_several_fields_in_order() -> None:
    assert read(b"a=1; b=2", b"c=3") == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert read_cookies([(b"cookies", b"a=1"), (b"set-cookie", b"a=1")]) == []


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        (
            b'$Version=1; _oauth2_proxy="x; y"; b=2',
            [(b"$Version", b"1"), (b"b", b"2")],
        ),
        (b'_oauth2_proxy="x"', [(NAME, b'"x"')]),
        (b'_oauth2_proxy=""', [(NAME, b'""')]),
        (b'_oauth2_proxy="', []),
        (b'_oauth2_proxy="x"y', []),
        (b'_oauth2_proxy="a\\073b"; b=2', [(b"b", b"2")]),
        (b"_oauth2_proxy=a\\073b", []),
        (b"a=1, _oauth2_proxy=x; b=2", [(b"b", b"2")]),
        (b"a=1; _oauth2_proxy=%22x%22", [(b"a", b"1"), (NAME, b"%22x%22")]),
    ],
)
def test_ck19_read_cookies_rfc_6265_grammar_only(
    line: bytes, pairs: list[tuple[bytes, bytes]]
) -> None:
    assert read(line) == pairs


@pytest.mark.parametrize(
    "line",
    [
        b"\t_oauth2_proxy=x",
        b"_oauth2_proxy\t=x",
        b" _oauth2_proxy=x",
        b"_oauth2_proxy =x",
        b"a=1;  _oauth2_proxy=x",
        b"a=1;\t_oauth2_proxy=x",
        b"\xc2\xa0_oauth2_proxy=x",
        b"\xe2\x80\x83_oauth2_proxy=x",
        b"\xa0_oauth2_proxy=x",
        b"%5foauth2_proxy=x",
        b"_OAuth2_Proxy=x",
        b"_oauth2_proxy\0=x",
        b'"_oauth2_proxy"=x',
    ],
)
def test_ck20_similar_cookie_name_ignored(line: bytes) -> None:
    assert join_cookie_parts(read(line), NAME, 10) is None


@pytest.mark.parametrize("octet", [b"\xff", b"\xc3\xa4", b"\0", b"\r", b"\n"])
def test_ck22_only_value_with_invalid_byte_ignored(octet: bytes) -> None:
    line = b"a=1; _oauth2_proxy=x" + octet + b"y; b=2"
    assert read(line) == [(b"a", b"1"), (b"b", b"2")]


def test_ck11_read_cookies_five_hundred_cookies() -> None:
    line = b"; ".join(b"c%d=v" % number for number in range(500))
    assert len(read(line + b"; " + NAME + b"=x")) == 501


@pytest.mark.parametrize("pair", [b"a=1", b"=", b"broken"])
def test_ck11_read_cookies_limited_number(pair: bytes) -> None:
    """Each pair has a cost, also an invalid one, so those after the limit are ignored."""
    last = (b"b", b"2")
    assert read(b";".join([*[pair] * (MAX_COOKIES - 1), b"b=2"]))[-1:] == [last]
    assert last not in read(b";".join([*[pair] * MAX_COOKIES, b"b=2"]))
    assert last not in read(b";".join([pair] * (MAX_COOKIES - 1)), b"c=3", b"b=2")


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_read_cookies_any_bytes_yield_valid_pairs_only(
    texts: list[bytes],
) -> None:
    for name, value in read(*texts):
        assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        assert value.isascii()
        assert b";" not in value


@given(
    st.dictionaries(
        st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}", fullmatch=True),
        st.from_regex(r'"?[!#-+\--:<-\[\]-~]*', fullmatch=True),
    )
)
def test_read_cookies_valid_pairs_of_browser(jar: dict[str, str]) -> None:
    valid = {name: value for name, value in jar.items() if '"' not in value}
    line = "; ".join(f"{name}={value}" for name, value in jar.items()).encode()
    assert read(line) == [
        (name.encode(), value.encode()) for name, value in valid.items()
    ]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"_oauth2_proxy=x", b"x"),
        (b"_oauth2_proxy=x; a=1", b"x"),
        (b"a=1;_oauth2_proxy=x;b=2", b"x"),
        (b"a=1; _oauth2_proxy=x; _oauth2_proxy=y", b"x"),
        (b"a=1;  _oauth2_proxy=x", None),
        (b"a_oauth2_proxy=x; _oauth2_proxy=y", None),
        (b"_oauth2_proxy_0=x", None),
        (b"a=1", None),
    ],
)
def test_first_cookie_value_of_one_field(line: bytes, value: bytes | None) -> None:
    assert first_cookie_value([(b"cookie", line)], NAME + b"=") == value
    fields = [(b"x", NAME + b"=0"), (b"cookie", b"a=1"), (b"cookie", line)]
    assert first_cookie_value(fields, NAME + b"=") == value


@given(st.lists(st.text('ab=; ,"\t').map(str.encode), max_size=3))
def test_first_cookie_value_valid_is_that_of_parsed_cookies(texts: list[bytes]) -> None:
    value = first_cookie_value([(b"cookie", text) for text in texts], b"a=")
    cookies = read(*texts)
    if value is not None and (b"a", value) in cookies:
        assert join_cookie_parts(cookies, b"a", 10) == value


# joining


def test_join_cookie_parts_numeric_order() -> None:
    parts = [(b"%b_%d" % (NAME, number), b"%x" % number) for number in range(12)]
    assert join_cookie_parts(parts, NAME, 12) == b"0123456789ab"
    assert join_cookie_parts(parts[::-1], NAME, 12) == b"0123456789ab"


def test_join_cookie_parts_stops_at_first_missing_part() -> None:
    parts = [(NAME + b"_0", b"a"), (NAME + b"_2", b"c")]
    assert join_cookie_parts(parts, NAME, 10) == b"a"
    assert join_cookie_parts(parts[1:], NAME, 10) is None
    assert (
        join_cookie_parts([(NAME + b"_00", b"a"), (NAME + b"_csrf", b"b")], NAME, 10)
        is None
    )


def test_join_cookie_parts_above_maximum_returns_none() -> None:
    parts = [(b"%b_%d" % (NAME, number), b"x") for number in range(4)]
    assert join_cookie_parts(parts, NAME, 4) == b"xxxx"
    assert join_cookie_parts(parts, NAME, 3) is None


def test_ck14_cookie_parts_of_two_sessions_rejected() -> None:
    sealer = Sealer([Secret(b"s" * 32)])
    one, two = (
        stored_cookies(
            writer().set(
                sealer.seal(b"p", text * 5000, issued_at=1e9, nonce=text * 12),
                host=HOST,
                max_age=WEEK,
            )
        )
        for text in (b"a", b"b")
    )
    mixed = join_cookie_parts([one[0], *two[1:]], NAME, 10)
    assert mixed is not None
    with pytest.raises(SealError):
        sealer.unseal(b"p", mixed, now=1e9, lifetime=0)


def test_ck16_whole_cookie_takes_precedence_over_parts() -> None:
    cookies = [(NAME + b"_0", b"a"), (NAME + b"_1", b"b"), (NAME, b"whole")]
    assert join_cookie_parts(cookies, NAME, 10) == b"whole"
    assert join_cookie_parts([*cookies[:2], (NAME, b"")], NAME, 10) == b""


def test_ck17_first_cookie_of_duplicate_name_wins() -> None:
    assert (
        join_cookie_parts([(NAME, b"first"), (NAME, b"second")], NAME, 10) == b"first"
    )
    parts = [(NAME + b"_0", b"a"), (NAME + b"_0", b"x"), (NAME + b"_1", b"b")]
    assert join_cookie_parts(parts, NAME, 10) == b"ab"


# writing


def test_set_writes_attributes_in_order() -> None:
    settings = CookieSettings(domains=("example.com",), samesite="lax", path="/x")
    assert lines(writer(settings).set(b"v", host=HOST, max_age=90.9)) == [
        b"_oauth2_proxy=v; Path=/x; Domain=example.com; Max-Age=90; HttpOnly; Secure; "
        b"SameSite=Lax"
    ]


def test_set_omits_disabled_attributes() -> None:
    settings = CookieSettings(path="", secure=False, httponly=False)
    assert lines(writer(settings).set(b"v", host=HOST, max_age=0.9)) == [
        b"_oauth2_proxy=v"
    ]


@pytest.mark.parametrize(
    ("samesite", "expected"),
    [
        (None, b"SameSite=Lax"),
        ("strict", b"SameSite=Strict"),
        ("none", b"SameSite=None"),
        ("", b"Secure"),
    ],
)
def test_set_samesite_overrides_settings(samesite: str | None, expected: bytes) -> None:
    other = CookieWriter("x_csrf", CookieSettings(samesite="lax"), samesite)
    [line] = lines(other.set(b"v", host=HOST, max_age=1))
    assert line.rpartition(b"; ")[2] == expected


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("example.com", b"example.com"),
        ("app.example.com", b"example.com"),
        ("APP.Example.COM:8443", b"example.com"),
        ("a.dev.example.com", b"dev.example.com"),
        ("other.test", b""),
        ("", b""),
        ("[::1]:4180", b""),
    ],
)
def test_set_uses_longest_matching_domain(host: str, domain: bytes) -> None:
    settings = CookieSettings(domains=("example.com", ".dev.example.com", "x.org"))
    [line] = lines(writer(settings).set(b"v", host=host, max_age=0))
    found = re.search(rb"; Domain=([^;]*)", line)
    assert (found[1] if found else b"") == domain


@pytest.mark.parametrize(
    "host", ["badexample.com", "example.com.evil.net", "xexample.com:80", "com"]
)
def test_ck28_no_domain_for_host_outside_of_domains(host: str) -> None:
    settings = CookieSettings(domains=("example.com",))
    for headers in (
        writer(settings).set(b"v", host=host, max_age=0),
        writer(settings).clear(host=host, present=()),
    ):
        assert b"Domain" not in lines(headers)[0]


def test_set_domain_of_ip_address_with_port() -> None:
    settings = CookieSettings(domains=("127.0.0.1",))
    [line] = lines(writer(settings).set(b"v", host="127.0.0.1:4180", max_age=0))
    assert b"; Domain=127.0.0.1;" in line


# splitting


def test_set_splits_above_4000_bytes() -> None:
    [line] = lines(writer().set(b"v", host=HOST, max_age=WEEK))
    space = 4000 - len(line) + 1
    [unsplit] = lines(writer().set(b"v" * space, host=HOST, max_age=WEEK))
    assert len(unsplit) == 4000
    assert writer().parts_needed(b"v" * space, HOST, WEEK) == 1
    first, second = lines(writer().set(b"v" * (space + 1), host=HOST, max_age=WEEK))
    assert writer().parts_needed(b"v" * (space + 1), HOST, WEEK) == 2
    assert len(first) == 4000
    assert first.startswith(NAME + b"_0=v")
    assert second.startswith(NAME + b"_1=vvv; ")


def test_set_part_size_as_in_oauth2_proxy() -> None:
    settings = CookieSettings(secure=False)  # Path=/, Max-Age=604800, HttpOnly
    written = lines(writer(settings).set(b"v" * 40_000, host=HOST, max_age=WEEK))
    sizes = [len(line.partition(b"=")[2].partition(b";")[0]) for line in written]
    assert sizes[:11] == [3950] * 10 + [sizes[10]]
    assert sum(sizes) == 40_000
    assert all(len(line) == 4000 for line in written[:-1])


def test_set_part_with_two_digit_number_is_shorter() -> None:
    written = lines(writer().set(b"v" * 48_000, host=HOST, max_age=WEEK))
    sizes = [len(line.partition(b"=")[2].partition(b";")[0]) for line in written]
    assert sizes[10] == sizes[9] - 1
    assert {len(line) for line in written[:-1]} == {4000}


@pytest.mark.parametrize("size", [253, 254, 255, 256])
def test_set_part_name_truncated_to_256_bytes(size: int) -> None:
    settings = CookieSettings(name="n" * size)
    written = writer(settings).set(b"v" * 44_000, host=HOST, max_age=WEEK)
    names = [line.partition(b"=")[0] for line in lines(written)]
    assert names[0] == b"n" * min(size, 254) + b"_0"
    assert names[10] == b"n" * 253 + b"_10"
    assert join_cookie_parts(stored_cookies(written), b"n" * size, 20) == b"v" * 44_000
    cleared = writer(settings).clear(host=HOST, present=names)
    assert {line.partition(b"=")[0] for line in lines(cleared)} == {
        b"n" * size,
        *names,
    }


@given(
    st.text("ab-_|=", min_size=1, max_size=40).map(str.encode),
    st.integers(1, 1200),
    st.booleans(),
)
def test_set_and_join_round_trip(text: bytes, times: int, backwards: bool) -> None:
    value = text * times
    headers = writer().set(value, host=HOST, max_age=WEEK)
    line = b"; ".join(
        b"=".join(pair) for pair in stored_cookies(headers)[:: -1 if backwards else 1]
    )
    assert join_cookie_parts(read(line), NAME, 64) == value
    assert len(headers) == writer().parts_needed(value, HOST, WEEK)
    assert all(len(line) <= 4000 for line in lines(headers))


@given(st.lists(st.integers(1, 20_000), min_size=2, max_size=4))
def test_set_replaces_earlier_value_of_any_size(sizes: list[int]) -> None:
    jar: dict[bytes, bytes] = {}
    value = b""
    for number, size in enumerate(sizes):
        value = b"%d" % number * size
        for line in lines(writer().set(value, host=HOST, max_age=WEEK, present=jar)):
            name, _, rest = line.partition(b"=")
            if b"; Max-Age=0;" in rest:
                jar.pop(name)
            else:
                jar[name] = rest.partition(b";")[0]
    assert join_cookie_parts(list(jar.items()), NAME, 10) == value


# clearing


def test_set_whole_cookie_clears_parts() -> None:
    present = [b"a", NAME + b"_0", NAME + b"_1", NAME + b"_csrf", NAME, NAME + b"_07"]
    first, *rest = lines(writer().set(b"v", host=HOST, max_age=WEEK, present=present))
    assert first.startswith(NAME + b"=v; ")
    assert rest == [
        NAME + suffix + b"=; Path=/; Max-Age=0; HttpOnly; Secure"
        for suffix in (b"_0", b"_1", b"_07")
    ]


def test_set_parts_clear_whole_cookie_and_surplus_parts() -> None:
    present = [NAME, *(b"%b_%d" % (NAME, number) for number in range(4))]
    headers = writer().set(b"v" * 5000, host=HOST, max_age=WEEK, present=present)
    cleared = [line for line in lines(headers) if b"=;" in line]
    assert [line.partition(b"=")[0] for line in cleared] == [
        NAME,
        NAME + b"_2",
        NAME + b"_3",
    ]


def test_clear_deletes_cookie_and_present_parts() -> None:
    settings = CookieSettings(domains=("example.com",), samesite="strict")
    present = [NAME + b"_1", NAME + b"_0", NAME + b"_0", NAME + b"_x", b"x" + NAME]
    assert lines(writer(settings).clear(host=HOST, present=present)) == [
        name + b"=; Path=/; Domain=example.com; Max-Age=0; HttpOnly; Secure; "
        b"SameSite=Strict"
        for name in (NAME, NAME + b"_0", NAME + b"_1")
    ]
    assert len(writer().clear(host=HOST, present=())) == 1


def test_clear_name_is_not_a_pattern() -> None:
    settings = CookieSettings(name="a.b")
    cleared = writer(settings).clear(host=HOST, present=[b"axb", b"axb_1", b"a.b_1"])
    assert [line.partition(b"=")[0] for line in lines(cleared)] == [b"a.b", b"a.b_1"]


def test_clear_limits_number_of_parts() -> None:
    present = [b"%b_%d" % (NAME, number) for number in range(500)][::-1]
    cleared = lines(writer().clear(host=HOST, present=present))
    assert len(cleared) <= 66
    names = {line.partition(b"=")[0] for line in cleared}
    assert names >= {b"%b_%d" % (NAME, number) for number in range(64)}


# invalid arguments


@pytest.mark.parametrize(
    "value", [b"", b"a b", b"a;b", b'"a"', b"a\n", b"\xff", b"a,b"]
)
def test_set_value_of_invalid_octets_raises(value: bytes) -> None:
    with pytest.raises(ValueError, match="cookie octets"):
        writer().set(value, host=HOST, max_age=0)


@pytest.mark.parametrize("name", ["", "a b", "a=", "ä", "a;b"])
def test_writer_name_that_is_not_a_token_raises(name: str) -> None:
    with pytest.raises(ValueError, match="cookie name"):
        CookieWriter(name, PLAIN)


def test_set_attributes_without_space_for_value_raises() -> None:
    settings = CookieSettings(path="/" + "x" * 4000)
    with pytest.raises(ValueError, match="no space"):
        writer(settings).set(b"v", host=HOST, max_age=0)
