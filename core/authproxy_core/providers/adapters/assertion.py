"""JWTs that we sign: assertions for a client or a service account (RFC 7523)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jws
from joserfc.jwk import RSAKey
from msgspec import Struct

from ...oidc.jwt import MIN_RSA_BITS


class SigningKey(Struct, frozen=True):
    """A private RSA key; it is never shown."""

    key: RSAKey
    kid: str = ""

    def __repr__(self) -> str:
        return "SigningKey(...)"

    def sign(self, claims: Mapping[str, Any]) -> str:
        """*claims* as a JWT, signed with RS256."""
        header = {"alg": "RS256", "typ": "JWT"}
        if self.kid:
            header["kid"] = self.kid
        return jws.serialize_compact(header, orjson.dumps(claims), self.key)


def load_signing_key(pem: bytes, kid: str = "") -> SigningKey:
    """The private RSA key in *pem*; raises `ValueError` when it is none."""
    try:
        private = load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(
            "the key is encrypted, or of a kind that is unknown"
        ) from error
    if not isinstance(private, RSAPrivateKey) or private.key_size < MIN_RSA_BITS:
        raise ValueError(f"the key is no RSA key of at least {MIN_RSA_BITS} bits")
    return SigningKey(RSAKey.import_key(pem), kid)
