"""Accepted signing algorithms of JWTs, and limits of tokens and keys."""

from __future__ import annotations

from collections.abc import Mapping

MAX_TOKEN_BYTES = 64 << 10  # bytes
MIN_RSA_BITS = 2048
ALGORITHMS: Mapping[str, str] = {
    **{f"{family}{bits}": "RSA" for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
    "Ed25519": "Ed25519",  # its fully-specified name (RFC 9864)
}
