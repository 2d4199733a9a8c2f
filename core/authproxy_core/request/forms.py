"""Strict parsing of queries and urlencoded forms.

Pairs are split as in the WHATWG URL Standard: ``&`` separates, the first ``=`` splits,
``+`` is a space, an empty pair is skipped. Input that its parser repairs (bad percent
escapes, invalid UTF-8) is rejected, because other parsers may repair it differently.

A ``;`` is part of the value. Some parsers treat it as a separator or drop the pair, so
`constraints` honors a constraint in either interpretation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from ..errors import RequestError
from ..messages import Request

T = TypeVar("T")

MAX_LENGTH = 64 << 10  # bytes of a query or a form
MAX_PAIRS = 256
# Parsers disagree on duplicates (first or last wins), so these are rejected.
SINGLE = frozenset(
    {"code", "state", "iss", "error", "provider", "username", "password"}
    | {"logout_token", "sid"}
)

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SEPARATORS = re.compile(rb"[&;]")


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Return the decoded pairs of *raw* (a query without its ``?``), in their order.

    Raises `RequestError` for a bad percent escape, for invalid UTF-8, and above
    `MAX_LENGTH` bytes or `MAX_PAIRS` pairs.
    """
    if len(raw) > MAX_LENGTH:
        raise RequestError(f"parameters longer than {MAX_LENGTH} bytes")
    pairs = [pair for pair in raw.split(b"&") if pair]
    if len(pairs) > MAX_PAIRS:
        raise RequestError(f"more than {MAX_PAIRS} parameters")
    return [_decode_pair(pair) for pair in pairs]


def parse_form(query: bytes, body: bytes = b"") -> dict[str, str]:
    """Return the form values of a request; an urlencoded body takes precedence.

    The first value of a repeated name counts. Raises `RequestError` as `parse_query`
    does, and for a duplicate of `SINGLE`, even if one is in the query and one in the
    body.
    """
    pairs = parse_query(body) + parse_query(query)
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in values:
            values[name] = value
        elif name in SINGLE:
            raise _duplicate(name)
    return values


def semicolons_read(route: Callable[[Request], T]) -> Callable[[Request], T]:
    """Wrap *route* so that every ``;`` of the query counts as ``&``."""

    def wrapped(request: Request) -> T:
        path, mark, query = request.target.partition(b"?")
        if b";" in query:
            target = path + mark + query.replace(b";", b"&")
            request = replace(request, target=target)
        return route(request)

    return wrapped


def constraints(raw: bytes, names: Collection[str]) -> dict[str, list[str]]:
    """Return the values of the parameters *names* in the query *raw*, in their order.

    An absent name has no entry; one without a value has an empty value. If a name is
    found only with ``;`` as a separator, that interpretation counts for it, so
    ``x=1;name=value`` is a constraint too. Other parameters belong to the application
    and are not validated. Raises `RequestError` for a malformed value of a constraint.
    """
    # Without an escape, a name can only occur literally.
    if b"%" not in raw and not any(name.encode() in raw for name in names):
        return {}
    values = _values_of(names, raw.split(b"&"))
    if b";" in raw:
        values = _values_of(names, _SEPARATORS.split(raw)) | values
    return values


def parameter_names(raw: bytes) -> list[str]:
    """Return the decoded parameter names of the query *raw*; ``;`` separates too."""
    keys = (pair.partition(b"=")[0] for pair in _SEPARATORS.split(raw))
    return [unquote_to_bytes(key).decode("utf-8", "replace") for key in keys]


def _values_of(names: Collection[str], pairs: Iterable[bytes]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for pair in pairs:
        key, _, value = pair.partition(b"=")
        name = unquote_to_bytes(key).decode("utf-8", "replace")
        if name in names:
            values.setdefault(name, []).append(_decode(value))
    return values


def _decode_pair(pair: bytes) -> tuple[str, str]:
    name, _, value = pair.partition(b"=")
    return _decode(name), _decode(value)


def _decode(text: bytes) -> str:
    if _BAD_ESCAPE.search(text):
        raise RequestError("malformed percent escape in a parameter")
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise RequestError("parameter is not UTF-8") from None


def _duplicate(name: str) -> RequestError:
    return RequestError(f"duplicate parameter {name}")
