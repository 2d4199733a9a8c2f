"""Queries and forms: nothing is repaired, nothing is lost."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from authproxy_core.errors import RequestError
from authproxy_core.forms import MAX_LENGTH, constraints, only, parse_form, parse_query
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("allowed_groups", "allowed_emails")


def test_pairs_keep_their_order() -> None:
    assert parse_query(b"a=1&&b=%C3%A9+x&a&c=d=e;f") == [
        ("a", "1"), ("b", "é x"), ("a", ""), ("c", "d=e;f"),
    ]  # fmt: skip


@pytest.mark.parametrize("raw", [b"a=%", b"a=%zz", b"%f=1", b"a=%ff", b"a=\xff"])
def test_what_others_repair_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestError):
        parse_query(raw)


@pytest.mark.parametrize("raw", [b"x" * (MAX_LENGTH + 1), b"a&" * 300])
def test_there_are_limits(raw: bytes) -> None:
    with pytest.raises(RequestError):
        parse_query(raw)


def test_a_body_beats_the_query() -> None:
    assert parse_form(b"rd=/q&x=1", b"rd=/b") == {"rd": "/b", "x": "1"}
    with pytest.raises(RequestError, match="state"):
        parse_form(b"state=1", b"state=1")


def test_lg11_only_one() -> None:
    assert only([("a", "1"), ("b", "2")], "a") == "1"
    assert only([], "a") is None
    with pytest.raises(RequestError):
        only([("a", "1"), ("a", "1")], "a")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", {}),
        (b"x=1", {}),
        (b"x=%zz", {}),
        (b"allowed_groups=a,b&x=%zz", {"allowed_groups": ["a,b"]}),
        (b"allowed_groups", {"allowed_groups": [""]}),
        (b"allowed_groups=a&allowed_groups=b", {"allowed_groups": ["a", "b"]}),
        (b"x=1;allowed_groups=a", {"allowed_groups": ["a"]}),
        (b"allowed_groups=a;b", {"allowed_groups": ["a;b"]}),
        (b"%61llowed_groups=a", {"allowed_groups": ["a"]}),
    ],
)
def test_no_constraint_is_dropped(raw: bytes, expected: dict[str, list[str]]) -> None:
    assert constraints(raw, NAMES) == expected


def test_a_malformed_constraint_is_refused() -> None:
    with pytest.raises(RequestError):
        constraints(b"allowed_groups=%zz", NAMES)


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=20))
def test_what_is_encoded_is_read_again(pairs: list[tuple[str, str]]) -> None:
    given_pairs = [(name, value) for name, value in pairs]
    raw = urlencode(given_pairs).encode()
    assert parse_query(raw) == given_pairs


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(raw: bytes) -> None:
    for read in (parse_query, parse_form, lambda text: constraints(text, NAMES)):
        try:
            read(raw)
        except RequestError:
            continue
