"""Template values in Go's terms: string, trusted HTML, int, bool, list, map, nil.

An operation that a value does not support raises `ValueKindError`; rendering turns it
into a `TemplateError` with the position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

SURROGATES = re.compile("[\ud800-\udfff]")


class Html(str):
    """Trusted HTML from the operator, rendered unescaped; never from client input."""

    __slots__ = ()


class ValueKindError(Exception):
    """A value has the wrong type for an operation."""


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (list, tuple))


def type_name(value: object) -> str:
    """Return Go's name of the type of *value*."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, Html):
        return "template.HTML"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Mapping):
        return "map"
    if is_list(value):
        return "list"
    raise ValueKindError(f"can't use a {type(value).__name__} in a template")


def replace_surrogates(text: str) -> str:
    """Return *text* with surrogates, which UTF-8 cannot encode, replaced."""
    return SURROGATES.sub("\ufffd", text)


def format_value(value: object) -> str:
    """Return *value* as Go's %v formats it."""
    match type_name(value):
        case "nil":
            return "<nil>"
        case "bool":
            return "true" if value else "false"
        case "list":
            assert is_list(value)  # noqa: S101 # for the type checker
            return "[" + " ".join(map(format_value, value)) + "]"
        case "map":
            assert isinstance(value, Mapping)  # noqa: S101
            items = (f"{key}:{format_value(value[key])}" for key in sorted(value))
            return "map[" + " ".join(items) + "]"
    return replace_surrogates(str(value))


def to_text(value: object) -> str:
    """Return *value* as text for an escaper; nil is ""."""
    return "" if value is None else format_value(value)


def sprint(values: Sequence[object]) -> str:
    """Return *values* as Go's Sprint: a space between two operands, neither a string."""
    out: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str):
            before = values[number - 1]
            if not isinstance(before, str):
                out.append(" ")
        out.append(format_value(value))
    return "".join(out)


def is_true(value: object) -> bool:
    """Return whether *value* is true in Go's sense: not zero, empty or nil."""
    type_name(value)
    return bool(value)


def get_field(value: object, name: str) -> object:
    """Return the field *name* of a map, None if missing; a field of nil is nil."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return value.get(name)
    raise ValueKindError(f"can't evaluate field {name} in type {type_name(value)}")


def comparison_type(value: object) -> str:
    """Return the type that decides whether two values can be compared."""
    name = type_name(value)
    return "string" if name == "template.HTML" else name


def is_equal(left: object, right: object) -> bool:
    """Compare with Go's ==; different types are an error, nil equals only nil."""
    kinds = {comparison_type(left), comparison_type(right)}
    if "nil" in kinds:
        return left is right
    if len(kinds) > 1 or kinds & {"map", "list"}:
        raise ValueKindError(f"incompatible types for comparison: {sorted(kinds)}")
    return left == right


def is_less(left: object, right: object) -> bool:
    """Compare with Go's <; only two integers or two strings are comparable."""
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    if comparison_type(left) == comparison_type(right) == "int":
        assert isinstance(left, int) and isinstance(right, int)  # noqa: S101, PT018
        return left < right
    raise ValueKindError(
        f"invalid types for comparison: {type_name(left)}, {type_name(right)}"
    )
