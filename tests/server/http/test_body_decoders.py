"""Body decoders: Content-Length and chunked coding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.body_decoders import ChunkedDecoder, LengthDecoder


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
