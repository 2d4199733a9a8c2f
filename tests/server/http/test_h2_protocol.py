"""HPACK encoding: decoders understand it, and long values are not indexed."""

from __future__ import annotations

from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.h2_protocol import NO_INDEX_BYTES, NoHuffmanEncoder

field = st.tuples(
    st.sampled_from([b":status", b"content-type", b"x-a", b"set-cookie"]),
    st.binary(max_size=20)
    | st.sampled_from([b"a" * NO_INDEX_BYTES, b"b" * (NO_INDEX_BYTES + 1)]),
)


@given(st.lists(st.lists(field, max_size=6), max_size=6))
def test_no_huffman_encoder_any_head_decodes_to_itself(
    heads: list[list[tuple[bytes, bytes]]],
) -> None:
    encoder, decoder = NoHuffmanEncoder(), Decoder()
    for head in heads:
        assert decoder.decode(encoder.encode(head), raw=True) == head


def test_no_huffman_encoder_value_is_literal() -> None:
    assert b"some-value" in NoHuffmanEncoder().encode([(b"x-a", b"some-value")])


def test_no_huffman_encoder_long_value_evicts_no_other_field() -> None:
    encoder = NoHuffmanEncoder()
    short, token = (
        (b"x-a", b"some-value"),
        (b"authorization", b"t" * (NO_INDEX_BYTES + 1)),
    )
    first = encoder.encode([short, token])
    for _ in range(9):
        again = encoder.encode([short, token])
        assert b"some-value" not in again  # replaced by an index
        assert token[1] in again
    assert len(again) < len(first)
