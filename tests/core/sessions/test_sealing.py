"""Sealed values: one form, one purpose, a known key, not too old."""

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


def refused(text: bytes) -> None:
    with pytest.raises(SealError):
        unseal(text)


def test_the_layout_is_as_written_down() -> None:
    def derived(info: bytes, size: int) -> bytes:
        return HKDF(SHA256(), size, salt=None, info=info).derive(NEW.value)

    micros = (1_700_000_000_250_000).to_bytes(8, "big")
    head = b"\x01" + derived(b"authproxy v1 key id", 4) + micros
    cipher = AESGCM(derived(b"authproxy v1 seal", 32))
    text = b64url(head + NONCE + cipher.encrypt(NONCE, b"payload", head + b"session"))
    assert text == SEALED
    assert unseal(text) == Unsealed(b"payload", NOW, 0)


@given(
    st.binary(max_size=5000),
    st.binary(max_size=20),
    st.integers(0, 1 << 33).map(lambda half_seconds: half_seconds / 2),
    st.binary(min_size=12, max_size=12),
)
def test_unseal_inverts_seal(
    payload: bytes, purpose: bytes, issued_at: float, nonce: bytes
) -> None:
    text = SEALER.seal(purpose, payload, issued_at=issued_at, nonce=nonce)
    assert set(text) <= set(ALPHABET)
    found = SEALER.unseal(purpose, text, now=issued_at, lifetime=1)
    assert found == Unsealed(payload, issued_at, 0)


@given(st.floats(1e9, 4e9))
def test_a_moment_is_kept_to_the_microsecond(moment: float) -> None:
    text = SEALER.seal(b"p", b"x", issued_at=moment, nonce=NONCE)
    found = SEALER.unseal(b"p", text, now=moment, lifetime=0)
    assert abs(found.issued_at - moment) <= 1e-6


@given(st.binary(max_size=120) | st.binary(max_size=90).map(b64url))
def test_anything_else_is_refused_with_the_documented_error(text: bytes) -> None:
    refused(text)


def test_ck01_every_changed_byte_is_refused() -> None:
    for position, octet in enumerate(SEALED):
        for other in {*ALPHABET, 0, ord("="), ord("+"), ord("/"), 0xFF} - {octet}:
            refused(SEALED[:position] + bytes([other]) + SEALED[position + 1 :])


def test_ck01_every_changed_bit_is_refused() -> None:
    data = b64url_decode(SEALED)
    assert data is not None
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        refused(b64url(bytes(changed)))


def test_ck02_cut_at_every_length_is_refused() -> None:
    for length in range(len(SEALED)):
        refused(SEALED[:length])
        refused(SEALED[length + 1 :])


@pytest.mark.parametrize("size", range(3))
def test_ck02_other_forms_of_the_same_bytes_are_refused(size: int) -> None:
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
        refused(other)
    if len(text) % 4:  # the last character has bits to spare
        last = ALPHABET.index(text[-1])
        refused(text[:-1] + ALPHABET[last + 1 : last + 2])


def test_ck04_another_purpose_is_refused() -> None:
    for purpose in (b"login", b"sessio", b"sessions", b""):
        with pytest.raises(SealError):
            SEALER.unseal(purpose, SEALED, now=NOW, lifetime=0)


def test_ck07_an_old_secret_unseals_until_it_is_removed() -> None:
    text = Sealer([OLD]).seal(b"session", b"x", issued_at=NOW, nonce=NONCE)
    both = Sealer([NEW, OLD])
    assert both.unseal(b"session", text, now=NOW, lifetime=0).key_index == 1
    renewed = both.seal(b"session", b"x", issued_at=NOW, nonce=NONCE)
    assert Sealer([NEW]).unseal(b"session", renewed, now=NOW, lifetime=0).key_index == 0
    refused(text)


def test_the_same_secret_twice_counts_once() -> None:
    found = Sealer([NEW, NEW]).unseal(b"session", SEALED, now=NOW, lifetime=0)
    assert found.key_index == 0


def test_ck08_a_moment_in_the_future_is_refused() -> None:
    unseal(SEALED, now=NOW - 299)
    for lifetime in (0, 3600):
        with pytest.raises(SealError, match="future"):
            unseal(SEALED, now=NOW - 300, lifetime=lifetime)


def test_what_is_too_old_is_refused() -> None:
    unseal(SEALED, lifetime=60, now=NOW + 59)
    unseal(SEALED, lifetime=0, now=NOW + 1e9)
    with pytest.raises(SealError, match="older"):
        unseal(SEALED, lifetime=60, now=NOW + 60)


@pytest.mark.parametrize("text", [b"", b"|", b"||", b"deleted", b"   ", b"|" * 100])
def test_ck10_nonsense_is_refused(text: bytes) -> None:
    refused(text)


def test_ck11_a_huge_value_is_refused_unread() -> None:
    refused(b"A" * (MAX_SEALED_BYTES + 4))
    text = SEALER.seal(b"session", b"x" * MAX_SEALED_BYTES, issued_at=NOW, nonce=NONCE)
    refused(text)


def test_ck31_another_version_is_refused_although_its_tag_is_good() -> None:
    data = b64url_decode(SEALED)
    assert data is not None
    head = b"\x02" + data[1:13]
    key = HKDF(SHA256(), 32, salt=None, info=b"authproxy v1 seal").derive(NEW.value)
    body = AESGCM(key).encrypt(NONCE, b"payload", head + b"session")
    with pytest.raises(SealError, match="version"):
        unseal(b64url(head + NONCE + body))


def test_errors_show_nothing_of_the_value() -> None:
    with pytest.raises(SealError) as caught:
        unseal(SEALED[:-1] + b"A")
    assert SEALED.decode()[:8] not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("secrets", [[], [Secret(b"")], [NEW, Secret(b"")]])
def test_a_ring_needs_secrets(secrets: list[Secret]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Sealer(secrets)


@pytest.mark.parametrize("nonce", [b"", b"x" * 11, b"x" * 16])
def test_a_nonce_has_twelve_bytes(nonce: bytes) -> None:
    with pytest.raises(ValueError, match="nonce"):
        SEALER.seal(b"p", b"x", issued_at=NOW, nonce=nonce)


@pytest.mark.parametrize("moment", [-1.0, 2e13])
def test_a_moment_that_does_not_fit_is_a_bug(moment: float) -> None:
    with pytest.raises(ValueError, match="moment"):
        SEALER.seal(b"p", b"x", issued_at=moment, nonce=NONCE)


def test_the_layout_with_a_secret_is_as_written_down() -> None:
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
