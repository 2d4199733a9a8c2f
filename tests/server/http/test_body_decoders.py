"""Body decoders: Content-Length and chunked coding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.body_decoders import (
    MAX_READ_LINES,
    MAX_TRAILERS,
    ChunkedDecoder,
    LengthDecoder,
)
from authproxy_core.errors import RequestError


@given(st.binary(max_size=200), st.integers(1, 50), st.integers(1, 50), st.binary())
def test_decoders_take_exactly_the_body(
    body: bytes, size: int, cut: int, rest: bytes
) -> None:
    """The result is independent of the packets; the following bytes stay."""
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks)
    for decoder, raw in (
        (LengthDecoder(len(body)), body),
        (ChunkedDecoder(), coded + b"0\r\nT: x\r\n\r\n"),
    ):
        received, out = bytearray(), b""
        for at in range(0, len(raw), cut):
            received += raw[at : at + cut]
            while data := decoder.take(received):
                out += data
        received += rest
        assert (decoder.done, out, bytes(received)) == (True, body, rest)
        assert decoder.remaining() == 0
        assert (decoder.take(received), bytes(received)) == (b"", rest)


def test_chunked_decoder_tiny_chunks_limited_number_at_once() -> None:
    """A chunk has a cost however small it is, so few bytes are decoded at once."""
    received, decoder = bytearray(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"), ChunkedDecoder()
    sizes = []
    while not decoder.done:
        sizes.append(len(decoder.take(received)))
    assert sum(sizes) == 1000
    assert 0 < max(sizes) <= MAX_READ_LINES


@pytest.mark.parametrize("more", [0, 1])
def test_chunked_decoder_trailers_limited(more: int) -> None:
    raw = b"0\r\n" + b"a:\r\n" * (MAX_TRAILERS + more) + b"\r\n"
    decoder = ChunkedDecoder()
    if more:
        with pytest.raises(RequestError, match="too many trailers"):
            decoder.take(bytearray(raw))
    else:
        assert decoder.take(bytearray(raw)) == b""
        assert (decoder.done, len(decoder.trailers)) == (True, MAX_TRAILERS)
