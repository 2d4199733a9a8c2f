"""Queries and urlencoded forms, parsed strictly and without losing anything.

Pairs are read as the WHATWG URL standard's urlencoded parser does: ``&`` separates, the
first ``=`` splits, ``+`` is a space, an empty piece is nothing. What that parser would
repair (bad percent escapes, bytes that are no UTF-8) is refused instead, so that what
is judged here is what everybody else reads.

A ``;`` stays in the value. Others take it for a separator and some parsers drop a pair
that holds one; `constraints` counts a constraint in either reading.
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
# Two values of these would mean one thing to us and another to somebody else.
SINGLE = frozenset(
    {"code", "state", "iss", "error", "provider", "username", "password"}
    | {"logout_token", "sid"}
)

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SEPARATORS = re.compile(rb"[&;]")


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """The decoded pairs of *raw* (a query without its ``?``), in their order.

    Raises `RequestError` for a bad percent escape, for what is no UTF-8, and above
    `MAX_LENGTH` bytes or `MAX_PAIRS` pairs.
    """
    if len(raw) > MAX_LENGTH:
        raise RequestError(f"expected parameters of at most {MAX_LENGTH} bytes")
    pieces = [piece for piece in raw.split(b"&") if piece]
    if len(pieces) > MAX_PAIRS:
        raise RequestError(f"expected at most {MAX_PAIRS} parameters")
    return [_pair(piece) for piece in pieces]


def parse_form(query: bytes, body: bytes = b"") -> dict[str, str]:
    """The form values of a request: those of an urlencoded body beat the query's.

    Of a repeated name the first value counts. Raises `RequestError` as `parse_query`
    does, and when one of `SINGLE` is there twice, be it in two places.
    """
    pairs = parse_query(body) + parse_query(query)
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in values:
            values[name] = value
        elif name in SINGLE:
            raise _twice(name)
    return values


def semicolons_read(route: Callable[[Request], T]) -> Callable[[Request], T]:
    """*route*, asked with every ``;`` of the query read as ``&``."""

    def read(request: Request) -> T:
        path, mark, query = request.target.partition(b"?")
        if b";" in query:
            target = path + mark + query.replace(b";", b"&")
            request = replace(request, target=target)
        return route(request)

    return read


def only(params: Iterable[tuple[str, str]], name: str) -> str | None:
    """The one value of *name*, or None; raises `RequestError` if it is there twice."""
    values = [value for key, value in params if key == name]
    if len(values) > 1:
        raise _twice(name)
    return values[0] if values else None


def constraints(raw: bytes, names: Collection[str]) -> dict[str, list[str]]:
    """The values of the parameters called *names* in the query *raw*, in their order.

    A name that is absent has no entry; one without a value has an empty one. Where
    ``;`` as a separator shows a name that ``&`` alone does not, that reading counts for
    it, so ``x=1;name=value`` is a constraint too. Other parameters belong to the
    application and may look as they like. Raises `RequestError` when the value of a
    constraint is malformed.
    """
    # Without an escape a name can only be there literally.
    if b"%" not in raw and not any(name.encode() in raw for name in names):
        return {}
    found = _values_of(names, raw.split(b"&"))
    if b";" in raw:
        found = _values_of(names, _SEPARATORS.split(raw)) | found
    return found


def _values_of(names: Collection[str], pieces: Iterable[bytes]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for piece in pieces:
        key, _, value = piece.partition(b"=")
        name = unquote_to_bytes(key).decode("utf-8", "replace")
        if name in names:
            found.setdefault(name, []).append(_decoded(value))
    return found


def _pair(piece: bytes) -> tuple[str, str]:
    name, _, value = piece.partition(b"=")
    return _decoded(name), _decoded(value)


def _decoded(text: bytes) -> str:
    if _BAD_ESCAPE.search(text):
        raise RequestError(
            "expected two hexadecimal digits after each % of a parameter"
        )
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise RequestError("expected a parameter in UTF-8") from None


def _twice(name: str) -> RequestError:
    return RequestError(f"expected the parameter {name} once, got it more than once")
