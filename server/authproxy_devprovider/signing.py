"""The provider's signing keys: one RSA and one EC key, and those before them."""

from __future__ import annotations

from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from .config import Overrides, merged

ALGORITHMS = ("RS256", "ES256")


class SigningKeys:
    """Signs with the current keys; publishes and accepts those still in the set.

    Keys are made when first needed: an RSA key takes a tenth of a second.
    """

    def __init__(self) -> None:
        self._generations: list[dict[str, RSAKey | ECKey]] = []

    def rotate(self, *, keep_old: bool = True) -> None:
        """Make new keys; with ``keep_old`` the old ones stay in the key set."""
        if not keep_old:
            self._generations.clear()
        elif not self._generations:
            self._generations.append(_new_keys())
        self._generations.append(_new_keys())

    def published(self) -> list[dict[str, Any]]:
        """The public keys as members of a JWK set, newest first."""
        return [dict(key.as_dict(private=False)) for key in self._all()]

    def sign(self, claims: dict[str, Any], alg: str, header: Overrides) -> str:
        """*claims* as a signed compact JWT; *header* overrides alg, kid, typ."""
        key = self._current()[alg]
        head = merged({"alg": alg, "kid": key.kid, "typ": "JWT"}, header)
        return jwt.encode(head, claims, key, algorithms=list(ALGORITHMS))

    def verified_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token signed by a key of the set; its times aren't judged."""
        try:
            decoded = jwt.decode(token, KeySet(self._all()), algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            return None
        return decoded.claims

    def _current(self) -> dict[str, RSAKey | ECKey]:
        if not self._generations:
            self._generations.append(_new_keys())
        return self._generations[-1]

    def _all(self) -> list[OctKey | RSAKey | ECKey | OKPKey]:
        self._current()
        return [key for keys in reversed(self._generations) for key in keys.values()]


def _new_keys() -> dict[str, RSAKey | ECKey]:
    return {
        "RS256": RSAKey.generate_key(
            2048, {"use": "sig", "alg": "RS256"}, auto_kid=True
        ),
        "ES256": ECKey.generate_key(
            "P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True
        ),
    }
