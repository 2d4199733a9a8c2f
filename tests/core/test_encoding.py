"""Encodings and syntax checks: strict for client input."""

from __future__ import annotations

import base64
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core.encoding import (
    b64url,
    b64url_decode,
    b64url_decode_lenient,
    b64url_padded,
    b64url_padded_decode,
    header_text,
    is_host_name,
    is_token,
)

MESSY = st.binary(max_size=40) | st.text("AQgwz-_+/=\n\r .", max_size=12).map(
    str.encode
)


def decoded_slowly(text: bytes) -> bytes | None:
    """A slow reference for `b64url_decode`: decode, encode again, compare."""
    if not re.fullmatch(rb"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    return data if b64url(data) == text else None


@given(st.binary())
def test_b64url_round_trip(data: bytes) -> None:
    assert b64url_decode(b64url(data)) == data
    assert b64url_padded_decode(b64url_padded(data)) == data
    assert b64url_decode_lenient(b64url(data)) == data
    assert b"=" not in b64url(data)
    assert len(b64url_padded(data)) % 4 == 0


@given(MESSY)
def test_b64url_decode_accepts_canonical_form_only(text: bytes) -> None:
    assert b64url_decode(text) == decoded_slowly(text)
    padded = b64url_padded_decode(text)
    assert padded is None or b64url_padded(padded) == text


def test_b64url_decode_all_texts_up_to_two_bytes() -> None:
    for length in range(3):
        for octets in itertools.product(range(256), repeat=length):
            assert b64url_decode(bytes(octets)) == decoded_slowly(bytes(octets))


@pytest.mark.parametrize("position", range(6))
def test_b64url_decode_every_byte_at_every_position(position: int) -> None:
    for octet in range(256):
        text = bytearray(b"QUJDRA")
        text[position] = octet
        assert b64url_decode(bytes(text)) == decoded_slowly(bytes(text))


@pytest.mark.parametrize(
    "text",
    [
        b"QQ",  # no padding
        b"QQ=",
        b"QQ===",
        b"QUI==",
        b"QUJD====",
        b"=",
        b"====",
        b"QQ==QQ==",
        b"QR==",  # unused bits are set
        b"QUJ=",
        b"Q===",
        b"QQ==\n",
        b"QU\nI=",
        b"+/+/",
    ],
)
def test_b64url_padded_decode_other_form_rejected(text: bytes) -> None:
    assert b64url_padded_decode(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"QUI", b"AB"),
        (b"QUI=", b"AB"),
        (b"QUI====", b"AB"),
        (b"Q\r\nUI\n", b"AB"),
        (b"QUJ", b"AB"),  # unused bits are not checked
        (b"-_-_", b"\xfb\xff\xbf"),
        (b"+/+/", None),
        (b"Q", None),
        (b"Q UI", None),
        (b"Q=UI", None),
        (b"", b""),
    ],
)
def test_b64url_decode_lenient_like_go(text: bytes, expected: bytes | None) -> None:
    assert b64url_decode_lenient(text) == expected


@given(st.binary(max_size=20))
def test_b64url_decode_lenient_never_raises(text: bytes) -> None:
    assert isinstance(b64url_decode_lenient(text), bytes | None)


@pytest.mark.parametrize(
    "text", [b"a", b"_oauth2_proxy", b"x-y.z", b"!#$%&'*+-.^_`|~09"]
)
def test_is_token_valid(text: bytes) -> None:
    assert is_token(text)


@pytest.mark.parametrize(
    "text",
    [b"", b"a b", b"a=", b"a;", b'"a"', b"a\n", b"\xc3\xa4", b"a\0", b"a,b", b"(a)"],
)
def test_is_token_invalid(text: bytes) -> None:
    assert not is_token(text)


@pytest.mark.parametrize(
    "host", ["a", "A.Example.COM", "x-1.example", "1.2.3.4", "a" * 63 + ".de"]
)
def test_is_host_name_valid(host: str) -> None:
    assert is_host_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".a",
        "a.",
        "a..b",
        "-a.b",
        "a-.b",
        "a:80",
        "a b",
        "a_b",
        "ä.de",
        "a\n",
        "a" * 64,
        ".".join(["a" * 60] * 5),
    ],
)
def test_is_host_name_invalid(host: str) -> None:
    assert not is_host_name(host)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, with\ttab", b"plain text, with\ttab"),
        ("a\r\nset-cookie: x", b"a%0D%0Aset-cookie: x"),
        ("\0\x7f", b"%00%7F"),
        ("ä", b"\xc3\xa4"),
        ("\ud800", b"?"),
    ],
)
def test_header_text_escapes_control_characters(text: str, expected: bytes) -> None:
    assert header_text(text) == expected


@given(st.text())
def test_header_text_cannot_end_field(text: str) -> None:
    safe = header_text(text)
    assert not set(safe) & {*range(9), *range(10, 32), 127}
