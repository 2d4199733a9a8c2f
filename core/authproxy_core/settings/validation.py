"""Validation of settings where they are made: each field has its declared type.

msgspec validates decoded data but not the arguments of a constructor; the base class
`ValidatedStruct` does. Annotations are compiled once per class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from msgspec import Meta, Struct
from msgspec.structs import fields

from ..errors import SettingsError

MAX_DISPLAY_LENGTH = 120  # characters of a value in a message
SCALARS = (str, bytes, int, float, bool, NoneType)


class ValidatedStruct(Struct, frozen=True):
    """Base of all settings: its constructor raises `SettingsError` for wrong values.

    The error has one line per field, such as ``CookieSettings.samesite: got 'off',
    expected one of '', 'lax', 'strict', 'none'``. No secret is part of it.
    """

    def __post_init__(self) -> None:
        problems = [
            f"{type(self).__name__}.{name}: {expected.mismatch(value)}"
            for name, expected in _field_types(type(self))
            if not expected.accepts(value := getattr(self, name))
        ]
        if problems:
            raise SettingsError(tuple(problems))


class FieldType(NamedTuple):
    """A compiled annotation.

    ``text`` completes "expected …". ``is_public``: a wrong value may be shown.
    """

    accepts: Callable[[Any], bool]
    text: str
    is_public: bool = True

    def mismatch(self, value: object) -> str:
        """Return "got X, expected Y" for a *value* that is not accepted."""
        shown = repr(value) if self.is_public else f"{type(value).__name__} (not shown)"
        if len(shown) > MAX_DISPLAY_LENGTH:
            shown = shown[:MAX_DISPLAY_LENGTH] + "…"
        return f"got {shown}, expected {self.text}"


@cache
def _field_types(cls: type[Struct]) -> tuple[tuple[str, FieldType], ...]:
    return tuple((field.name, compile_type(field.type)) for field in fields(cls))


def compile_type(annotation: Any) -> FieldType:
    """Compile *annotation*; raises `TypeError` for a form that no setting uses."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(compile_type(arguments[0]), arguments[1])
    if origin is Literal:
        return _literal(arguments)
    if origin in (Union, UnionType):
        return _union([compile_type(argument) for argument in arguments])
    if origin is tuple and arguments[-1] is not ...:
        return _fixed_tuple([compile_type(argument) for argument in arguments])
    if origin in (tuple, frozenset):
        return _collection(origin, compile_type(arguments[0]))
    if origin is Mapping:
        return _mapping(*(compile_type(argument) for argument in arguments))
    if origin is Callable:
        return FieldType(callable, "function", is_public=False)
    if not isinstance(annotation, type):
        raise TypeError(f"type of a setting is not supported: {annotation}")
    return _class(annotation)


def _class(cls: type) -> FieldType:
    if cls is NoneType:
        return FieldType(lambda value: value is None, "None")
    if cls is float:  # an int is a float to type checkers (PEP 484)
        return FieldType(
            lambda value: (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            ),
            "finite number",
        )
    if cls is int:
        return FieldType(
            lambda value: isinstance(value, int) and not isinstance(value, bool), "int"
        )
    return FieldType(
        lambda value: isinstance(value, cls), cls.__name__, is_public=cls in SCALARS
    )


def _bounded(inner: FieldType, bounds: Meta) -> FieldType:
    low = -math.inf if bounds.ge is None else bounds.ge
    high = math.inf if bounds.le is None else bounds.le
    limits = f">= {low}" if high == math.inf else f"from {low} to {high}"
    return FieldType(
        lambda value: inner.accepts(value) and low <= value <= high,
        f"{inner.text} {limits}",
        inner.is_public,
    )


def _literal(choices: tuple[Any, ...]) -> FieldType:
    # The types are compared as well: True == 1 and 200.0 == 200.
    typed = [(type(choice), choice) for choice in choices]
    return FieldType(
        lambda value: (type(value), value) in typed,
        f"one of {', '.join(map(repr, choices))}",
    )


def _union(members: list[FieldType]) -> FieldType:
    return FieldType(
        lambda value: any(member.accepts(value) for member in members),
        " or ".join(member.text for member in members),
        all(member.is_public for member in members),
    )


def _collection(kind: Any, item: FieldType) -> FieldType:
    return FieldType(
        lambda value: isinstance(value, kind) and all(map(item.accepts, value)),
        f"{kind.__name__} of {item.text}",
        item.is_public,
    )


def _fixed_tuple(items: list[FieldType]) -> FieldType:
    return FieldType(
        lambda value: (
            isinstance(value, tuple)
            and len(value) == len(items)
            and all(item.accepts(part) for item, part in zip(items, value, strict=True))
        ),
        f"({', '.join(item.text for item in items)})",
        all(item.is_public for item in items),
    )


def _mapping(key: FieldType, value: FieldType) -> FieldType:
    def accepts(given: Any) -> bool:
        return isinstance(given, Mapping) and all(
            key.accepts(name) and value.accepts(item) for name, item in given.items()
        )

    return FieldType(
        accepts,
        f"mapping of {key.text} to {value.text}",
        key.is_public and value.is_public,
    )
