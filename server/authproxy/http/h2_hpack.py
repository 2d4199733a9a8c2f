"""How heads of HTTP/2 are packed (HPACK, RFC 7541): plainly.

The library's Huffman coding takes longer than everything else that is done for a
request, to save a quarter of the bytes; RFC 7541 §5.2 leaves it to the sender. Long
values, tokens most of all, are not put into the table of known fields: they would push
out all others, and never be found there again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack import Encoder

NO_INDEX_BYTES = 512  # bytes of a value; the whole table has 4096


class NoHuffmanEncoder(Encoder):
    """Packs without Huffman coding."""

    def encode(self, headers: Iterable[Any], huffman: bool = False) -> bytes:
        """The packed block of *headers*."""
        return super().encode(headers, huffman)

    def add(
        self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False
    ) -> bytes:
        """One packed field; a *sensitive* or long one never gets into the table."""
        return super().add(
            to_add, sensitive or len(to_add[1]) > NO_INDEX_BYTES, huffman
        )
