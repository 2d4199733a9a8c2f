"""Decode HPACK's Huffman code (RFC 7541 §5.2) with zlib.

HPACK and DEFLATE (RFC 1951) both use canonical Huffman codes; only the order of bits in
a byte differs. A DEFLATE block may define its own code of up to 15 bits, and HPACK's
codes of up to 15 bits are all visible ASCII characters but the backslash, the space, and
NUL. So a prepared decompressor, which has read the definition of that code, decodes
nearly all strings in C. Its end-of-block symbol has the only 15 bits that are left, all
ones, with which every longer code and the padding begin. Strings with longer codes,
malformed padding, or any doubt are left to the `hpack` library, a hundred times slower.
"""

from __future__ import annotations

import zlib

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_constants import REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman

from .frames import ConnectionFault, ErrorCode

MAX_SLOW_BYTES = 8 << 10  # encoded bytes of one header block left to the library
MAX_CODE_BITS = 15  # of DEFLATE
END_OF_BLOCK = 256
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Symbol → bits of its code, 0 for those that DEFLATE can't have.
CODE_LENGTHS = [
    bits if bits <= MAX_CODE_BITS else 0 for bits in REQUEST_CODES_LENGTH[:256]
]
LENGTH_OF_BYTE = bytes(CODE_LENGTHS)
# The order in which a block header lists the code lengths of its own code (RFC 1951).
CODE_LENGTH_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
PADDING = b"\xff\xff"


def _block_header() -> bytes:
    """Return the start of a DEFLATE block with HPACK's code, up to its first symbol."""
    bits: list[int] = []

    def number(value: int, count: int) -> None:
        bits.extend(value >> position & 1 for position in range(count))

    for _ in range(3):  # empty blocks, so that the header ends with a whole byte
        number(0b010, 3)
        number(0, 7)
    number(0b101, 3)  # the last block, with dynamic codes
    number(0, 5)  # 257 literals and lengths
    number(0, 5)  # 1 distance
    number(15, 4)  # 19 code lengths follow
    for symbol in CODE_LENGTH_ORDER:
        number(4 if symbol < 16 else 0, 3)
    for length in (*CODE_LENGTHS, MAX_CODE_BITS, 1):
        number(int(f"{length:04b}"[::-1], 2), 4)
    values = (bits[start : start + 8] for start in range(0, len(bits), 8))
    return bytes(sum(bit << at for at, bit in enumerate(byte)) for byte in values)


def _prepare() -> zlib._Decompress:
    prepared = zlib.decompressobj(-9)  # no header, the smallest window
    prepared.decompress(_block_header())
    return prepared


_prepared = _prepare()


def decode_fast(data: bytes) -> bytes | None:
    """Return the decoded string; None if only `decode_slow` can decode or reject it.

    A decoded string consists of visible ASCII characters, spaces and NUL.
    """
    decoder = _prepared.copy()
    text = decoder.decompress(data.translate(REVERSED_BITS))
    # What is left must be padding: at most 7 bits, all ones, which together with the
    # following ones end the block.
    if decoder.eof or decoder.decompress(PADDING) or not decoder.eof:
        return None
    if (
        decoder.unused_data
        and data[-1] == 0xFF
        and 8 * len(data) - sum(text.translate(LENGTH_OF_BYTE)) > 7
    ):
        return None
    return text


def decode_slow(data: bytes) -> bytes:
    """Return the decoded string, whatever it contains.

    Raises `ConnectionFault` for an invalid encoding.
    """
    try:
        return bytes(decode_huffman(data))
    except HPACKDecodingError as error:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from None
