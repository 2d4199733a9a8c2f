"""Signed JWT assertions of a client or a service account (RFC 7523)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from msgspec import Struct

from ...oidc.algorithms import MIN_RSA_BITS

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey


class SigningKey(Struct, frozen=True):
    """A private RSA key; its repr does not contain it."""

    key: RSAKey
    kid: str = ""

    def __repr__(self) -> str:
        return "SigningKey(...)"

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return *claims* as a JWT, signed with RS256."""
        from joserfc import jws  # slow, see oidc/signatures.py

        header = {"alg": "RS256", "typ": "JWT"}
        if self.kid:
            header["kid"] = self.kid
        return jws.serialize_compact(header, orjson.dumps(claims), self.key)


def load_signing_key(pem: bytes, kid: str = "") -> SigningKey:
    """Return the private RSA key in *pem*; raises `ValueError` for other content."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from joserfc.jwk import RSAKey

    try:
        private = load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the key is encrypted or of an unsupported type") from error
    if not isinstance(private, RSAPrivateKey) or private.key_size < MIN_RSA_BITS:
        raise ValueError(f"expected an RSA key of at least {MIN_RSA_BITS} bits")
    return SigningKey(RSAKey.import_key(pem), kid)
