"""Sealing: values that only we can make, that only we can read, and that age.

A sealed value is base64url text without padding, in one canonical form, of

    version (1 byte) | key id (4) | issued at (8) | nonce (12) | ciphertext and tag

encrypted with AES-256-GCM. What stands before the nonce and the purpose are
authenticated with it, so a value sealed for one purpose is worthless for another. The
key id says which secret of the ring to use: the first one seals, each one unseals.

What lies in a store is sealed with a further secret that only the client has: neither
who reads the store nor who holds the ring can open it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from ..encoding import b64url, b64url_decode
from ..errors import SealError
from ..settings.root import Secret

VERSION = b"\x01"
KEY_ID_SIZE = 4
HEAD_SIZE = 13  # version, key id, issued at
NONCE_SIZE = 12
TAG_SIZE = 16
MAX_SEALED_BYTES = 1 << 20  # bytes; what is longer is refused unread
FUTURE_LEEWAY = 300.0  # seconds that the clock of another machine may be ahead


class Unsealed(Struct, frozen=True):
    """What was sealed, when (seconds), and by which key of the ring (0: the first)."""

    payload: bytes
    issued_at: float
    key_index: int


class Sealer:
    """Seals and unseals with the keys of a ring of secrets."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("expected at least one secret, and none of them empty")
        self._ring: dict[bytes, tuple[int, AESGCM, bytes]] = {}
        for index, secret in enumerate(secrets):
            key = _derive(secret, b"authproxy v1 seal", 32)
            shared = _derive(secret, b"authproxy v1 seal with a secret", 32)
            self._ring.setdefault(_key_id(secret), (index, AESGCM(key), shared))
        self._head = VERSION + _key_id(secrets[0])
        _, self._cipher, self._shared = self._ring[_key_id(secrets[0])]

    def seal(
        self,
        purpose: bytes,
        payload: bytes,
        *,
        issued_at: float,
        nonce: bytes,
        secret: bytes = b"",
    ) -> bytes:
        """Seal *payload*; *nonce* is 12 fresh random bytes, never used twice.

        With a *secret* (random bytes), that is needed to unseal as well.
        """
        if len(nonce) != NONCE_SIZE:
            raise ValueError(f"expected a nonce of {NONCE_SIZE} bytes")
        cipher = _with_secret(self._shared, secret) if secret else self._cipher
        head = self._head + _microseconds(issued_at).to_bytes(8, "big")
        return b64url(head + nonce + cipher.encrypt(nonce, payload, head + purpose))

    def unseal(
        self,
        purpose: bytes,
        text: bytes,
        *,
        now: float,
        lifetime: float,
        secret: bytes = b"",
    ) -> Unsealed:
        """Open what `seal` made for the same purpose, or raise `SealError`.

        *lifetime* (seconds) is how old it may be, 0 for any age.
        """
        data = b64url_decode(text) if len(text) <= MAX_SEALED_BYTES else None
        if data is None or len(data) < HEAD_SIZE + NONCE_SIZE + TAG_SIZE:
            raise SealError("expected a sealed value, got something else")
        head = data[:HEAD_SIZE]
        found = self._ring.get(head[1:5])
        if head[:1] != VERSION or found is None:
            raise SealError("sealed in another version or with an unknown secret")
        index, cipher, shared = found
        if secret:
            cipher = _with_secret(shared, secret)
        try:
            payload = cipher.decrypt(data[13:25], data[25:], head + purpose)
        except InvalidTag:
            raise SealError("changed, or sealed for another purpose") from None
        issued_at = int.from_bytes(head[5:], "big") / 1e6
        check_age(issued_at, now=now, lifetime=lifetime)
        return Unsealed(payload, issued_at, index)


def check_age(issued_at: float, *, now: float, lifetime: float) -> None:
    """Raise `SealError` for what is too old (*lifetime* 0: never) or of the future."""
    if lifetime and not now - issued_at < lifetime:
        raise SealError("older than its lifetime")
    if not issued_at < now + FUTURE_LEEWAY:
        raise SealError("issued in the future; are the clocks set?")


def _microseconds(moment: float) -> int:
    micros = round(moment * 1e6)
    if not 0 <= micros < 1 << 64:
        raise ValueError(f"expected a moment after 1970, got {moment!r}")
    return micros


def _derive(secret: Secret, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt=None, info=info).derive(secret.value)


def _with_secret(shared: bytes, secret: bytes) -> AESGCM:
    # A keyed BLAKE2b is a MAC as it is (RFC 7693 §2.9), at a third of HMAC's time.
    return AESGCM(blake2b(secret, key=shared, digest_size=32).digest())


def _key_id(secret: Secret) -> bytes:
    return _derive(secret, b"authproxy v1 key id", KEY_ID_SIZE)
