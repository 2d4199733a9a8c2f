"""Keys and signatures of JWTs, by joserfc.

This module is imported when the first key is parsed, because joserfc and what it needs
of cryptography take a fifth of the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from .algorithms import ALGORITHMS, MAX_TOKEN_BYTES, MIN_RSA_BITS

PEM_TYPES = (
    (RSAPublicKey, "RSA"),
    (EllipticCurvePublicKey, "EC"),
    (Ed25519PublicKey, "OKP"),
)


def import_jwk(data: Mapping[str, Any]) -> tuple[str, Key | None]:
    """Return the value of `ALGORITHMS` for a JWK, and its key.

    The key is None if it is invalid, weak or not supported.
    """
    try:
        key = JWKRegistry.import_key(dict(data))
        kind = _kind_of(key)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return "", None
    return (kind, key) if kind is not None else ("", None)


def convert_pem_to_jwk(text: str) -> Mapping[str, Any] | None:
    """Return the JWK of a public key in PEM; None if it is unusable."""
    try:
        public = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    kind = next((name for type_, name in PEM_TYPES if isinstance(public, type_)), "")
    if not kind or (
        isinstance(public, RSAPublicKey) and public.key_size < MIN_RSA_BITS
    ):
        return None
    try:
        return JWKRegistry.import_key(text.encode(), kind).as_dict(private=False)
    except KeyError:  # a curve that joserfc does not support
        return None


def _kind_of(key: Key) -> str | None:
    """Return the value of `ALGORITHMS` for *key*; None for a weak or unsupported key."""
    if isinstance(key, RSAKey):
        return "RSA" if key.public_key.public_numbers().e >= 3 else None
    # The parameter k of a symmetric key is never passed to joserfc.
    assert isinstance(key, ECKey | OKPKey)  # noqa: S101
    _ = key.public_key  # a point off the curve raises here
    return key.curve_name if key.curve_name in ALGORITHMS.values() else None


class _Registry(jws.JWSRegistry):
    """joserfc's registry, with the algorithms and size limits of this module."""

    max_header_length = 8 << 10
    max_payload_length = MAX_TOKEN_BYTES

    def get_alg(self, name: str) -> JWSAlgModel:
        return self.algorithms[name if name in ALGORITHMS else ""]


_REGISTRY = _Registry(strict_check_header=False)


def is_signed_by(token: str, key: Key, alg: str) -> bool:
    """Return whether *key* has signed the compact JWS *token* with *alg*."""
    try:
        jws.deserialize_compact(token, key, algorithms=[alg], registry=_REGISTRY)
    except (JoseError, ValueError, TypeError, KeyError):
        return False
    return True
