"""Caches of encoded response heads and header fields that the core reuses.

The core returns the same frozen object for the same input: the response to a repeated
auth check, the identity headers of a session. Its encoding is cached by the object's
identity. The entry holds the object too, so no other object can get that identity.
"""

from __future__ import annotations

from collections.abc import Callable

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.messages import Headers, Respond

from ..http import response_encoder

MAX_CACHE_BYTES = 8 << 20  # bytes of one cache: encodings and the objects they are of
FIELD_OVERHEAD = 150  # bytes: a tuple and two bytes objects
ENTRY_OVERHEAD = 300  # bytes: the object itself and the dict entry


class ResponseHeadCache:
    """Responses with cached heads, encoded by *encode*, *limit* bytes in total."""

    def __init__(
        self,
        limit: int = MAX_CACHE_BYTES,
        *,
        encode: Callable[[Respond], bytes] = response_encoder.encode_head,
    ) -> None:
        self._encode_head = encode
        self._heads: BoundedCache[int, tuple[Respond, bytes]] = BoundedCache(limit)

    def encoded(
        self,
        respond: Respond,
        date: bytes,
        *,
        head_only: bool,
        persistence: response_encoder.Persistence,
    ) -> bytes:
        """Return the encoded response of HTTP/1.1; *date* is the Date field with CRLF."""
        found = self._heads.get(id(respond))
        head = found[1] if found is not None else self._encode(respond)
        if not persistence and not respond.body:
            return b"%b%b\r\n" % (head, date)
        body = (
            b""
            if head_only or not response_encoder.has_body(respond.status)
            else respond.body
        )
        connection = response_encoder.CONNECTION_FIELDS[persistence]
        return b"".join((head, date, connection, b"\r\n", body))

    def head(self, respond: Respond) -> bytes:
        """Return the encoded head without Date."""
        found = self._heads.get(id(respond))
        return found[1] if found is not None else self._encode(respond)

    def _encode(self, respond: Respond) -> bytes:
        head = self._encode_head(respond)
        if respond.reusable:
            size = _entry_size(head, respond.headers) + len(respond.body)
            self._heads.put(id(respond), (respond, head), size)
        return head


class FieldCache:
    """Header fields encoded by *encode*, *limit* bytes in total."""

    def __init__(
        self,
        encode: Callable[[Headers], bytes] = response_encoder.encode_fields,
        limit: int = MAX_CACHE_BYTES,
    ) -> None:
        self._encode_fields = encode
        self._encodings: BoundedCache[int, tuple[Headers, bytes]] = BoundedCache(limit)

    def encoded(self, headers: Headers) -> bytes:
        """Return the encoding of *headers*, a tuple that the core reuses."""
        found = self._encodings.get(id(headers))
        return found[1] if found is not None else self._encode(headers)

    def _encode(self, headers: Headers) -> bytes:
        data = self._encode_fields(headers)
        self._encodings.put(id(headers), (headers, data), _entry_size(data, headers))
        return data


def _entry_size(data: bytes, headers: Headers) -> int:
    """Return the memory of an entry in bytes; it has the fields twice."""
    return 2 * len(data) + len(headers) * FIELD_OVERHEAD + ENTRY_OVERHEAD
