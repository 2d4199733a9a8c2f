"""HPACK: the library understands the encoder, the decoder agrees with the library."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http2 import hpack_encoder
from authproxy.http2.field_kinds import NORMAL, make_entry
from authproxy.http2.frames import ConnectionFault, ErrorCode
from authproxy.http2.hpack_decoder import HeaderDecoder
from authproxy.http2.huffman import MAX_SLOW_BYTES
from authproxy.http2.static_table import STATIC_TABLE
from authproxy_core.messages import Header

FIELDS = 1000
field = st.tuples(
    st.sampled_from([b":method", b":path", b"cookie", b"x-a", b"accept", b"X", b""])
    | st.binary(max_size=10),
    st.sampled_from([b"GET", b"/", b"a" * 200, b"b" * 5000]) | st.binary(max_size=40),
)
heads = st.lists(st.lists(field, max_size=8), max_size=8)


def decode(decoder: HeaderDecoder, block: bytes) -> list[Header]:
    return [field for field, _, _ in decoder.decode(block)]


@given(heads, st.booleans(), st.sampled_from([0, 100, 4096, 16_384]))
def test_decoder_any_heads_of_the_library(
    sent: list[list[Header]], huffman: bool, table: int
) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(FIELDS, 16_384)
    encoder.header_table_size = table
    for head in sent:
        assert decode(decoder, encoder.encode(head, huffman)) == head


def is_stricter(block: bytes) -> bool:
    """Return whether only the library accepts *block*: RFC 7541 §4.2, long integers."""
    try:
        HeaderDecoder(FIELDS, 1 << 30).decode(block)
    except ConnectionFault as fault:
        return "size update" in str(fault) or "integer" in str(fault)
    return False


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_decoder_any_bytes_agree_with_library(blocks: list[bytes]) -> None:
    ours, library = HeaderDecoder(FIELDS), Decoder(max_header_list_size=1 << 20)
    for block in blocks:
        try:
            expected = [tuple(one) for one in library.decode(block, raw=True)]
        except (HPACKError, UnicodeDecodeError):
            with pytest.raises(ConnectionFault) as fault:
                decode(ours, block)
            assert fault.value.code == ErrorCode.COMPRESSION_ERROR
            return
        if not is_stricter(block):
            assert decode(ours, block) == expected
            continue
        with pytest.raises(ConnectionFault):
            decode(ours, block)
        return


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # beyond the table
        b"\x82\x20",  # a size update after a field
        b"\x3f\xe2\x7f",  # a size above the limit
        b"\xff",  # truncated
        b"\xff\x80\x80\x80\x80\x80\x01",  # an integer without end
        b"\x40\x01x",
        b"\x40\x05x\x01y",
        b"\x40\x01x\x82\xff\xff",  # Huffman: EOS
    ],
)
def test_decoder_malformed_block_is_compression_error(block: bytes) -> None:
    with pytest.raises(ConnectionFault) as fault:
        HeaderDecoder(FIELDS).decode(block)
    assert fault.value.code == ErrorCode.COMPRESSION_ERROR


def test_decoder_field_is_checked_once() -> None:
    """Fields of both tables are the same objects at every decoding."""
    decoder, encoder = HeaderDecoder(FIELDS), Encoder()
    head = [(b":method", b"GET"), (b"x-a", b"1"), (b"cookie", b"secret=" + b"a" * 99)]
    decoder.decode(encoder.encode(head))
    first = decoder.decode(encoder.encode(head))
    again = decoder.decode(encoder.encode(head))
    assert [field for field, _, _ in first] == head
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_decoder_too_many_fields_close() -> None:
    """The work of a block is bounded: 64 kB could hold 64,000 fields."""
    assert len(HeaderDecoder(10).decode(b"\x82" * 10)) == 10
    with pytest.raises(ConnectionFault) as fault:
        HeaderDecoder(10).decode(b"\x82" * 60_000)
    assert fault.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_decoder_rare_characters_are_bounded() -> None:
    """They are decoded, but slowly, so only some of them in one block."""
    decoder, encoder = HeaderDecoder(FIELDS), Encoder()
    value = "ü\\".encode() * 200
    block = encoder.encode([(b"x-a", value)], huffman=True)
    assert decode(decoder, block) == [(b"x-a", value)]
    assert 0 < decoder.slow_bytes < MAX_SLOW_BYTES
    assert decode(decoder, b"\x82") == [(b":method", b"GET")]
    assert decoder.slow_bytes == 0
    with pytest.raises(ConnectionFault) as fault:
        decoder.decode(encoder.encode([(b"x-b", b"\xff" * 4000)], huffman=True))
    assert fault.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_decoder_table_is_bounded() -> None:
    """Entries above the size are evicted; an entry above it empties the table."""
    decoder, limit = HeaderDecoder(FIELDS, 16_384), 4096
    encoder = Encoder()
    for number in range(500):
        decoder.decode(encoder.encode([(b"x-%d" % number, b"y" * 50)], huffman=False))
        assert decoder._size <= limit
    assert decoder._size == sum(size for _, _, size in decoder._dynamic)
    decoder.decode(encoder.encode([(b"x", b"z" * limit)], huffman=False))
    assert (decoder._size, decoder._dynamic) == (0, [])


def test_static_table_is_complete() -> None:
    assert len(STATIC_TABLE) == 61
    assert STATIC_TABLE[1] == (b":method", b"GET")
    assert STATIC_TABLE[15] == (b"accept-encoding", b"gzip, deflate")
    assert STATIC_TABLE[60] == (b"www-authenticate", b"")
    block = bytes(range(0x81, 0xBE))
    library = Decoder(max_header_list_size=1 << 20)
    assert tuple(library.decode(block, raw=True)) == STATIC_TABLE


@given(
    st.integers(100, 599),
    st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"set-cookie", b"x-a", b"x" * 200]),
            st.text(alphabet="ab =;ü", max_size=300).map(str.encode),
        ),
        max_size=6,
    ),
    st.none() | st.integers(0, 10**9),
)
def test_encoder_any_head_decodes_to_itself(
    status: int, fields: list[Header], length: int | None
) -> None:
    date = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    encoded = hpack_encoder.encode_fields(fields)
    block = hpack_encoder.encode_head(status, encoded, length, date)
    decoder = Decoder(max_header_list_size=1 << 20)
    expected = [(b":status", b"%d" % status)]
    expected += [(name, value.strip(b" \t")) for name, value in fields]
    if length is not None:
        expected.append((b"content-length", b"%d" % length))
    expected.append((b"date", date[6:-2]))
    assert [tuple(one) for one in decoder.decode(block, raw=True)] == expected
    assert len(decoder.header_table.dynamic_entries) == 0
    assert hpack_encoder.encode_head(status, encoded, length, b"") == block[:-32]


@pytest.mark.parametrize("bad", [b"a\r\nx: y", b"a\nb", b"\0"])
def test_encoder_control_character_raises(bad: bytes) -> None:
    with pytest.raises(ValueError, match="x-a"):
        hpack_encoder.encode_fields([(b"x-a", bad)])


def test_encoder_forbidden_fields_dropped_and_secrets_marked() -> None:
    """RFC 9113 §8.2.2, RFC 7541 §7.1.3."""
    assert hpack_encoder.encode_fields([(b"connection", b"close")]) == b""
    assert hpack_encoder.encode_fields([(b"set-cookie", b"a=1")])[0] >> 4 == 1
    assert hpack_encoder.encode_fields([(b"content-type", b"a/b")])[0] >> 4 == 0


def test_encoder_translates_fields_of_http_1() -> None:
    parts = [b"Content-Type: ", b"a/b", b"\r\n", b"X-A: ", b"1", b"\r\n"]
    expected = hpack_encoder.encode_fields([(b"content-type", b"a/b"), (b"x-a", b"1")])
    for _ in range(2):  # the second time from the cache
        assert hpack_encoder.translate_fields(parts) == expected


def test_entry_sizes_and_kinds() -> None:
    assert make_entry(b"x-a", b"12") == ((b"x-a", b"12"), NORMAL, 37)
