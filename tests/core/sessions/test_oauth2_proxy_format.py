"""oauth2-proxy's formats, checked against values that its code has produced."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import lz4.frame
import msgspec
import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from authproxy_core.encoding import b64url
from authproxy_core.errors import SealError
from authproxy_core.oidc.jwt import hash_nonce
from authproxy_core.session import Session
from authproxy_core.sessions.oauth2_proxy_format import (
    MAX_RECORD_BYTES,
    MAX_VALUE_BYTES,
    CsrfRecord,
    OAuth2ProxyFormat,
    Ticket,
    read_stored_session,
    write_stored_session,
)
from authproxy_core.settings.root import Secret

SECRET = b"0123456789abcdef0123456789abcdef"
KEY = bytes.fromhex("d35db7e39ebbf3d69b71d79fd35db7e39ebbf3d69b71d79f")
NAME = b"_oauth2_proxy"
CSRF = b"_oauth2_proxy_csrf"
FORMAT = OAuth2ProxyFormat([Secret(SECRET)], NAME.decode())
IV = bytes(range(16))
NOW = 1_700_000_100.0

# Produced with the packages of oauth2-proxy.
RECORD_A = bytes.fromhex(
    "8ba26361d7ff1d6f34546553f100a2656fd6ff6553ff10a26174a24154a26974a24954a27274a25254"
    "a16ec420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fa165b07573"
    "6572406578616d706c652e636f6da175a3752d31a16792a26731a7726f6c653a7231a27075a27075a2"
    "616381a464657074a178"
)
FRAME_A = (
    bytes.fromhex("04224d186440a785000080")
    + RECORD_A
    + bytes.fromhex("0000000054132292")
)
COOKIE_A = (
    b"VHxvbXxoZ7I91O_BeStihglV2ysGFl64-j2x2HWO32Uf-zmq4eWzDO3_82QFf1ON2Mfp3jHoR4VXKCt6py"
    b"Zq6oVe7rXYgwaOMaVLucXrKMdIpqrAaF3xcaRgU80Ei8SLmLswkqzIEKSVxFX90PR-ryrkp7d6wnTc7p3j"
    b"JeBHvJkGWAsR9I7ETMQfCi8W65lZq5I8ALcXjQ2FeusxWrENtvJMYud3-Sxc|1700000000|"
    b"T-spR1plGFWybKt8ppD1kCd7ABCuU3oPQhAI7vbKngk="
)
RECORD_B = bytes.fromhex("83a26361d6ff6553ff10a175a361646da16791a26867")
TICKET = Ticket(
    "_oauth2_proxy-00112233445566778899aabbccddeeff",
    bytes.fromhex("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"),
)
TICKET_COOKIE = (
    b"djIuWDI5aGRYUm9NbDl3Y205NGVTMHdNREV4TWpJek16UTBOVFUyTmpjM09EZzVPV0ZoWW1KalkyUmtaV1Zt"
    b"Wmcub0tHaW82U2xwcWVvcWFxcnJLMnVydw==|1700000000|"
    b"TR4Cun9X7J-mbXS3-AVJmd0si8qE6v04T95sL-szTTg="
)
STORED_A = bytes.fromhex(
    "e486696cc6c659b2eddf0626b6481e903d60164ea364392e7b04efb5ab2e211fa4bd650c7f09fac8d2f0"
    "dc668cdc98723e7b223e6f0200ef784008ee4ca090b91906fbb3371b39fc2e4916e5d60ca0888bd1be26"
    "b500b202b85825971c79bab1285e97e5be7b61241913fecbb2865fc2df935903b8b0434720f0e8f89a2b"
    "cdd2f2960935cbf8c76f4244760e03c8e2d43899e58a9930de09755163af4214b5e98e"
)
CSRF_COOKIE = (
    b"2Vt7OcB1xedIOMSPaBaumpH_Lx1Ar81kMb2NzEsSWw4YccGre-nnSBifHNjILRRJ2sz4U-AyAxDe7RRZvIH1"
    b"ZwqUQFswAokLeT7a17--R29sxjxfqQ4fH7IqIdcNYayM2rN7wqA=|1795500656|"
    b"Mo2txBf8W49qGBkgUWxuTGxy7Nxu8DbROe-lU4fMjhk="
)
CSRF_RECORD = CsrfRecord(
    bytes.fromhex("278346081b7e37a4556baa5efa58acd309a45f84ded1d0dbc45287b88a5c3910"),
    bytes.fromhex("e9a5b144bdeebf986a177b20e2407b428fb585a49e573808344d492b732d8d94"),
    "verifier",
)
SESSION_A = Session(
    created_at=1_700_000_000.123456789,
    login_at=1_700_000_000.123456789,
    expires_at=1_700_003_600.0,
    access_token="AT",
    id_token="IT",
    refresh_token="RT",
    nonce=bytes(range(32)),
    email="user@example.com",
    user="u-1",
    groups=("g1", "role:r1"),
    preferred_username="pu",
    claims={"dept": "x"},
)
SESSION_B = Session(
    created_at=1_700_003_600.0, login_at=1_700_003_600.0, user="adm", groups=("hg",)
)


def signed(
    payload: bytes | str,
    time: bytes = b"1700000000",
    *,
    name: bytes = NAME,
    secret: bytes = SECRET,
) -> bytes:
    """Return a signed value; a *payload* of type str is not base64-encoded."""
    text = (
        payload.encode()
        if isinstance(payload, str)
        else base64.urlsafe_b64encode(payload)
    )
    digest = hmac.new(secret, name + text + time, hashlib.sha256).digest()
    return b"|".join((text, time, base64.urlsafe_b64encode(digest)))


def encrypted(plain: bytes) -> bytes:
    encryptor = Cipher(AES(KEY), CFB(IV)).encryptor()
    return IV + encryptor.update(plain) + encryptor.finalize()


def decrypted(value: bytes) -> bytes:
    payload = base64.urlsafe_b64decode(value.split(b"|")[0])
    decryptor = Cipher(AES(KEY), CFB(payload[:16])).decryptor()
    return decryptor.update(payload[16:]) + decryptor.finalize()


def framed(record: bytes) -> bytes:
    return signed(encrypted(lz4.frame.compress(record)))


def packed(fields: Mapping[str, Any]) -> bytes:
    return framed(msgspec.msgpack.encode(fields))


def read(value: bytes, *, now: float = NOW, lifetime: float = 0) -> Any:
    """Return the session or ticket in *value*."""
    return FORMAT.read_cookie(value, now=now, lifetime=lifetime)[0]


def assert_rejected(
    value: bytes, *, lifetime: float = 0, match: str | None = None
) -> None:
    with pytest.raises(SealError, match=match):
        read(value, lifetime=lifetime)


def record_of(session: Session) -> bytes:
    """Return the MessagePack map that is written for *session*."""
    record: bytes = lz4.frame.decompress(
        decrypted(FORMAT.write_session(session, iv=IV))
    )
    return record


# values of oauth2-proxy, and the same values written by authproxy


def test_session_cookie_of_oauth2_proxy_read() -> None:
    assert read(COOKIE_A) == SESSION_A
    assert decrypted(COOKIE_A) == FRAME_A


def test_session_record_written_as_oauth2_proxy_writes_it() -> None:
    assert record_of(SESSION_B) == RECORD_B
    # A float cannot hold nanoseconds, so up to 8 bytes of the timestamp differ.
    record = record_of(SESSION_A)
    assert record[:6] + record[14:] == RECORD_A[:6] + RECORD_A[14:]
    assert int.from_bytes(record[6:14], "big") & (1 << 34) - 1 == 1_700_000_000
    nanos = int.from_bytes(record[6:14], "big") >> 34
    assert abs(nanos - 123_456_789) < 240


def test_session_cookie_written_as_oauth2_proxy_writes_it() -> None:
    frame = decrypted(FORMAT.write_session(SESSION_A, iv=IV))
    assert frame[:11] == FRAME_A[:11]
    assert frame[-8:-4] == FRAME_A[-8:-4]
    value = FORMAT.write_session(SESSION_A, iv=IV)
    assert value == signed(encrypted(frame))
    assert value.split(b"|")[1] == b"1700000000"


def test_csrf_cookie_of_oauth2_proxy_read_and_written() -> None:
    assert FORMAT.read_csrf(CSRF, CSRF_COOKIE, now=NOW, lifetime=0) == CSRF_RECORD
    iv = base64.urlsafe_b64decode(CSRF_COOKIE.split(b"|")[0])[:16]
    assert FORMAT.write_csrf(CSRF, CSRF_RECORD, now=1795500656.7, iv=iv) == CSRF_COOKIE


def test_csrf_record_without_verifier_read_and_written() -> None:
    record = CsrfRecord(b"s" * 32, b"n" * 32)
    value = FORMAT.write_csrf(CSRF, record, now=NOW, iv=IV)
    assert len(decrypted(value)) == 73
    assert FORMAT.read_csrf(CSRF, value, now=NOW, lifetime=60) == record


def test_ticket_of_oauth2_proxy_read_and_written() -> None:
    assert read(TICKET_COOKIE) == TICKET
    assert FORMAT.write_ticket(TICKET, created_at=1_700_000_000.9) == TICKET_COOKIE


def test_stored_session_of_oauth2_proxy_read() -> None:
    assert read_stored_session(TICKET, STORED_A, created_at=0.0) == SESSION_A


def test_stored_session_written_as_oauth2_proxy_writes_it() -> None:
    value = write_stored_session(TICKET, SESSION_B, nonce=bytes(12))
    assert value[:12] == bytes(12)
    assert AESGCM(TICKET.secret).decrypt(bytes(12), value[12:], None) == RECORD_B
    assert read_stored_session(TICKET, value, created_at=0.0) == SESSION_B


# tampering


def test_ck01_changed_byte_rejected() -> None:
    for position, octet in enumerate(COOKIE_A):
        for other in {0, 10, 0xFF, *b"A_-+/=|09", octet ^ 1, octet ^ 0x20} - {octet}:
            assert_rejected(
                COOKIE_A[:position] + bytes([other]) + COOKIE_A[position + 1 :]
            )


def test_ck01_changed_byte_of_login_state_rejected() -> None:
    for position, octet in enumerate(CSRF_COOKIE):
        changed = bytearray(CSRF_COOKIE)
        changed[position] = octet ^ 1
        with pytest.raises(SealError):
            FORMAT.read_csrf(CSRF, bytes(changed), now=NOW, lifetime=0)


def test_ck02_truncated_value_rejected() -> None:
    for length in range(len(COOKIE_A)):
        assert_rejected(COOKIE_A[:length])
        assert_rejected(COOKIE_A[length + 1 :])


def test_ck02_non_canonical_encoding_rejected() -> None:
    text, time, signature = COOKIE_A.split(b"|")
    for other in (
        COOKIE_A + b"=",
        COOKIE_A[:-1],
        COOKIE_A + b"\n",
        COOKIE_A + b"|",
        COOKIE_A + b"A",
        COOKIE_A[:-2] + b"l=",  # an unused bit
        COOKIE_A.replace(b"-", b"+"),
        COOKIE_A.replace(b"_", b"/"),
        b"|".join((text + b"====", time, signature)),
        b"|".join((text + b"\r\n", time, signature)),
        b"|".join((text, time + b" ", signature)),
    ):
        assert_rejected(other)


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "QR==", "Q Q=", "QQ==\n", "Q\r\nQ=", "+/==", "QQ==QQ=="]
)
def test_ck02_signed_non_canonical_base64_rejected(text: str) -> None:
    assert_rejected(signed(text), match="base64url")


def test_ck02_digits_moved_between_value_and_time_rejected() -> None:
    plain = lz4.frame.compress(RECORD_B)
    while len(payload := encrypted(plain)) % 3:
        plain += b"\0"
    text, time, signature = signed(payload).split(b"|")
    longer = signed(text.decode(), time)
    assert longer.split(b"|")[2] == signature  # the same message is signed
    assert_rejected(
        b"|".join((text + time[:4], time[4:], signature)), match="ten digits"
    )
    assert_rejected(
        b"|".join((text[:-4], text[-4:] + time, signature)), match="ten digits"
    )


def test_ck04_login_state_and_session_not_interchangeable() -> None:
    assert_rejected(CSRF_COOKIE)
    with pytest.raises(SealError):
        FORMAT.read_csrf(CSRF, COOKIE_A, now=NOW, lifetime=0)
    with pytest.raises(SealError):
        FORMAT.read_csrf(NAME, COOKIE_A, now=NOW, lifetime=0)
    text, time, signature = CSRF_COOKIE.split(b"|")
    assert_rejected(b"|".join((b"_csrf" + text, time, signature)), match="base64url")


def test_ck04_ticket_and_session_not_interchangeable() -> None:
    payload = base64.urlsafe_b64decode(TICKET_COOKIE.split(b"|")[0])
    assert_rejected(signed(encrypted(payload)), match="LZ4")
    assert_rejected(signed(b"v2." + RECORD_A.hex().encode()), match="ticket")


def test_ck05_cookie_of_another_name_rejected() -> None:
    other = OAuth2ProxyFormat([Secret(SECRET)], "_other")
    assert_rejected(other.write_session(SESSION_A, iv=IV), match="another name")


def test_ck07_old_secret_reads_until_removed() -> None:
    new = Secret(b"n" * 32)
    both = OAuth2ProxyFormat([new, Secret(SECRET)], NAME.decode())
    assert both.read_cookie(COOKIE_A, now=NOW, lifetime=0)[0] == SESSION_A
    resigned = both.write_session(SESSION_A, iv=IV)
    new_only = OAuth2ProxyFormat([new], NAME.decode())
    assert new_only.read_cookie(resigned, now=NOW, lifetime=0)[0] == SESSION_A
    with pytest.raises(SealError, match="unknown secret"):
        new_only.read_cookie(COOKIE_A, now=NOW, lifetime=0)


@pytest.mark.parametrize(
    "time",
    [
        b"",
        b"0",
        b"-1",
        b"+1",
        b" 1",
        b"1e9",
        b"+700000000",
        b"-700000000",
        b" 700000000",
        b"1_00000000",
        b"1700000.00",
        b"0x17000000",
        b"9" * 40,
        b"17000000000",
        "\u0661".encode() * 10,
        "\u0661".encode() * 5,
        b"\xb2" * 10,
    ],
)
def test_ck08_signed_malformed_time_rejected(time: bytes) -> None:
    assert_rejected(signed(encrypted(FRAME_A), time), match="ten digits")


def test_ck08_time_in_the_future_rejected() -> None:
    value = signed(encrypted(FRAME_A))
    read(value, now=1_700_000_000 - 299, lifetime=60)
    with pytest.raises(SealError, match="future"):
        read(value, now=1_700_000_000 - 300, lifetime=60)


def test_cookie_older_than_lifetime_rejected() -> None:
    value = signed(encrypted(FRAME_A))
    read(value, now=1_700_000_059, lifetime=60)
    with pytest.raises(SealError, match="older"):
        read(value, now=1_700_000_060, lifetime=60)
    with pytest.raises(SealError, match="older"):
        FORMAT.read_csrf(CSRF, CSRF_COOKIE, now=1795500656 + 60, lifetime=60)
    with pytest.raises(SealError, match="older"):
        read(TICKET_COOKIE, lifetime=60)


def test_cookie_without_lifetime_accepted_at_any_age() -> None:
    for now in (0.0, 1e10):
        assert read(COOKIE_A, now=now) == SESSION_A


@pytest.mark.parametrize(
    "value", [b"", b"|", b"||", b"|||", b"deleted", b"   ", b"|" * 100, b"a|b|c"]
)
def test_ck10_malformed_value_rejected(value: bytes) -> None:
    assert_rejected(value)


def test_ck11_huge_value_rejected_undecoded() -> None:
    assert_rejected(signed("A" * MAX_VALUE_BYTES), match="three fields")


def test_ck31_value_of_authproxy_format_rejected() -> None:
    assert_rejected(b64url(b"\x01" + bytes(60)))
    assert_rejected(signed(b"\x01" + bytes(60)), match="LZ4")


@given(st.binary(max_size=80))
def test_any_bytes_rejected_with_seal_error(text: bytes) -> None:
    assert_rejected(text, lifetime=60)
    with pytest.raises(SealError):
        FORMAT.read_csrf(CSRF, text, now=NOW, lifetime=60)


def test_error_text_contains_no_value() -> None:
    for value in (COOKIE_A[:-1], framed(b"\x81\xa2atsecret")):
        with pytest.raises(SealError) as caught:
            read(value)
        assert "secret" not in str(caught.value).replace("unknown secret", "")
        assert caught.value.__cause__ is None


# values with a valid signature


@given(st.binary(max_size=80))
def test_signed_random_payload_rejected(payload: bytes) -> None:
    assert_rejected(signed(payload))


@given(st.binary(max_size=80))
def test_signed_random_frame_rejected(frame: bytes) -> None:
    assert_rejected(signed(encrypted(frame)))


@given(st.binary(max_size=80))
def test_signed_random_record_read_or_rejected(record: bytes) -> None:
    with suppress(SealError):
        read(framed(record))


def test_cookies_of_all_sizes_read_in_turn_are_independent() -> None:
    """One decryptor and one decompressor read all cookies."""
    reader = OAuth2ProxyFormat((Secret(SECRET),), NAME.decode())
    broken = signed(encrypted(lz4.frame.compress(b"\0" * 40)[:-3]))
    for size in range(40):  # of more than two blocks of AES
        session = msgspec.structs.replace(SESSION_A, user="u" * size)
        value = reader.write_session(session, iv=bytes([size] * 16))
        for unreadable in (broken, signed(b"\xff" * (size % 16)), signed(b"")):
            with pytest.raises(SealError):
                reader.read_cookie(unreadable, now=1_700_000_000.0, lifetime=0)
        found, _ = reader.read_cookie(value, now=1_700_000_000.0, lifetime=0)
        assert found == session


@given(st.integers(0, len(RECORD_A) - 1), st.integers(0, 255))
def test_signed_changed_record_read_or_rejected(position: int, octet: int) -> None:
    record = RECORD_A[:position] + bytes([octet]) + RECORD_A[position + 1 :]
    with suppress(SealError):
        read(framed(record))


def test_ck13_unsigned_value_rejected_before_decompression() -> None:
    bomb = lz4.frame.compress(b"\0" * (MAX_RECORD_BYTES * 64))
    value = signed(encrypted(bomb), secret=b"x" * 32)
    assert_rejected(value, match="unknown secret")


def test_ck13_decompressed_size_limited() -> None:
    for size in (MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES * 64):
        assert_rejected(framed(b"\0" * size), match="size limit")
    full = msgspec.msgpack.encode({"at": "x" * (MAX_RECORD_BYTES - 9)})
    assert len(full) == MAX_RECORD_BYTES
    assert len(read(framed(full)).access_token) == MAX_RECORD_BYTES - 9


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xc0",
        b"\x90",
        b"\x80\x80",  # trailing bytes
        b"\xdf\xff\xff\xff\xff",  # a huge map
        b"\x81\xa1g\xdd\xff\xff\xff\xff",  # a huge array
        b"\x81\xa2at\xdb\xff\xff\xff\xff",  # a huge string
        b"\x81\xa2zz"
        + b"\x91" * 100_000
        + b"\xc0",  # deeply nested, in an unknown field
        b"\x81\xa2ac\x81\xa1a" + b"\x91" * 100_000 + b"\xc0",
        b"\x81\xa2ac\x81\xa1a" + b"\x91" * 17 + b"\xc0",
        b"\x81\xa2ac\x81\xa1a\x81\x01\xc0",  # a number as a claim name
        b"\x81\xa2ac\x81\xa1a\xc4\x01a",  # bytes in a claim
        b"\x81\xa2ac\x81\xa1a\xd6\xff\0\0\0\0",  # a timestamp in a claim
        b"\x81\xa2ac\x81\xa1a\xd6\x05\0\0\0\0",  # another extension in a claim
        b"\x81\xa2ac\x81\x01\xc0",
        b"\x81\xa2ac\x90",
        b"\x81\x01\xc0",
        b"\x81\xa2at\x05",
        b"\x81\xa2at\xd6\xff\0\0\0\0",
        b"\x81\xa2at\xa1\xff",  # invalid UTF-8
        b"\x81\xa2at\xc4\x01\xff",
        b"\x81\xa1g\xa1a",
        b"\x81\xa1g\x91\x05",
        b"\x81\xa1n\xa1a",
        b"\x81\xc1",
    ],
    ids=lambda record: record[:12].hex(),
)
def test_ck13_crafted_record_rejected(record: bytes) -> None:
    assert_rejected(framed(record))


def test_ck13_duplicate_key_last_value_wins() -> None:
    assert read(framed(b"\x82\xa1u\xa1a\xa1u\xa1b")).user == "b"


@pytest.mark.parametrize(
    "frame",
    [
        FRAME_A + b"\0",
        FRAME_A + FRAME_A,
        FRAME_A[:-1],
        FRAME_A[:-4] + b"\0\0\0\0",  # wrong checksum
        RECORD_A,  # not compressed
        b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + FRAME_A,  # a skippable frame first
        b"",
    ],
    ids=[
        "trailing",
        "two",
        "truncated",
        "checksum",
        "uncompressed",
        "skippable",
        "empty",
    ],
)
def test_malformed_frame_rejected(frame: bytes) -> None:
    assert_rejected(signed(encrypted(frame)), match="LZ4")


def test_truncated_initialization_vector_rejected() -> None:
    assert_rejected(signed(IV[:15]), match="vector")
    assert_rejected(signed(b""), match="vector")


@pytest.mark.parametrize(
    "options",
    [
        {"block_linked": True},
        {"block_linked": False, "block_checksum": True},
        {"store_size": False},
        {"content_checksum": True, "compression_level": 9},
        {"block_size": lz4.frame.BLOCKSIZE_MAX4MB},
    ],
)
def test_valid_frame_with_any_options_read(options: dict[str, Any]) -> None:
    record = msgspec.msgpack.encode({"u": "adm", "at": "x" * 100_000})
    found = read(signed(encrypted(lz4.frame.compress(record, **options))))
    assert (found.user, len(found.access_token)) == ("adm", 100_000)


def test_record_with_bin_nil_and_unknown_fields_read() -> None:
    found = packed({"zz": 1, "u": b"adm", "e": None, "g": [b"a", "b", None], "n": None})
    nils = packed(dict.fromkeys(("ca", "eo", "at", "it", "rt", "g", "pu", "ac")))
    assert read(found) == Session(
        created_at=1_700_000_000.0,  # the time of the signature
        login_at=1_700_000_000.0,
        user="adm",
        groups=("a", "b", ""),
    )
    assert read(nils) == Session(created_at=1_700_000_000.0, login_at=1_700_000_000.0)


# timestamps


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ("6553f100", 1_700_000_000.0),
        ("ffffffff", 4_294_967_295.0),
        ("1d6f34546553f100", 1_700_000_000.123456789),
        ("ee6b27ff ffffffff", 17_179_869_183.999999999),
        ("075bcd15 000000006553f100", 1_700_000_000.123456789),
        ("00000000 0000000400000000", 17_179_869_184.0),
    ],
)
def test_timestamp_forms_read(data: str, seconds: float) -> None:
    assert read(packed({"eo": Ext(-1, bytes.fromhex(data))})).expires_at == seconds


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (-1, ""),
        (-1, "00"),
        (-1, "000000"),
        (-1, "00" * 16),
        (5, "6553f100"),
        (-1, "ee6b2800 00000000"),  # a billion nanoseconds
        (-1, "3b9aca00 000000006553f100"),
        (-1, "00000000 ffffffffffffffff"),  # before 1970
        (-1, "00000000 7fffffffffffffff"),  # rounds to one that cannot be written
        (-1, "00000000 fffffff1886e0900"),  # Go's zero time
    ],
)
def test_invalid_timestamp_rejected(code: int, data: str) -> None:
    assert_rejected(packed({"ca": Ext(code, bytes.fromhex(data))}), match="timestamp")


@pytest.mark.parametrize("time", [0, "2023-11-14", True, 1.5, b"1234"])
def test_timestamp_of_another_type_rejected(time: object) -> None:
    assert_rejected(packed({"eo": time}))


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (1_700_000_000.0, "d6ff6553f100"),
        (4_294_967_295.0, "d6ffffffffff"),
        (4_294_967_296.0, "d7ff0000000100000000"),
        (1_700_000_000.5, "d7ff773594006553f100"),
        (0.9999999999, "d6ff00000001"),
        (17_179_869_184.0, "c70cff000000000000000400000000"),
    ],
)
def test_timestamp_written_in_shortest_form(timestamp: float, expected: str) -> None:
    record = record_of(Session(expires_at=timestamp))
    assert record == b"\x81\xa2eo" + bytes.fromhex(expected)


@given(st.floats(1e9, 9e9))
def test_float_time_round_trips_exactly(timestamp: float) -> None:
    value = FORMAT.write_session(Session(created_at=timestamp), iv=IV)
    assert read(value).created_at == timestamp
    assert value.split(b"|")[1] == b"%010d" % int(timestamp)


def test_zero_timestamp_not_written() -> None:
    assert record_of(Session()) == b"\x80"


# round trips

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
SESSIONS = st.builds(
    Session,
    created_at=st.floats(1e9, 4e9),
    expires_at=st.just(0.0) | st.floats(1e9, 4e9),
    access_token=st.text(max_size=3000),
    id_token=TEXT,
    refresh_token=TEXT,
    nonce=st.binary(max_size=40),
    user=TEXT,
    email=TEXT,
    groups=st.lists(TEXT, max_size=20).map(tuple),
    preferred_username=TEXT,
    claims=st.dictionaries(
        TEXT, JSON.filter(lambda value: value is not None), max_size=3
    ),
)


@given(SESSIONS, st.binary(min_size=16, max_size=16))
def test_session_round_trips(session: Session, iv: bytes) -> None:
    expected = msgspec.structs.replace(session, login_at=session.created_at)
    value = FORMAT.write_session(session, iv=iv)
    assert read(value, now=session.created_at, lifetime=60) == expected
    stored = write_stored_session(TICKET, session, nonce=iv[:12])
    assert read_stored_session(TICKET, stored, created_at=1.0) == expected


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40), TEXT)
def test_login_state_round_trips(state: bytes, nonce: bytes, verifier: str) -> None:
    record = CsrfRecord(state, nonce, verifier)
    value = FORMAT.write_csrf(CSRF, record, now=NOW, iv=IV)
    assert FORMAT.read_csrf(CSRF, value, now=NOW, lifetime=60) == record


def test_claims_written_as_oauth2_proxy_writes_them() -> None:
    claims = {
        "int": 42,
        "float": 1.5,
        "null": None,
        "true": True,
        "list": [1, None, ("a", False)],
        "map": {"n": 7, "deep": {"m": -1}},
    }
    value = FORMAT.write_session(Session(created_at=1.7e9, claims=claims), iv=IV)
    assert read(value).claims == {
        "int": "42",
        "float": "1.5",
        "true": True,
        "list": ["1", None, ["a", False]],
        "map": {"n": "7", "deep": {"m": "-1"}},
    }


def test_numbers_in_read_claims_become_strings() -> None:
    assert read(packed({"ac": {"a": 1, "b": None, "c": [2.5]}})).claims == {
        "a": "1",
        "c": ["2.5"],
    }


# tickets and stored sessions


@pytest.mark.parametrize("size", [16, 24, 32])
def test_ticket_secret_of_any_aes_key_size_accepted(size: int) -> None:
    ticket = Ticket("id-1", b"k" * size)
    value = FORMAT.write_ticket(ticket, created_at=NOW)
    assert read(value, lifetime=60) == ticket
    stored = write_stored_session(ticket, SESSION_B, nonce=bytes(12))
    assert read_stored_session(ticket, stored, created_at=0.0) == SESSION_B


def test_ticket_without_version_read() -> None:
    value = signed(b"_oauth2_proxy-0a1b." + b64url(b"k" * 16))
    assert read(value) == Ticket("_oauth2_proxy-0a1b", b"k" * 16)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"v2",
        b"v2..",
        b"v3.aWQ.a2tra2tra2tra2tra2traw",
        b"v2.aWQ.a2tra2tra2tra2tra2traw==",
        b"v2.aWQ=.a2tra2tra2tra2tra2traw",
        b"v2.aWQ.a2tr",
        b"v2..a2tra2tra2tra2tra2traw",
        b"v2.w6Q.a2tra2tra2tra2tra2traw",  # an ID that is not ASCII
        b".a2tra2tra2tra2tra2traw",
        b"v2.aWQ.a2tra2tra2tra2tra2traw.x",
    ],
)
def test_malformed_ticket_rejected(text: bytes) -> None:
    # Without a period it is read as an encrypted session.
    assert_rejected(signed(text), match="ticket" if b"." in text else "vector")


def test_changed_stored_session_rejected() -> None:
    for position, octet in enumerate(STORED_A):
        changed = bytearray(STORED_A)
        changed[position] = octet ^ 1
        with pytest.raises(SealError):
            read_stored_session(TICKET, bytes(changed), created_at=0.0)
    for length in range(len(STORED_A)):
        with pytest.raises(SealError):
            read_stored_session(TICKET, STORED_A[:length], created_at=0.0)


def test_huge_stored_session_rejected() -> None:
    with pytest.raises(SealError, match="too large"):
        read_stored_session(TICKET, bytes(MAX_RECORD_BYTES + 1), created_at=0.0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"s": b"s", "n": None},
        {"s": b"", "n": b"n"},
        {"s": b"s", "n": b""},
        {"s": "s", "n": b"n"},
        {"s": b"s", "n": b"n", "cv": 1},
    ],
)
def test_malformed_login_state_rejected(fields: dict[str, Any]) -> None:
    value = signed(encrypted(msgspec.msgpack.encode(fields)), name=CSRF)
    with pytest.raises(SealError):
        FORMAT.read_csrf(CSRF, value, now=NOW, lifetime=0)


def test_repr_contains_no_secrets() -> None:
    assert repr(CSRF_RECORD) == "CsrfRecord(...)"
    assert repr(TICKET) == f"Ticket(id={TICKET.id!r})"


# invalid arguments


@pytest.mark.parametrize("secrets", [[], [Secret(b"")], [Secret(SECRET), Secret(b"")]])
def test_format_without_secret_raises(secrets: list[Secret]) -> None:
    with pytest.raises(ValueError, match="secret"):
        OAuth2ProxyFormat(secrets, "n")


def test_format_with_secret_of_invalid_size_raises() -> None:
    with pytest.raises(ValueError, match="key size"):
        OAuth2ProxyFormat([Secret(b"short")], "n")


@pytest.mark.parametrize("iv", [b"", b"x" * 12, b"x" * 17])
def test_write_session_iv_of_wrong_size_raises(iv: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        FORMAT.write_session(SESSION_A, iv=iv)


def test_write_stored_session_nonce_of_wrong_size_raises() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        write_stored_session(TICKET, SESSION_B, nonce=b"")


@pytest.mark.parametrize("timestamp", [-1.0, 1e10, 1e20])
def test_write_session_time_out_of_range_raises(timestamp: float) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        FORMAT.write_session(Session(created_at=timestamp), iv=IV)


@pytest.mark.parametrize("claim", [b"x", object(), {1: "x"}])
def test_write_session_claim_without_json_type_raises(claim: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        FORMAT.write_session(Session(created_at=NOW, claims={"a": claim}), iv=IV)


def test_code_challenge_state_and_nonce_hash_of_vector() -> None:
    code_challenge = hash_nonce(CSRF_RECORD.code_verifier.encode())
    assert code_challenge == b"iMnq5o6zALKXGivsnlom_0F5_WYda32GHkxlV7mq7hQ"
    assert hash_nonce(CSRF_RECORD.state) == (
        b"o2xKCezvP1D8I-6pblUvTZntep_TK7IEvyfM6E8c_Xc"
    )
    assert hash_nonce(CSRF_RECORD.nonce) == (
        b"z27jr-NCH05R7QdxvrLMhPpn7Ops_k7Tsa67VkTt0s4"
    )
