"""Parse option values from text and TOML, with the semantics of oauth2-proxy.

All parsers raise ValueError for invalid input; `EXPECTED` describes valid input.
Durations are seconds.
"""

from __future__ import annotations

import re
from typing import Any

from ..options.option import Kind, Option, Value
from .go_csv import read_records

EXPECTED: dict[Kind, str] = {
    "string": "a string",
    "bool": "true or false",
    "int": "an integer",
    "duration": "a duration with a unit, such as 1h30m or 90s",
    "list": "a list of strings",
    "string-bool": "true or false",
}

TRUE_VALUES = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE_VALUES = frozenset({"0", "f", "F", "FALSE", "false", "False"})

INT_LIMIT = 1 << 63
GO_INT = re.compile(
    r"([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]((?:_?[0-7])+)"
    r"|(0(?:_?[0-7])*)|([1-9](?:_?[0-9])*))"
)
INT_BASES = (16, 2, 8, 8, 10)

UNITS = {  # nanoseconds; "micro" is either of two Unicode letters
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
MAX_DIGITS = 40  # longer numbers are out of range and slow to parse


def parse_flag(option: Option, text: str) -> Value:
    """Parse the value of a flag: a list is one CSV record, the rest is plain text."""
    match option.kind:
        case "list":
            if not text:
                return ()
            records = read_records(text)
            if not records:
                raise ValueError("no record")
            return records[0]
        case "string-bool":
            # Parsed later: for oauth2-proxy a bad value is not a usage error.
            return text
        case "bool":
            return parse_bool(text)
        case _:
            return parse_text(option, text)


def parse_text(option: Option, text: str) -> Value:
    """Parse the value of an environment variable or a TOML string."""
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


def parse_toml(option: Option, value: Any) -> Value:
    """Convert a TOML value; numbers and booleans are interchangeable."""
    if isinstance(value, str):
        return parse_text(option, value)
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
        case "duration":  # a number without a unit is nanoseconds
            return int(_number(value)) / 1e9


def _number(value: Any) -> int | float:
    """Return a TOML boolean or number as a number (`bool` is an `int` in Python)."""
    if not isinstance(value, (int, float)) or value != value or abs(value) >= INT_LIMIT:
        raise ValueError("not a number")
    return value


def _scalar_text(value: Any) -> str:
    """Return a TOML string, number or boolean as text; booleans are 1 and 0."""
    if isinstance(value, str):
        return value
    number = _number(value)
    if isinstance(number, float):
        from decimal import Decimal

        return format(Decimal(repr(number)).normalize(), "f")
    return str(int(number))


def parse_bool(text: str) -> bool:
    """Parse a boolean as Go's strconv.ParseBool does."""
    if text not in TRUE_VALUES and text not in FALSE_VALUES:
        raise ValueError("not a boolean")
    return text in TRUE_VALUES


def parse_int(text: str) -> int:
    """Parse an integer in Go's syntax: 0x, 0b, 0o, a leading 0 for octal, and ``_``."""
    match = GO_INT.fullmatch(text)
    if match is None or len(text) > 2 * MAX_DIGITS:
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
    """Parse a duration in Go's syntax, such as ``1h30m`` or ``1.5h``, to seconds.

    ``0`` needs no unit.
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
        if len(whole) > MAX_DIGITS or len(fraction) > MAX_DIGITS:
            raise ValueError("out of range")
        total += int(whole or "0") * unit
        total += int(fraction or "0") * unit // 10 ** len(fraction)
        at = match.end()
    if not body or total >= INT_LIMIT:
        raise ValueError("not a duration")
    return (-total if text[0] == "-" else total) / 1e9


def format_duration(seconds: float) -> str:
    """Format *seconds* as Go does: ``168h0m0s``, ``1.5s``, ``3.6µs``."""
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
    """Format ``number / size`` without trailing zeros; *size* is a power of ten."""
    digits = len(str(size)) - 1
    return f"{number // size}.{number % size:0{digits}d}".rstrip("0").rstrip(".")
