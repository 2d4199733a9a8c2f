"""Encoded heads of answers that the core hands out again and again.

The core answers a repeated check with the same frozen object, so the bytes of its head
are the same too. They are found by the object's identity; the object is kept beside
them, so that its identity stays its own. Whatever the core makes anew each time (pages, the
answer to a session that was never seen before) is not kept; the core says which is which.
"""

from __future__ import annotations

from authproxy_core.messages import Respond

from ..http import response_encoder

LIMIT = 8 << 20  # bytes of encoded heads, and of the answers kept beside them
FIELD_OVERHEAD = 150  # bytes: a tuple and two bytes objects
ENTRY_OVERHEAD = 300  # bytes: the answer's and the table's own


class ResponseHeadCache:
    """Respond → its encoded head, at most *limit* bytes together."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._size = 0
        self._heads: dict[int, tuple[Respond, bytes]] = {}

    def encoded(
        self,
        respond: Respond,
        date: bytes,
        *,
        head_only: bool,
        persistence: response_encoder.Persistence,
    ) -> bytes:
        """The whole answer; *date* is the Date field with its line end."""
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

    def _encode(self, respond: Respond) -> bytes:
        head = response_encoder.encode_head(respond)
        if not respond.reusable:
            return head
        # The fields are kept twice: in the answer and in its encoded head.
        fields = len(respond.headers) * FIELD_OVERHEAD
        size = 2 * len(head) + len(respond.body) + fields + ENTRY_OVERHEAD
        if size > self._limit:
            return head
        if self._size + size > self._limit:
            self._heads.clear()
            self._size = 0
        self._heads[id(respond)] = (respond, head)
        self._size += size
        return head
