"""JWTs and JWK sets: verification of signatures, validation of ID token claims.

joserfc verifies the signature; the claims are validated after OIDC Core §3.1.3.7.
Unusable keys of a key set are ignored (RFC 7517 §5). The algorithm of a token must be
allowed, and must match the type, the curve and (if present) the algorithm of the key.
Header parameters that refer to other keys (``jku``, ``x5u``, ``jwk``, ``x5c``) are
never followed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ..encoding import b64url, b64url_decode
from ..errors import ProviderError, TokenError
from .algorithms import ALGORITHMS, MAX_TOKEN_BYTES, MIN_RSA_BITS
from .token_types import ID_TOKEN, TokenUse, check_claim_type, check_header_type

if TYPE_CHECKING:
    from joserfc.jwk import Key

MAX_KEYS = 100
MAX_SUBJECT_LENGTH = 1024  # characters
GOOGLE_ISSUER = "https://accounts.google.com"
MAX_NUMERIC_DATE = 1e15  # seconds; times beyond it are equal to it


class VerificationKey(Struct, frozen=True):
    """A public key of a provider; ``kind`` is a value of `ALGORITHMS`."""

    kid: str | None
    kind: str
    alg: str | None
    key: Key


class KeySet(Struct, frozen=True):
    """The usable keys of a provider, and the number of ``unusable`` ones.

    With ``any_kid``, every key is tried, regardless of the key ID of a token.
    """

    keys: tuple[VerificationKey, ...] = ()
    unusable: int = 0
    any_kid: bool = False

    @property
    def thumbprints(self) -> frozenset[str]:
        """The thumbprints of the keys (RFC 7638)."""
        return frozenset(key.key.thumbprint() for key in self.keys)

    def candidates(self, kid: str | None, alg: str) -> list[VerificationKey]:
        """Return the keys that may have signed a token with this header."""
        return [
            key
            for key in self.keys
            if key.kind == ALGORITHMS[alg]
            and key.alg in (None, alg)
            and (kid is None or self.any_kid or key.kid == kid)
        ]


class ExpectedClaims(Struct, frozen=True, kw_only=True):
    """The values that the claims of an ID token are validated against.

    ``issuer`` None skips the check of the issuer. ``authorized_parties`` are accepted in
    ``azp`` in addition to the client; "*" accepts any. ``leeway`` is in seconds.
    ``nonce`` is the raw nonce, None if the authorization request had none; with
    ``nonce_optional``, a token without a nonce is accepted. ``keycloak`` selects a hint
    for Keycloak.
    """

    issuer: str | None
    client_id: str
    audience_claims: tuple[str, ...] = ("aud",)
    extra_audiences: tuple[str, ...] = ()
    authorized_parties: tuple[str, ...] = ()
    leeway: float = 30.0
    nonce: bytes | None = None
    nonce_optional: bool = False
    keycloak: bool = False


def parse_key_set(body: bytes) -> KeySet:
    """Parse a JWK set (RFC 7517 §5); raises `ProviderError` if it is invalid."""
    try:
        document = msgspec.json.decode(body)
        keys = document["keys"]
        if not isinstance(keys, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProviderError(
            "the JWK set is not a JSON object with an array 'keys'",
            reason="jwks_invalid",
        ) from None
    usable = [key for key in map(_usable_key, keys[:MAX_KEYS]) if key is not None]
    return KeySet(tuple(usable), len(keys) - len(usable))


def _usable_key(data: object) -> VerificationKey | None:
    if not isinstance(data, dict) or data.get("use", "sig") != "sig":
        return None
    operations = data.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    alg, kid = data.get("alg"), data.get("kid")
    if alg is not None and (not isinstance(alg, str) or alg not in ALGORITHMS):
        return None
    if data.get("kty") == "RSA" and _modulus_bits(data.get("n")) < MIN_RSA_BITS:
        return None
    # Only the parameters of the key itself: an invalid x5c must not make it unusable.
    wanted = ("kty", "n", "e", "crv", "x", "y")
    from .signatures import import_jwk

    kind, key = import_jwk({name: data[name] for name in wanted if name in data})
    if key is None or (alg is not None and ALGORITHMS[alg] != kind):
        return None
    return VerificationKey(kid if isinstance(kid, str) else None, kind, alg, key)


def parse_public_keys(texts: Iterable[str]) -> KeySet:
    """Parse public keys in PEM; each is valid for all algorithms of its type.

    Raises `ProviderError` for an unusable key.
    """
    keys = [_public_key(text) for text in texts]
    if not all(keys):
        raise ProviderError(
            "expected public keys in PEM: RSA of at least 2048 bits, P-256, P-384, "
            "P-521 or Ed25519",
            reason="jwks_invalid",
        )
    return KeySet(tuple(key for key in keys if key is not None), any_kid=True)


def _public_key(text: str) -> VerificationKey | None:
    from .signatures import convert_pem_to_jwk

    jwk = convert_pem_to_jwk(text)
    return _usable_key(jwk) if jwk is not None else None


def _modulus_bits(modulus: object) -> int:
    """Return the modulus size in bits of an RSA JWK; 0 if it is invalid."""
    decoded = b64url_decode(modulus.encode()) if isinstance(modulus, str) else None
    return int.from_bytes(decoded or b"", "big").bit_length()


def verify_jws(
    token: str,
    keys: KeySet,
    allowed: Iterable[str],
    use: TokenUse = ID_TOKEN,
) -> dict[str, Any]:
    """Verify the signature of a compact JWS and return its claims.

    *allowed* are the accepted algorithms. A token of another *use* is rejected. Raises
    `TokenError`; with reason ``unknown_key``, no key matches, and the caller may fetch
    the JWK set again.
    """
    header = _header(token)
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or alg not in ALGORITHMS or alg not in set(allowed):
        raise TokenError(
            "the token's signing algorithm is not allowed", reason="algorithm"
        )
    if kid is not None and not isinstance(kid, str):
        raise TokenError("the token's key ID is not a string", reason="malformed")
    check_header_type(header, use)
    candidates = keys.candidates(kid, alg)
    if not candidates:
        raise TokenError(
            "no key of the provider matches the token's key ID and algorithm",
            reason="unknown_key",
        )
    from .signatures import is_signed_by

    for candidate in candidates:
        if is_signed_by(token, candidate.key, alg):
            claims = unverified_claims(token)
            check_claim_type(claims, use)
            return claims
    raise TokenError("the token's signature is invalid", reason="signature")


def _segments(token: str) -> list[bytes]:
    segments = token.split(".")
    if len(token) > MAX_TOKEN_BYTES or len(segments) != 3 or not token.isascii():
        raise TokenError("the token is not a compact JWS", reason="malformed")
    decoded = [b64url_decode(segment.encode()) for segment in segments]
    if not all(decoded):
        raise TokenError("the token is not a compact JWS", reason="malformed")
    return [segment for segment in decoded if segment is not None]


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenError("the token is not JSON", reason="malformed") from None
    if not isinstance(value, dict):
        raise TokenError("the token is not a JSON object", reason="malformed")
    return value


def _header(token: str) -> dict[str, Any]:
    header = _object(_segments(token)[0])
    # RFC 7515 §4.1.11: no critical extension is supported, so the token is invalid.
    if "crit" in header:
        raise TokenError(
            "the token requires an unsupported extension (crit)", reason="malformed"
        )
    return header


def unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT *without* verifying its signature."""
    return _object(_segments(token)[1])


def check_id_token(
    claims: Mapping[str, Any], expected: ExpectedClaims, now: float
) -> None:
    """Validate the claims of a verified ID token (OIDC Core §3.1.3.7).

    *now* is in seconds since the epoch. Raises `TokenError`.
    """
    if "events" in claims:
        raise TokenError("got a logout token, expected an ID token", reason="type")
    check_issuer(claims, expected)
    check_audience(claims, expected)
    _check_authorized_party(claims, expected)
    check_times(claims, expected.leeway, now)
    _check_subject(claims)
    if not (expected.nonce_optional and "nonce" not in claims):
        _check_nonce(claims, expected.nonce)


def _display(value: object) -> str:
    """Return a claim's value for an error text: short and printable."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return repr(text[:200])


def check_issuer(claims: Mapping[str, Any], expected: ExpectedClaims) -> None:
    """Raise `TokenError` unless ``iss`` is the expected issuer."""
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise TokenError("expected a string in the claim iss", reason="issuer")
    if expected.issuer == GOOGLE_ISSUER and issuer == GOOGLE_ISSUER.removeprefix(
        "https://"
    ):
        return  # Google documents both forms
    if expected.issuer is not None and issuer != expected.issuer:
        raise TokenError(
            f"expected issuer {expected.issuer!r}, got {_display(issuer)}",
            reason="issuer",
            hint="set oidc_issuer_url to the exact issuer of the provider, including "
            "scheme, host, port and trailing slash",
        )


def check_audience(claims: Mapping[str, Any], expected: ExpectedClaims) -> None:
    """Raise `TokenError` unless an audience claim contains this client."""
    for name in expected.audience_claims:
        if claims.get(name) is not None:
            audiences = _strings(claims[name])
            if audiences & {expected.client_id, *expected.extra_audiences}:
                return
            raise TokenError(
                f"expected audience {expected.client_id!r} in the claim {name}, got "
                f"{_display(claims[name])}",
                reason="audience",
                hint=_audience_hint(expected),
            )
    raise TokenError(
        f"expected audience {expected.client_id!r}, but these claims are missing: "
        f"{', '.join(expected.audience_claims)}",
        reason="audience",
        hint=_audience_hint(expected),
    )


def _audience_hint(expected: ExpectedClaims) -> str:
    client = expected.client_id
    if not expected.keycloak:
        return (
            f"configure the provider to include {client!r} in the token's audience, or "
            "add the audience to oidc_extra_audiences"
        )
    return (
        "add an audience mapper in Keycloak: Clients -> "
        f"{client} -> Client scopes -> {client}-dedicated -> Configure a new mapper -> "
        f"Audience; Included Client Audience: {client}; Add to ID token: On; Add to "
        "access token: On (lightweight access tokens: Add to lightweight access token: On)"
    )


def _strings(value: object) -> set[str]:
    values = value if isinstance(value, list) else [value]
    return {item for item in values if isinstance(item, str)}


def _check_authorized_party(
    claims: Mapping[str, Any], expected: ExpectedClaims
) -> None:
    trusted = {
        expected.client_id,
        *expected.extra_audiences,
        *expected.authorized_parties,
    }
    if "*" in expected.authorized_parties:
        return
    party = claims.get("azp")
    if party is not None and (not isinstance(party, str) or party not in trusted):
        raise TokenError(
            f"expected authorized party {expected.client_id!r} in the claim azp, got "
            f"{_display(party)}",
            reason="authorized_party",
            hint="to accept the client's bearer tokens, add it to "
            "bearer_authorized_parties",
        )
    # OIDC Core §3.1.3.7 (3, 4): additional, untrusted audiences require azp.
    if (
        party is None
        and _strings(claims.get("aud")) - trusted
        and "aud" in expected.audience_claims
    ):
        raise TokenError(
            f"the token has audiences other than {expected.client_id!r}, but no claim azp",
            reason="authorized_party",
            hint="to trust the other audiences, add them to oidc_extra_audiences",
        )


def numeric_date(claims: Mapping[str, Any], name: str) -> float:
    """Return a claim in seconds since the epoch; raises `TokenError` if it is invalid."""
    value = claims.get(name)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return max(-MAX_NUMERIC_DATE, min(float(value), MAX_NUMERIC_DATE))
    except OverflowError:  # an integer beyond all floats
        pass
    raise TokenError(f"expected a number in the claim {name}", reason="malformed")


def check_times(claims: Mapping[str, Any], leeway: float, now: float) -> None:
    """Raise `TokenError` if the token has expired or is not valid yet.

    *leeway* is in seconds.
    """
    hint = (
        "synchronize the clocks of this machine and the provider (NTP), or raise the "
        "leeway (clock_skew)"
    )
    issued_at = numeric_date(claims, "iat")
    expires_at = numeric_date(claims, "exp")
    if issued_at > now + leeway:
        raise TokenError(
            f"the token was issued {issued_at - now:.0f} s in the future "
            f"(allowed: {leeway:.0f} s)",
            reason="clock_skew",
            hint=hint,
        )
    if expires_at <= now - leeway:
        raise TokenError(
            f"the token expired {now - expires_at:.0f} s ago (allowed: {leeway:.0f} s)",
            reason="expired",
            hint=hint,
        )
    if "nbf" in claims and numeric_date(claims, "nbf") > now + leeway:
        raise TokenError(
            "the token is not valid yet (nbf)", reason="clock_skew", hint=hint
        )


def _check_subject(claims: Mapping[str, Any]) -> None:
    subject = claims.get("sub")
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= MAX_SUBJECT_LENGTH
        or not subject.isprintable()
    ):
        raise TokenError(
            "expected a printable string of at most "
            f"{MAX_SUBJECT_LENGTH} characters in the claim sub",
            reason="subject",
        )


def _check_nonce(claims: Mapping[str, Any], nonce: bytes | None) -> None:
    if nonce is None:
        return
    claim = claims.get("nonce")
    if not isinstance(claim, str) or not hmac.compare_digest(
        claim.encode(), hash_nonce(nonce)
    ):
        raise TokenError(
            "the token's nonce does not match this sign-in", reason="nonce"
        )


def token_algorithm(token: str) -> str:
    """Return the ``alg`` of a JWT, "" for a token that is not one."""
    try:
        return str(_header(token).get("alg", ""))
    except TokenError:
        return ""


def hash_nonce(nonce: bytes) -> bytes:
    """Return the form of a nonce or state in URLs: base64url(SHA-256), 43 characters."""
    return b64url(hashlib.sha256(nonce).digest())
