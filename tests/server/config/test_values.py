"""Option values of flags, variables and TOML, with oauth2-proxy's semantics."""

from __future__ import annotations

import contextlib
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.config.options.option import Kind, Option
from authproxy.config.read.go_csv import read_records
from authproxy.config.read.values import (
    format_duration,
    parse_duration,
    parse_flag,
    parse_int,
    parse_text,
    parse_toml,
)


def option(kind: Kind) -> Option:
    return Option("key", kind, "", "help")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("+1h", 3600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5h", 1800),
        ("1.h", 3600),
        ("-1h", -3600),
        ("1h2m3s4ms5us6ns", 3723.004005006),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("1.0000000001s", 1),
        ("2562047h", 2562047 * 3600),
    ],
)
def test_parse_duration_go_syntax(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "+", "1", "3600", "1d", "1H", ".h", ".", "1h 2m", " 1h", "1h ", "00",
     "2562048h", "9" * 50 + "h", "٣h", "h", "1hm", "--1h", "1e3s"],
)  # fmt: skip
def test_parse_duration_invalid_rejected(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller builds the message
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (168 * 3600, "168h0m0s"),
        (900, "15m0s"),
        (1.5, "1.5s"),
        (61, "1m1s"),
        (0.5, "500ms"),
        (3.6e-6, "3.6µs"),
        (5e-9, "5ns"),
        (-1, "-1s"),
        (10, "10s"),
    ],
)
def test_format_duration_as_go(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**15))
def test_format_duration_round_trips(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("10", 10), ("-10", -10), ("+1", 1), ("0x10", 16), ("0X_1f", 31),
     ("0b11", 3), ("0o17", 15), ("010", 8), ("0_7", 7), ("1_000", 1000),
     ("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63))],
)  # fmt: skip
def test_parse_int_go_syntax(text: str, number: int) -> None:
    assert parse_int(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "08", "_1", "1_", "1__0", "0x", "1.5", "1e3", "٣", "a",
     "9223372036854775808", "1" * 5000],
)  # fmt: skip
def test_parse_int_invalid_rejected(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller builds the message
        parse_int(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("list", "", ()),
        ("list", "a,b", ("a", "b")),
        ("list", '"a,b",c', ("a,b", "c")),
        ("list", "a, b", ("a", " b")),
        ("list", 'say ""x', None),
        ("list", "\n", None),
        ("list", '"a"b', None),
        ("list", '"a', None),
        ("bool", "T", True),
        ("bool", "0", False),
        ("bool", "", None),
        ("bool", "yes", None),
        ("string", " x ", " x "),
        ("duration", "", None),
    ],
)
def test_parse_flag_by_kind(kind: Kind, text: str, value: object) -> None:
    if value is None:
        with pytest.raises(ValueError):  # noqa: PT011
            parse_flag(option(kind), text)
    else:
        assert parse_flag(option(kind), text) == value


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", "x", "x"),
        ("string", 12, "12"),
        ("string", True, "1"),
        ("string", False, "0"),
        ("string", 1.5, "1.5"),
        ("string", 1e3, "1000"),
        ("bool", True, True),
        ("bool", 2, True),
        ("bool", 0.0, False),
        ("bool", "", False),
        ("bool", "t", True),
        ("string-bool", "", False),
        ("string-bool", "true", True),
        ("int", 7, 7),
        ("int", True, 1),
        ("int", 1.9, 1),
        ("int", "0x10", 16),
        ("int", "", 0),
        ("duration", "1h", 3600.0),
        ("duration", 3600, 3.6e-6),
        ("duration", 1.5, 1e-9),
        ("duration", 0, 0.0),
        ("list", ["a,b", "c"], ("a,b", "c")),
        ("list", "a,b", ("a", "b")),
        ("list", " a , b", (" a ", " b")),
        ("list", '"a,b"', ('"a', 'b"')),
        ("list", "", ()),
        ("list", 5, ("5",)),
        ("list", [5, True], ("5", "1")),
    ],
)
def test_parse_toml_converts_by_kind(kind: Kind, value: Any, expected: object) -> None:
    found = parse_toml(option(kind), value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("value", [[["x"]], {"a": 1}, [{}]])
def test_parse_toml_nested_value_rejected(kind: Kind, value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_toml(option(kind), value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 2.0**63])
def test_parse_toml_number_out_of_range_rejected(number: float) -> None:
    for kind in get_args(Kind):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_toml(option(kind), number)


@given(st.sampled_from(get_args(Kind)), st.text(max_size=50))
def test_parse_any_text_parsed_or_rejected(kind: Kind, text: str) -> None:
    for parse in (parse_flag, parse_text):
        with contextlib.suppress(ValueError):
            parse(option(kind), text)


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("a,b\n\n# c\nd", [("a", "b"), ("d",)]),
        ("  a, b", [("a", "b")]),
        ('"a\nb",c', [("a\nb", "c")]),
        ('"say ""x"""', [('say "x"',)]),
        ("a,\r\nb,", [("a", ""), ("b", "")]),
        ("a\x0bb\u2028c", [("a\x0bb\u2028c",)]),
        ("", []),
    ],
)
def test_read_records_as_go(text: str, records: list[tuple[str, ...]]) -> None:
    assert read_records(text, comment="#", trim=True) == records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a\nb"', "line 2: quote in an unquoted field"),
        ('"a', "line 1: unterminated quoted field"),
        ('"a"b', "line 1: text after a closing quote"),
    ],
)
def test_read_records_malformed_names_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        read_records(text)
