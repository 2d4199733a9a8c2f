"""Hashes in ID tokens that bind them to a code or an access token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Literal

from ..encoding import b64url
from ..errors import TokenError
from .jwt import token_algorithm

OWNERS = {"at_hash": "access token", "c_hash": "code"}


def check_token_hash(
    token: str,
    claims: Mapping[str, Any],
    name: Literal["at_hash", "c_hash"],
    value: str,
) -> None:
    """Check the hash *name*, if present, against *value* (OIDC Core §3.1.3.6, §3.3.2.11).

    *claims* are those of the ID token *token*, *value* is an access token or a code, ""
    if there is none. Not checked for Ed25519, for which no hash is specified. Raises
    `TokenError`.
    """
    claim, alg = claims.get(name), token_algorithm(token)
    if claim is None or not value or alg[:2] not in ("RS", "PS", "ES"):
        return
    digest = hashlib.new(f"sha{alg[2:]}", value.encode()).digest()
    half = b64url(digest[: len(digest) // 2])
    if not isinstance(claim, str) or not hmac.compare_digest(claim.encode(), half):
        raise TokenError(
            f"the {OWNERS[name]} does not belong to the ID token ({name})", reason=name
        )
