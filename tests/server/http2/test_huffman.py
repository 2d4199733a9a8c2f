"""HPACK's Huffman code: the fast decoder agrees with the library's, or abstains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http2.frames import ConnectionFault
from authproxy.http2.huffman import CODE_LENGTHS, decode_fast, decode_slow

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
SHORT = bytes(symbol for symbol in range(256) if CODE_LENGTHS[symbol])


def expected(data: bytes) -> bytes | None:
    """Return the library's result; None for an invalid encoding."""
    try:
        return bytes(decode_huffman(data))
    except HPACKDecodingError:
        return None


@given(st.binary(max_size=40) | st.text(alphabet=SHORT.decode()).map(str.encode))
def test_huffman_any_string_decodes_to_itself(text: bytes) -> None:
    data = ENCODER.encode(text)
    fast = decode_fast(data) if data else b""
    assert decode_slow(data) == text
    assert fast == (text if not text.translate(None, SHORT) else None)


@given(st.binary(min_size=1, max_size=60))
def test_huffman_any_bytes_agree_with_library(data: bytes) -> None:
    fast = decode_fast(data)
    assert fast is None or fast == expected(data)


def bit_strings(size: int) -> Iterator[bytes]:
    """Yield all strings of *size* bytes, the last of them with interesting ends."""
    for number in range(1 << (8 * size)):
        yield number.to_bytes(size)


@pytest.mark.parametrize("size", [1, 2])
def test_huffman_all_short_encodings_agree_with_library(size: int) -> None:
    """All paddings after all codes, valid or not."""
    for data in bit_strings(size):
        text = expected(data)
        fast = decode_fast(data)
        assert fast == text or (
            fast is None and (not text or text.translate(None, SHORT))
        )


@pytest.mark.parametrize(
    "text", [b"a", b"}", b"?", b"<", b"a}", b"www.example.com/{x}"]
)
def test_huffman_padding_is_checked(text: bytes) -> None:
    data = ENCODER.encode(text)
    assert decode_fast(data) == text
    assert decode_fast(data + b"\xff") is None  # RFC 7541 §5.2: more than 7 bits
    assert decode_fast(data + b"\xff\xff\xff\xff") is None  # EOS
    bits = sum(CODE_LENGTHS[symbol] for symbol in text)
    if bits % 8:
        assert decode_fast(data[:-1] + bytes([data[-1] & ~1])) is None
    with pytest.raises(ConnectionFault):
        decode_slow(data + b"\xff")
