"""Sealed values: layout, canonical encoding, purpose, key ring, age."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core.encoding import b64url, b64url_decode
from authproxy_core.errors import SealError
from authproxy_core.sessions.sealing import MAX_SEALED_BYTES, Sealer, Unsealed
from authproxy_core.settings.root import Secret

OLD, NEW = Secret(b"o" * 32), Secret(b"n" * 32)
NOW = 1_700_000_000.25
NONCE = bytes(range(12))
SEALER = Sealer([NEW])
SEALED = SEALER.seal(b"session", b"payload", issued_at=NOW, nonce=NONCE)
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def unseal(text: bytes, *, lifetime: float = 0, now: float = NOW) -> Unsealed:
    return SEALER.unseal(b"session", text, now=now, lifetime=lifetime)


def assert_rejected(text: bytes) -> None:
    with pytest.raises(SealError):
        unseal(text)


def test_seal_layout() -> None:
    def derived(info: bytes, size: int) -> bytes:
        return HKDF(SHA256(), size, salt=None, info=info).derive(NEW.value)

    micros = (1_700_000_000_250_000).to_bytes(8, "big")
    head = b"\x01" + derived(b"authproxy v1 key id", 4) + micros
    cipher = AESGCM(derived(b"authproxy v1 seal", 32))
    text = b64url(head + NONCE + cipher.encrypt(NONCE, b"payload", head + b"session"))
    assert text == SEALED
    assert unseal(text) == Unsealed(b"payload", NOW)


@given(
    st.binary(max_size=5000),
    st.binary(max_size=20),
    st.integers(0, 1 << 33).map(lambda half_seconds: half_seconds / 2),
    st.binary(min_size=12, max_size=12),
)
def test_seal_round_trips(
    payload: bytes, purpose: bytes, issued_at: float, nonce: bytes
) -> None:
    text = SEALER.seal(purpose, payload, issued_at=issued_at, nonce=nonce)
    assert set(text) <= set(ALPHABET)
    found = SEALER.unseal(purpose, text, now=issued_at, lifetime=1)
    assert found == Unsealed(payload, issued_at)


@given(st.floats(1e9, 4e9))
def test_seal_issued_at_exact_to_the_microsecond(timestamp: float) -> None:
    text = SEALER.seal(b"p", b"x", issued_at=timestamp, nonce=NONCE)
    found = SEALER.unseal(b"p", text, now=timestamp, lifetime=0)
    assert abs(found.issued_at - timestamp) <= 1e-6


@given(st.binary(max_size=120) | st.binary(max_size=90).map(b64url))
def test_unseal_any_bytes_rejected_with_seal_error(text: bytes) -> None:
    assert_rejected(text)


def test_ck01_changed_byte_rejected() -> None:
    for position, octet in enumerate(SEALED):
        for other in {*ALPHABET, 0, ord("="), ord("+"), ord("/"), 0xFF} - {octet}:
            assert_rejected(SEALED[:position] + bytes([other]) + SEALED[position + 1 :])


def test_ck01_changed_bit_rejected() -> None:
    data = b64url_decode(SEALED)
    assert data is not None
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert_rejected(b64url(bytes(changed)))


def test_ck02_truncated_value_rejected() -> None:
    for length in range(len(SEALED)):
        assert_rejected(SEALED[:length])
        assert_rejected(SEALED[length + 1 :])


@pytest.mark.parametrize("size", range(3))
def test_ck02_non_canonical_encoding_rejected(size: int) -> None:
    text = SEALER.seal(b"session", b"\xff" * size, issued_at=NOW, nonce=b"\xff" * 12)
    assert unseal(text).payload == b"\xff" * size
    assert b"_" in text
    for other in (
        text + b"=",
        text + b"==",
        text + b"=" * (-len(text) % 4 or 4),
        text + b"\n",
        b" " + text,
        text + b"A",
        text + b"AAAA",
        text.replace(b"_", b"/"),
        text[:20] + b"\r\n" + text[20:],
    ):
        assert_rejected(other)
    if len(text) % 4:  # the last character has unused bits
        last = ALPHABET.index(text[-1])
        assert_rejected(text[:-1] + ALPHABET[last + 1 : last + 2])


def test_ck04_other_purpose_rejected() -> None:
    for purpose in (b"login", b"sessio", b"sessions", b""):
        with pytest.raises(SealError):
            SEALER.unseal(purpose, SEALED, now=NOW, lifetime=0)


def test_ck07_old_secret_unseals_until_removed() -> None:
    text = Sealer([OLD]).seal(b"session", b"x", issued_at=NOW, nonce=NONCE)
    both = Sealer([NEW, OLD])
    assert both.unseal(b"session", text, now=NOW, lifetime=0).payload == b"x"
    resealed = both.seal(b"session", b"x", issued_at=NOW, nonce=NONCE)
    new = Sealer([NEW])
    assert new.unseal(b"session", resealed, now=NOW, lifetime=0).payload == b"x"
    assert_rejected(text)


def test_sealer_duplicate_secret_accepted() -> None:
    found = Sealer([NEW, NEW]).unseal(b"session", SEALED, now=NOW, lifetime=0)
    assert found.payload == b"payload"


@pytest.mark.parametrize(
    ("lifetime", "leeway"), [(60, 300), (3600, 360), (7 * 86400, 3900), (0, 3900)]
)
def test_ck08_time_in_the_future_rejected(lifetime: float, leeway: float) -> None:
    """A clock that was an hour ahead and is set back ends no long session."""
    unseal(SEALED, now=NOW - leeway + 1, lifetime=lifetime)
    with pytest.raises(SealError, match="future"):
        unseal(SEALED, now=NOW - leeway, lifetime=lifetime)


def test_unseal_older_than_lifetime_rejected() -> None:
    unseal(SEALED, lifetime=60, now=NOW + 59)
    unseal(SEALED, lifetime=0, now=NOW + 1e9)
    with pytest.raises(SealError, match="older"):
        unseal(SEALED, lifetime=60, now=NOW + 60)


@pytest.mark.parametrize("text", [b"", b"|", b"||", b"deleted", b"   ", b"|" * 100])
def test_ck10_malformed_value_rejected(text: bytes) -> None:
    assert_rejected(text)


def test_ck11_huge_value_rejected_undecoded() -> None:
    assert_rejected(b"A" * (MAX_SEALED_BYTES + 4))
    text = SEALER.seal(b"session", b"x" * MAX_SEALED_BYTES, issued_at=NOW, nonce=NONCE)
    assert_rejected(text)


def test_ck31_other_version_with_valid_tag_rejected() -> None:
    data = b64url_decode(SEALED)
    assert data is not None
    head = b"\x02" + data[1:13]
    key = HKDF(SHA256(), 32, salt=None, info=b"authproxy v1 seal").derive(NEW.value)
    body = AESGCM(key).encrypt(NONCE, b"payload", head + b"session")
    with pytest.raises(SealError, match="version"):
        unseal(b64url(head + NONCE + body))


def test_error_text_contains_no_value() -> None:
    with pytest.raises(SealError) as caught:
        unseal(SEALED[:-1] + b"A")
    assert SEALED.decode()[:8] not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("secrets", [[], [Secret(b"")], [NEW, Secret(b"")]])
def test_sealer_without_secret_raises(secrets: list[Secret]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Sealer(secrets)


@pytest.mark.parametrize("nonce", [b"", b"x" * 11, b"x" * 16])
def test_seal_nonce_of_wrong_size_raises(nonce: bytes) -> None:
    with pytest.raises(ValueError, match="nonce"):
        SEALER.seal(b"p", b"x", issued_at=NOW, nonce=nonce)


@pytest.mark.parametrize("timestamp", [-1.0, 2e13])
def test_seal_time_out_of_range_raises(timestamp: float) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        SEALER.seal(b"p", b"x", issued_at=timestamp, nonce=NONCE)


def test_seal_with_secret_layout() -> None:
    def derived(info: bytes, size: int) -> bytes:
        return HKDF(SHA256(), size, salt=None, info=info).derive(NEW.value)

    secret = b"s" * 32
    shared = derived(b"authproxy v1 seal with a secret", 32)
    cipher = AESGCM(blake2b(secret, key=shared, digest_size=32).digest())
    head = b"\x01" + derived(b"authproxy v1 key id", 4)
    head += (1_700_000_000_250_000).to_bytes(8, "big")
    text = b64url(head + NONCE + cipher.encrypt(NONCE, b"payload", head + b"stored"))
    found = SEALER.unseal(b"stored", text, now=NOW, lifetime=0, secret=secret)
    assert found.payload == b"payload"
