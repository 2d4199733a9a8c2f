"""Sealing: authenticated encryption of cookie values and stored values.

A sealed value is base64url without padding, in its one canonical form, of

    version (1 byte) | key ID (4) | issued at (8) | nonce (12) | ciphertext and tag

encrypted with AES-256-GCM. The bytes before the nonce and the purpose are authenticated
with it, so a value that is sealed for one purpose is invalid for another. The key ID
selects the secret of the key ring: the first one seals, each one unseals.

Stored values are sealed with an additional secret that only the client has, so neither
the store's contents nor the key ring is sufficient to unseal them.
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
KEY_ID_SIZE = 4  # bytes
HEAD_SIZE = 13  # bytes; version, key ID, issued at
NONCE_SIZE = 12  # bytes
TAG_SIZE = 16  # bytes
MAX_SEALED_BYTES = 1 << 20  # longer values are rejected undecoded
FUTURE_LEEWAY = 300.0  # seconds that another machine's clock may be ahead
MAX_FUTURE_LEEWAY = 3900.0  # seconds; for values with a long lifetime


class Unsealed(Struct, frozen=True):
    """A payload, and the time at which it was sealed (seconds since the epoch)."""

    payload: bytes
    issued_at: float


class Sealer:
    """Seals and unseals with a key ring."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("expected at least one secret, none of them empty")
        self._ring: dict[bytes, tuple[AESGCM, bytes]] = {}
        for secret in secrets:
            key = _derive(secret, b"authproxy v1 seal", 32)
            shared = _derive(secret, b"authproxy v1 seal with a secret", 32)
            self._ring.setdefault(_key_id(secret), (AESGCM(key), shared))
        self._head = VERSION + _key_id(secrets[0])
        self._cipher, self._shared = self._ring[_key_id(secrets[0])]

    def seal(
        self,
        purpose: bytes,
        payload: bytes,
        *,
        issued_at: float,
        nonce: bytes,
        secret: bytes = b"",
    ) -> bytes:
        """Seal *payload*; *nonce* is 12 random bytes that are never used twice.

        With a *secret* (random bytes), `unseal` requires it as well.
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
        """Return what `seal` sealed for the same purpose; raises `SealError`.

        *lifetime* is the maximum age in seconds, 0 for any age.
        """
        data = b64url_decode(text) if len(text) <= MAX_SEALED_BYTES else None
        if data is None or len(data) < HEAD_SIZE + NONCE_SIZE + TAG_SIZE:
            raise SealError("not a sealed value")
        head = data[:HEAD_SIZE]
        found = self._ring.get(head[1:5])
        if head[:1] != VERSION or found is None:
            raise SealError("sealed in another version or with an unknown secret")
        cipher, shared = found
        if secret:
            cipher = _with_secret(shared, secret)
        try:
            payload = cipher.decrypt(data[13:25], data[25:], head + purpose)
        except InvalidTag:
            raise SealError("modified, or sealed for another purpose") from None
        issued_at = int.from_bytes(head[5:], "big") / 1e6
        check_age(issued_at, now=now, lifetime=lifetime)
        return Unsealed(payload, issued_at)


def check_age(issued_at: float, *, now: float, lifetime: float) -> None:
    """Raise `SealError` for a value from the future or older than *lifetime* (0: any)."""
    if lifetime and not now - issued_at < lifetime:
        raise SealError("expired: older than its lifetime")
    if not issued_at < now + _future_leeway(lifetime):
        raise SealError("issued in the future; check the clocks of all machines")


def _future_leeway(lifetime: float) -> float:
    """Return the seconds by which a value may be from the future.

    When a clock that was an hour ahead is set back, sessions of that hour must not end.
    Their lifetime becomes longer by the leeway, hence at most by a tenth.
    """
    if not lifetime:
        return MAX_FUTURE_LEEWAY
    return min(max(lifetime / 10, FUTURE_LEEWAY), MAX_FUTURE_LEEWAY)


def _microseconds(timestamp: float) -> int:
    micros = round(timestamp * 1e6)
    if not 0 <= micros < 1 << 64:
        raise ValueError(f"expected a time after 1970, got {timestamp!r}")
    return micros


def _derive(secret: Secret, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt=None, info=info).derive(secret.value)


def _with_secret(shared: bytes, secret: bytes) -> AESGCM:
    # Keyed BLAKE2b is a MAC by itself (RFC 7693 §2.9), at a third of HMAC's time.
    return AESGCM(blake2b(secret, key=shared, digest_size=32).digest())


def _key_id(secret: Secret) -> bytes:
    return _derive(secret, b"authproxy v1 key id", KEY_ID_SIZE)
