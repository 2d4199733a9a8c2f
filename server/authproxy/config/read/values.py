"""Texts and TOML values to option values, with the meaning they have in oauth2-proxy.

All functions raise ValueError for what they can't read; `EXPECTED` says what they
want. Durations are seconds.
"""

from __future__ import annotations

import re
from typing import Any

from ..options.option import Kind, Option, Value
from .go_csv import read_records

EXPECTED: dict[Kind, str] = {
    "string": "a text",
    "bool": "true or false",
    "int": "a whole number",
    "duration": "a duration with a unit, such as 1h30m or 90s",
    "list": "a list of texts",
    "string-bool": "true or false",
}

TRUE_WORDS = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE_WORDS = frozenset({"0", "f", "F", "FALSE", "false", "False"})

INT_LIMIT = 1 << 63
GO_INT = re.compile(
    r"([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]((?:_?[0-7])+)"
    r"|(0(?:_?[0-7])*)|([1-9](?:_?[0-9])*))"
)
INT_BASES = (16, 2, 8, 8, 10)

UNITS = {  # in nanoseconds; both spellings of micro are Unicode letters
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
QUANTITY = re.compile(r"(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(ns|[uµμ]s|ms|s|m|h)")
LONGEST_NUMBER = 40  # digits; more can't be in range and would cost time


def from_flag(option: Option, text: str) -> Value:
    """The value of a flag: a list is one CSV record, the rest is as in `from_text`."""
    match option.kind:
        case "list":
            if not text:
                return ()
            records = read_records(text)
            if not records:
                raise ValueError("no record")
            return records[0]
        case "string-bool":
            return text  # read later: a bad one is no usage error in oauth2-proxy
        case "bool":
            return parse_bool(text)
        case _:
            return from_text(option, text)


def from_text(option: Option, text: str) -> Value:
    """The value of an environment variable or of a TOML string."""
    match option.kind:
        case "string":
            return text
        case "bool" | "string-bool":
            return bool(text) and parse_bool(text)
        case "int":
            return parse_int(text) if text else 0
        case "duration":
            return parse_duration(text)
        case "list":
            return tuple(text.split(",")) if text else ()


def from_toml(option: Option, value: Any) -> Value:
    """The value of a TOML key; numbers and booleans stand in for each other."""
    if isinstance(value, str):
        return from_text(option, value)
    match option.kind:
        case "list":
            items = value if isinstance(value, list) else [value]
            return tuple(map(_scalar_text, items))
        case "string":
            return _scalar_text(value)
        case "bool" | "string-bool":
            return _number(value) != 0
        case "int":
            return int(_number(value))
        case "duration":  # a number without unit is nanoseconds
            return int(_number(value)) / 1e9


def _number(value: Any) -> int | float:
    """A TOML boolean or number as a number (`bool` is an `int` in Python)."""
    if not isinstance(value, (int, float)) or value != value or abs(value) >= INT_LIMIT:
        raise ValueError("not a number")
    return value


def _scalar_text(value: Any) -> str:
    """A TOML text, number or boolean as text; booleans are 1 and 0."""
    if isinstance(value, str):
        return value
    number = _number(value)
    if isinstance(number, float):
        from decimal import Decimal

        return format(Decimal(repr(number)).normalize(), "f")
    return str(int(number))


def parse_bool(text: str) -> bool:
    """Go's words for true and false."""
    if text not in TRUE_WORDS and text not in FALSE_WORDS:
        raise ValueError("not a boolean")
    return text in TRUE_WORDS


def parse_int(text: str) -> int:
    """An integer in Go's syntax: 0x, 0b, 0o, a leading 0 for octal, and ``_``."""
    match = GO_INT.fullmatch(text)
    if match is None or len(text) > 2 * LONGEST_NUMBER:
        raise ValueError("not an integer")
    sign, *groups = match.groups()
    number = next(
        int(digits.lstrip("_"), base)
        for digits, base in zip(groups, INT_BASES, strict=True)
        if digits is not None
    )
    number = -number if sign == "-" else number
    if not -INT_LIMIT <= number < INT_LIMIT:
        raise ValueError("out of range")
    return number


def parse_duration(text: str) -> float:
    """A duration in Go's syntax, such as ``1h30m`` or ``1.5h``; in seconds.

    A bare 0 needs no unit.
    """
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0.0
    total, at = 0, 0
    while at < len(body):
        match = QUANTITY.match(body, at)
        if match is None:
            raise ValueError("not a duration")
        whole, fraction, unit = match[1], match[2] or "", UNITS[match[3]]
        if len(whole) > LONGEST_NUMBER or len(fraction) > LONGEST_NUMBER:
            raise ValueError("out of range")
        total += int(whole or "0") * unit
        total += int(fraction or "0") * unit // 10 ** len(fraction)
        at = match.end()
    if not body or total >= INT_LIMIT:
        raise ValueError("not a duration")
    return (-total if text[0] == "-" else total) / 1e9


def format_duration(seconds: float) -> str:
    """*seconds* as Go writes a duration: ``168h0m0s``, ``1.5s``, ``3.6µs``."""
    total = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 else ""
    if total == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if total < 1000 * size:
            return f"{sign}{_decimal(total, size)}{unit}"
    minutes, rest = divmod(total, 60 * 10**9)
    text = f"{_decimal(rest, 10**9)}s"
    if minutes >= 60:
        text = f"{minutes // 60}h{minutes % 60}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _decimal(number: int, size: int) -> str:
    """``number / size`` without trailing zeros; *size* is a power of ten."""
    digits = len(str(size)) - 1
    return f"{number // size}.{number % size:0{digits}d}".rstrip("0").rstrip(".")
