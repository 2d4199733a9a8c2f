"""Template functions: Go's built-in ones, and ToUpper and ToLower of oauth2-proxy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote_plus

from .values import (
    Html,
    ValueKindError,
    format_value,
    is_equal,
    is_less,
    is_list,
    is_true,
    replace_surrogates,
    sprint,
    type_name,
)

UNLIMITED = 1 << 30  # any number of arguments
HTML_ESCAPES = str.maketrans(
    {
        "\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;",
        ">": "&gt;",
    }
)  # fmt: skip
JS_ESCAPES = {
    "\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E",
    "&": "\\u0026", "=": "\\u003D",
}  # fmt: skip
JS_SPECIAL = re.compile("[\\\\'\"<>&=\0-\x1f]|[^\0-\x7f]")
FORMAT_VERB = re.compile(r"%([-+# 0]*)([0-9]*)(?:\.([0-9]*))?(.?)", re.DOTALL)


class Signature(NamedTuple):
    """A function with its minimum and maximum number of arguments."""

    call: Callable[..., object]
    arity: tuple[int, int]


def concatenate(*values: object) -> str:
    """Return the arguments as one string, as Go's escaping functions do."""
    return sprint(values)


def escape_html(*values: object) -> str:
    return concatenate(*values).translate(HTML_ESCAPES)


def escape_js(*values: object) -> str:
    return JS_SPECIAL.sub(_js_escape, concatenate(*values))


def _js_escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in JS_ESCAPES:
        return JS_ESCAPES[character]
    if character > "\x7f" and character.isprintable():
        return character
    return f"\\u{ord(character):04X}"


def escape_query(*values: object) -> str:
    return quote_plus(concatenate(*values))


def _require_string(value: object) -> str:
    if isinstance(value, str) and not isinstance(value, Html):
        return value
    raise ValueKindError(
        f"wrong type for value; expected string; got {type_name(value)}"
    )


def to_upper(value: object) -> str:
    """Return upper case per character: as in Go, no character becomes two."""
    return "".join(
        upper if len(upper := letter.upper()) == 1 else letter
        for letter in _require_string(value)
    )


def to_lower(value: object) -> str:
    return "".join(letter.lower()[0] for letter in _require_string(value))


def equal_any(first: object, *others: object) -> bool:
    """Return whether *first* equals one of *others*."""
    return any(is_equal(first, other) for other in others)


def byte_length(value: object) -> int:
    """Return the bytes of a string, or the elements of a list or map."""
    if isinstance(value, str):
        return len(replace_surrogates(value).encode())
    if isinstance(value, Mapping) or is_list(value):
        return len(value)
    raise ValueKindError(f"len of type {type_name(value)}")


def index_value(value: object, *keys: object) -> object:
    """Return the element at *keys*: ``index x 1 2`` is x[1][2]."""
    for key in keys:
        value = _index_once(value, key)
    return value


def _index_once(value: object, key: object) -> object:
    if isinstance(value, Mapping):
        return value.get(_require_string(key))
    if isinstance(value, str):
        data = replace_surrogates(value).encode()
        return data[_check_index(key, len(data) - 1)]
    if is_list(value):
        return value[_check_index(key, len(value) - 1)]
    raise ValueKindError(f"can't index item of type {type_name(value)}")


def _check_index(key: object, last: int) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise ValueKindError(f"cannot index with type {type_name(key)}")
    if not 0 <= key <= last:
        raise ValueKindError(f"index out of range: {key}")
    return key


def slice_value(value: object, *bounds: object) -> object:
    """Return a slice: ``slice x 1 2`` is x[1:2]; bounds of strings count bytes."""
    if isinstance(value, str):
        data = replace_surrogates(value).encode()
        start, end = _slice_bounds(bounds, len(data))
        return type(value)(data[start:end].decode("utf-8", "replace"))
    if is_list(value):
        start, end = _slice_bounds(bounds, len(value))
        return value[start:end]
    raise ValueKindError(f"can't slice item of type {type_name(value)}")


def _slice_bounds(bounds: tuple[object, ...], size: int) -> tuple[int, int]:
    start = _check_index(bounds[0], size) if bounds else 0
    end = _check_index(bounds[1], size) if len(bounds) > 1 else size
    if start > end:
        raise ValueKindError(f"invalid slice index: {start} > {end}")
    return start, end


def printf(form: object, *values: object) -> str:
    """Format as Go's Sprintf, with the verbs %s %v %q %d %x %X %o %b %c %t and %%."""
    rest = list(values)

    def replacement(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        if not rest:
            return f"%!{verb}(MISSING)"
        text = _format(rest.pop(0), verb, flags, precision)
        fill = "0" if "0" in flags and "-" not in flags else " "
        size = int(width or 0)
        return text.ljust(size) if "-" in flags else text.rjust(size, fill)

    out = FORMAT_VERB.sub(replacement, _require_string(form))
    if rest:
        extra = ", ".join(f"{type_name(value)}={format_value(value)}" for value in rest)
        out += f"%!(EXTRA {extra})"
    return out


def _format(value: object, verb: str, flags: str, precision: str | None) -> str:
    if isinstance(value, str) and verb in "svqxX":
        return _format_string(replace_surrogates(value), verb, precision)
    if isinstance(value, bool):
        if verb in "vt":
            return format_value(value)
    elif isinstance(value, int) and verb in "vdxXobc":
        if verb == "c":
            return chr(value) if 0 <= value <= 0x10FFFF else "\ufffd"
        return format(value, ("+" if "+" in flags else "") + verb.replace("v", "d"))
    if verb == "v":
        return format_value(value)
    return f"%!{verb}({type_name(value)}={format_value(value)})"


def _format_string(text: str, verb: str, precision: str | None) -> str:
    if precision is not None:
        text = text[: int(precision or 0)]
    if verb == "q":
        return '"' + "".join(map(_quote, text)) + '"'
    if verb in "xX":
        digits = text.encode().hex()
        return digits.upper() if verb == "X" else digits
    return text


def _quote(character: str) -> str:
    """Return one character as part of a Go string literal."""
    short = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t",
             "\v": "v", "\\": "\\", '"': '"'}.get(character)  # fmt: skip
    if short:
        return "\\" + short
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# Rendering evaluates the arguments of "and" and "or" one by one.
FUNCTIONS: dict[str, Signature] = {
    "and": Signature(lambda *values: values[-1], (1, UNLIMITED)),
    "or": Signature(lambda *values: values[-1], (1, UNLIMITED)),
    "not": Signature(lambda value: not is_true(value), (1, 1)),
    "eq": Signature(equal_any, (2, UNLIMITED)),
    "ne": Signature(lambda left, right: not is_equal(left, right), (2, 2)),
    "lt": Signature(is_less, (2, 2)),
    "le": Signature(lambda left, right: not is_less(right, left), (2, 2)),
    "gt": Signature(lambda left, right: is_less(right, left), (2, 2)),
    "ge": Signature(lambda left, right: not is_less(left, right), (2, 2)),
    "len": Signature(byte_length, (1, 1)),
    "index": Signature(index_value, (1, UNLIMITED)),
    "slice": Signature(slice_value, (1, 3)),
    "print": Signature(lambda *values: sprint(values), (0, UNLIMITED)),
    "println": Signature(
        lambda *values: " ".join(map(format_value, values)) + "\n", (0, UNLIMITED)
    ),
    "printf": Signature(printf, (1, UNLIMITED)),
    "html": Signature(escape_html, (1, UNLIMITED)),
    "js": Signature(escape_js, (1, UNLIMITED)),
    "urlquery": Signature(escape_query, (1, UNLIMITED)),
    "ToUpper": Signature(to_upper, (1, 1)),
    "ToLower": Signature(to_lower, (1, 1)),
}
