"""Signing keys of the provider: the current RSA and EC key, and rotated ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from .config import Overrides, merge

ALGORITHMS = ("RS256", "ES256")


class SigningKeys:
    """Signs with the current keys; publishes and verifies with all keys of the set.

    Keys are generated on first use, because an RSA key takes 0.1 s, unless the *first*
    ones are given.
    """

    def __init__(self, first: Mapping[str, RSAKey | ECKey] | None = None) -> None:
        self._generations: list[Mapping[str, RSAKey | ECKey]] = [first] if first else []

    def rotate(self, *, keep_old: bool = True) -> None:
        """Generate new keys; with *keep_old* the old ones stay in the key set."""
        if not keep_old:
            self._generations.clear()
        elif not self._generations:
            self._generations.append(generate_keys())
        self._generations.append(generate_keys())

    def public_keys(self) -> list[dict[str, Any]]:
        """Return the public keys as members of a JWK set, newest first."""
        return [dict(key.as_dict(private=False)) for key in self._all()]

    def sign(self, claims: dict[str, Any], alg: str, header: Overrides) -> str:
        """Return *claims* as a signed compact JWT; *header* overrides alg, kid, typ."""
        key = self._current()[alg]
        head = merge({"alg": alg, "kid": key.kid, "typ": "JWT"}, header)
        return jwt.encode(head, claims, key, algorithms=list(ALGORITHMS))

    def verify(self, token: str) -> dict[str, Any] | None:
        """Return the claims of *token*, None if no key verifies it; times are ignored."""
        try:
            decoded = jwt.decode(token, KeySet(self._all()), algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            return None
        return decoded.claims

    def _current(self) -> Mapping[str, RSAKey | ECKey]:
        if not self._generations:
            self._generations.append(generate_keys())
        return self._generations[-1]

    def _all(self) -> list[OctKey | RSAKey | ECKey | OKPKey]:
        self._current()
        return [key for keys in reversed(self._generations) for key in keys.values()]


def generate_keys() -> dict[str, RSAKey | ECKey]:
    """Return a new key for each algorithm."""
    return {
        "RS256": RSAKey.generate_key(
            2048, {"use": "sig", "alg": "RS256"}, auto_kid=True
        ),
        "ES256": ECKey.generate_key(
            "P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True
        ),
    }
