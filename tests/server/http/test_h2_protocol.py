"""Packed heads: any receiver understands them, and the table keeps what comes again."""

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
def test_a_receiver_reads_what_was_packed(
    heads: list[list[tuple[bytes, bytes]]],
) -> None:
    encoder, decoder = NoHuffmanEncoder(), Decoder()
    for head in heads:
        assert decoder.decode(encoder.encode(head), raw=True) == head


def test_values_stand_there_plainly() -> None:
    assert b"some-value" in NoHuffmanEncoder().encode([(b"x-a", b"some-value")])


def test_long_values_push_nothing_out() -> None:
    encoder = NoHuffmanEncoder()
    short, token = (
        (b"x-a", b"some-value"),
        (b"authorization", b"t" * (NO_INDEX_BYTES + 1)),
    )
    first = encoder.encode([short, token])
    for _ in range(9):
        again = encoder.encode([short, token])
        assert b"some-value" not in again  # an index into the table stands for it
        assert token[1] in again
    assert len(again) < len(first)
