"""Encoded fields that the core hands out again and again.

The fields that tell an application who the user is are the same for all requests of a
session, and the core gives the same tuple each time. Their bytes are found by the
tuple's identity; the tuple is kept beside them, so that its identity stays its own.
"""

from __future__ import annotations

from collections.abc import Callable

from authproxy_core.messages import Headers

from ..http.response_encoder import fields

LIMIT = 8 << 20  # bytes of encoded fields, and of the tuples kept beside them
FIELD_OVERHEAD = 150  # bytes: a tuple and two bytes objects
ENTRY_OVERHEAD = 300  # bytes: the tuple's and the table's own


class FieldCache:
    """Headers → what *encode* makes of them, at most *limit* bytes together."""

    def __init__(
        self, encode: Callable[[Headers], bytes] = fields, limit: int = LIMIT
    ) -> None:
        self._new = encode
        self._limit = limit
        self._size = 0
        self._known: dict[int, tuple[Headers, bytes]] = {}

    def encoded(self, headers: Headers) -> bytes:
        """The bytes of *headers*, a tuple that comes again."""
        found = self._known.get(id(headers))
        return found[1] if found is not None else self._encode(headers)

    def _encode(self, headers: Headers) -> bytes:
        data = self._new(headers)
        size = 2 * len(data) + len(headers) * FIELD_OVERHEAD + ENTRY_OVERHEAD
        if size > self._limit:
            return data
        if self._size + size > self._limit:
            self._known.clear()
            self._size = 0
        self._known[id(headers)] = (headers, data)
        self._size += size
        return data
