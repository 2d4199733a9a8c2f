"""Queries and forms: order, strictness, and constraints in either interpretation."""

from __future__ import annotations

import contextlib
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authproxy_core.errors import RequestError
from authproxy_core.request.forms import (
    MAX_LENGTH,
    MAX_PAIRS,
    constraints,
    parse_form,
    parse_query,
)

GROUPS = ("allowed_groups", "allowed_emails")


@pytest.mark.parametrize(
    ("raw", "pairs"),
    [
        (b"", []),
        (b"&&", []),
        (b"a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"a", [("a", "")]),
        (b"=1", [("", "1")]),
        (b"a=b=c", [("a", "b=c")]),
        (b"a+b=c+%2B", [("a b", "c +")]),
        (b"a=1;b=2", [("a", "1;b=2")]),
        (b"a=%3B%26", [("a", ";&")]),
        (b"a=\xc3\xa4&b=%C3%A4", [("a", "ä"), ("b", "ä")]),
        (b"%61=%00", [("a", "\0")]),
    ],
)
def test_parse_query_keeps_order(raw: bytes, pairs: list[tuple[str, str]]) -> None:
    assert parse_query(raw) == pairs


@pytest.mark.parametrize(
    "raw", [b"a=%", b"a=%4", b"a=%zz", b"%=1", b"a=1&b=%u0041", b"a=%ff", b"\xff=1"]
)
def test_parse_query_malformed_rejected(raw: bytes) -> None:
    with pytest.raises(RequestError):
        parse_query(raw)


def test_parse_query_length_and_count_limited() -> None:
    assert len(parse_query(b"a=" + b"x" * (MAX_LENGTH - 2))) == 1
    assert len(parse_query(b"a&" * MAX_PAIRS)) == MAX_PAIRS
    for raw in (b"a=" + b"x" * (MAX_LENGTH - 1), b"a&" * (MAX_PAIRS + 1)):
        with pytest.raises(RequestError):
            parse_query(raw)


def test_parse_form_body_takes_precedence_over_query() -> None:
    assert parse_form(b"rd=/q&x=1", b"rd=/b&y=2") == {"rd": "/b", "x": "1", "y": "2"}
    assert parse_form(b"rd=/one&rd=/two") == {"rd": "/one"}
    assert parse_form(b"") == {}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        (b"state=a&state=a", b""),
        (b"code=a&code=b", b""),
        (b"code=a", b"code=b"),
        (b"", b"iss=a&iss=b"),
        (b"st%61te=a&state=b", b""),
    ],
)
def test_lg11_parse_form_duplicate_security_parameter_rejected(
    query: bytes, body: bytes
) -> None:
    with pytest.raises(RequestError, match="duplicate parameter"):
        parse_form(query, body)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", {}),
        (b"x=1&y=%zz&z=%ff&;;", {}),
        (b"groups=a", {}),
        (b"allowed_groups=", {"allowed_groups": [""]}),
        (b"allowed_groups", {"allowed_groups": [""]}),
        (b"allowed_groups=a,b&x=%zz", {"allowed_groups": ["a,b"]}),
        (b"%61llowed_groups=a", {"allowed_groups": ["a"]}),
        (b"x=1&allowed_groups=a&allowed_groups=b+c", {"allowed_groups": ["a", "b c"]}),
        (b"allowed_groups=a;b", {"allowed_groups": ["a;b"]}),
        (b"x=1;allowed_groups=admin", {"allowed_groups": ["admin"]}),
        (b"x;allowed_groups=admin;y", {"allowed_groups": ["admin"]}),
        (b"allowed_groups;x=1", {"allowed_groups": [""]}),
        (b"x=1;allowed%5fgroups=admin", {"allowed_groups": ["admin"]}),
        (b"x=1%3Ballowed_groups=admin", {}),
        (
            b"allowed_groups=a&x=1;allowed_emails=b&allowed_groups=c;d",
            {"allowed_groups": ["a", "c;d"], "allowed_emails": ["b"]},
        ),
    ],
)
def test_constraints_found_in_either_interpretation(
    raw: bytes, found: dict[str, list[str]]
) -> None:
    assert constraints(raw, GROUPS) == found


@pytest.mark.parametrize("raw", [b"allowed_groups=%zz", b"x;allowed_groups=%ff"])
def test_constraints_malformed_value_rejected(raw: bytes) -> None:
    with pytest.raises(RequestError):
        constraints(raw, GROUPS)


def test_constraints_ignore_application_parameters() -> None:
    raw = b"a=%&" * (MAX_PAIRS + 1) + b"allowed_groups=a"
    assert constraints(raw, GROUPS) == {"allowed_groups": ["a"]}


@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_parse_query_inverts_browser_encoding(pairs: list[tuple[str, str]]) -> None:
    assert parse_query(urlencode(pairs).encode()) == pairs


LETTERS = st.text("ab=&;%+2561_", max_size=40).map(str.encode)
PAIRS = st.lists(
    st.tuples(
        st.sampled_from((b"a", b"b", b"%61", b"%62", b"c", b"", b"a%2B")),
        st.sampled_from((b"", b"=", b"=1", b"=a%3D+b", b"=x;y", b"==")),
    ),
    max_size=8,
).map(lambda pairs: b"&".join(name + value for name, value in pairs))


@given(st.binary() | LETTERS | PAIRS)
@example(b"%")
@example(b"%61=1&a=2&b&&=&a=3;b=4")
def test_parse_query_any_bytes_parsed_or_rejected(raw: bytes) -> None:
    try:
        pairs = parse_query(raw)
    except RequestError:
        return
    # The standard library finds the same pairs.
    assert pairs == parse_qsl(raw.decode(), keep_blank_values=True, errors="strict")
    # `constraints` finds every pair that the strict parser finds.
    found = constraints(raw, ("a", "b"))
    for name in ("a", "b"):
        values = [value for key, value in pairs if key == name]
        assert found.get(name, []) == values or (b";" in raw and not values)


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_parse_form_any_bytes_parsed_or_rejected(raw: bytes, body: bytes) -> None:
    with contextlib.suppress(RequestError):
        parse_form(raw, body)
    with contextlib.suppress(RequestError):
        constraints(raw, GROUPS)
