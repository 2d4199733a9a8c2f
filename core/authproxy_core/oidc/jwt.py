"""ID tokens: signature by a JOSE library, claims by OIDC Core §3.1.3.7.

Keys that we can't use are left out when a key set is read (RFC 7517 §5). The algorithm
in a token's header must be one that is allowed, and must fit the type, the curve and,
where it names one, the algorithm of the key. Headers that point to keys elsewhere
(``jku``, ``x5u``, ``jwk``, ``x5c``) are never followed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from msgspec import Struct

from ..encoding import b64url, b64url_decode
from ..errors import ProviderError, TokenError

MAX_TOKEN_BYTES = 64 << 10  # bytes
MAX_KEYS = 100
MAX_SUBJECT_LENGTH = 1024  # characters
MIN_RSA_BITS = 2048
ALGORITHMS: Mapping[str, str] = {
    **{f"{family}{bits}": "RSA" for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
    "Ed25519": "Ed25519",  # its fully-specified name (RFC 9864)
}
GOOGLE_ISSUER = "https://accounts.google.com"
PEM_TYPES = (
    (RSAPublicKey, "RSA"),
    (EllipticCurvePublicKey, "EC"),
    (Ed25519PublicKey, "OKP"),
)
# What a JWT may carry as typ and still be an ID token (RFC 8725 §3.11).
ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 §2.1
NON_BEARER_TYPES = frozenset({"logout+jwt", "secevent+jwt"})
NON_ID_TOKEN_TYPES = NON_BEARER_TYPES | ACCESS_TOKEN_TYPES


class VerificationKey(Struct, frozen=True):
    """A usable public key of a provider; ``kind`` is what `ALGORITHMS` maps to."""

    kid: str | None
    kind: str
    alg: str | None
    key: Key


class KeySet(Struct, frozen=True):
    """The usable keys of a provider, and how many were left out.

    With ``any_kid`` every key is tried, whatever key id a token names.
    """

    keys: tuple[VerificationKey, ...] = ()
    unusable: int = 0
    any_kid: bool = False

    def candidates(self, kid: str | None, alg: str) -> list[VerificationKey]:
        """The keys that may have signed a token with this header."""
        return [
            key
            for key in self.keys
            if key.kind == ALGORITHMS[alg]
            and key.alg in (None, alg)
            and (kid is None or self.any_kid or key.kid == kid)
        ]


class ExpectedClaims(Struct, frozen=True, kw_only=True):
    """What an ID token is judged by; ``leeway`` in seconds, ``nonce`` is the raw one.

    ``issuer`` None switches the comparison off; ``authorized_parties`` are accepted in
    ``azp`` besides the client, "*" means any; ``nonce`` None means that none was
    sent, and ``nonce_optional`` that it is not known whether one was.
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
    """Read a JWK Set (RFC 7517 §5); raises `ProviderError` when it is none."""
    try:
        document = msgspec.json.decode(body)
        keys = document["keys"]
        if not isinstance(keys, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProviderError(
            "the key set is not a JSON object with a list 'keys'", reason="jwks_invalid"
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
    if data.get("kty") == "RSA" and _bits(data.get("n")) < MIN_RSA_BITS:
        return None
    # Only what the key itself needs: an odd x5c must not cost the whole key.
    wanted = ("kty", "n", "e", "crv", "x", "y")
    try:
        key = JWKRegistry.import_key(
            {name: data[name] for name in wanted if name in data}
        )
        kind = _kind_of(key)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None
    if kind is None or (alg is not None and ALGORITHMS[alg] != kind):
        return None
    return VerificationKey(kid if isinstance(kid, str) else None, kind, alg, key)


def parse_public_keys(texts: Iterable[str]) -> KeySet:
    """Public keys in PEM, which may sign with any algorithm that fits their type.

    Raises `ProviderError` for a key that can't be used.
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
        key = JWKRegistry.import_key(text.encode(), kind)
        return _usable_key(key.as_dict(private=False))
    except KeyError:  # a curve that the library does not know
        return None


def _bits(modulus: object) -> int:
    """The size of an RSA modulus in a JWK; 0 for what is none."""
    decoded = b64url_decode(modulus.encode()) if isinstance(modulus, str) else None
    return int.from_bytes(decoded or b"", "big").bit_length()


def _kind_of(key: Key) -> str | None:
    """What `ALGORITHMS` maps to for *key*, None for a key that is weak or foreign."""
    if isinstance(key, RSAKey):
        return "RSA" if key.public_key.public_numbers().e >= 3 else None
    # The part of a symmetric key was not handed over, so it is no such key.
    assert isinstance(key, ECKey | OKPKey)  # noqa: S101
    _ = key.public_key  # a point off the curve raises here
    return key.curve_name if key.curve_name in ALGORITHMS.values() else None


class _Registry(jws.JWSRegistry):
    """The library's registry, narrowed to our algorithms and opened to our sizes."""

    max_header_length = 8 << 10
    max_payload_length = MAX_TOKEN_BYTES

    def get_alg(self, name: str) -> JWSAlgModel:
        return self.algorithms[name if name in ALGORITHMS else ""]


_REGISTRY = _Registry(strict_check_header=False)


def verify(
    token: str,
    keys: KeySet,
    allowed: Iterable[str],
    refused: frozenset[str] = NON_ID_TOKEN_TYPES,
) -> dict[str, Any]:
    """The claims of a compact JWS whose signature is good.

    *refused* are the values of ``typ`` that belong to other kinds of token. Raises `TokenError`; its reason is ``unknown_key`` when no key fits, so that the
    caller can fetch the key set again.
    """
    header = _header(token)
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or alg not in ALGORITHMS or alg not in set(allowed):
        raise TokenError(
            "the token's signing algorithm is not allowed", reason="algorithm"
        )
    if kid is not None and not isinstance(kid, str):
        raise TokenError("the token's key id is not a text", reason="malformed")
    if str(header.get("typ", "")).lower() in refused:
        raise TokenError("the token is of another kind by its type", reason="type")
    candidates = keys.candidates(kid, alg)
    if not candidates:
        raise TokenError(
            "no key of the provider fits the token's key id and algorithm",
            reason="unknown_key",
        )
    for candidate in candidates:
        if _signed_by(token, candidate, alg):
            return unverified_claims(token)
    raise TokenError("the token's signature is wrong", reason="signature")


def _signed_by(token: str, key: VerificationKey, alg: str) -> bool:
    try:
        jws.deserialize_compact(token, key.key, algorithms=[alg], registry=_REGISTRY)
    except (JoseError, ValueError, TypeError, KeyError):
        return False
    return True


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
        raise TokenError("the token holds no JSON", reason="malformed") from None
    if not isinstance(value, dict):
        raise TokenError("the token holds no JSON object", reason="malformed")
    return value


def _header(token: str) -> dict[str, Any]:
    header = _object(_segments(token)[0])
    # RFC 7515 §4.1.11: what is critical and not understood makes the token invalid.
    if "crit" in header:
        raise TokenError("the token has a critical extension", reason="malformed")
    return header


def unverified_claims(token: str) -> dict[str, Any]:
    """The claims of a JWT *without* any check of its signature."""
    return _object(_segments(token)[1])


def check_id_token(
    claims: Mapping[str, Any], expected: ExpectedClaims, now: float
) -> None:
    """Judge the claims of a verified ID token (OIDC Core §3.1.3.7).

    Raises `TokenError` saying what was expected and what came.
    """
    if "events" in claims:
        raise TokenError("a logout token is not an ID token", reason="type")
    check_issuer(claims, expected)
    check_audience(claims, expected)
    _check_authorized_party(claims, expected)
    check_times(claims, expected.leeway, now)
    _check_subject(claims)
    if not (expected.nonce_optional and "nonce" not in claims):
        _check_nonce(claims, expected.nonce)


def _shown(value: object) -> str:
    """A claim's value for a message: short, printable."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return repr(text[:200])


def check_issuer(claims: Mapping[str, Any], expected: ExpectedClaims) -> None:
    """Raise `TokenError` unless ``iss`` is the expected issuer."""
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise TokenError("expected a text in the claim iss", reason="issuer")
    if expected.issuer == GOOGLE_ISSUER and issuer == GOOGLE_ISSUER.removeprefix(
        "https://"
    ):
        return  # Google's documents name both forms
    if expected.issuer is not None and issuer != expected.issuer:
        raise TokenError(
            f"expected issuer {expected.issuer!r}, got {_shown(issuer)}",
            reason="issuer",
            hint="set oidc_issuer_url to exactly the issuer that the provider uses "
            "(scheme, host, port and trailing slash count)",
        )


def check_audience(claims: Mapping[str, Any], expected: ExpectedClaims) -> None:
    """Raise `TokenError` unless the token is meant for this client."""
    for name in expected.audience_claims:
        if claims.get(name) is not None:
            audiences = _texts(claims[name])
            if audiences & {expected.client_id, *expected.extra_audiences}:
                return
            raise TokenError(
                f"expected audience {expected.client_id!r} in the claim {name}, got "
                f"{_shown(claims[name])}",
                reason="audience",
                hint=_audience_hint(expected),
            )
    raise TokenError(
        f"expected audience {expected.client_id!r}, but the token has none of the "
        f"claims {', '.join(expected.audience_claims)}",
        reason="audience",
        hint=_audience_hint(expected),
    )


def _audience_hint(expected: ExpectedClaims) -> str:
    client = expected.client_id
    if not expected.keycloak:
        return (
            f"make the provider put {client!r} into the token's audience, or list the "
            "audience in oidc_extra_audiences"
        )
    return (
        "add an audience mapper in Keycloak: Clients -> "
        f"{client} -> Client scopes -> {client}-dedicated -> Configure a new mapper -> "
        f"Audience; Included Client Audience: {client}; Add to ID token: On; Add to "
        "access token: On"
    )


def _texts(value: object) -> set[str]:
    values = value if isinstance(value, list) else [value]
    return {item for item in values if isinstance(item, str)}


def _check_authorized_party(
    claims: Mapping[str, Any], expected: ExpectedClaims
) -> None:
    own = {
        expected.client_id,
        *expected.extra_audiences,
        *expected.authorized_parties,
    }
    if "*" in expected.authorized_parties:
        return
    party = claims.get("azp")
    if party is not None and (not isinstance(party, str) or party not in own):
        raise TokenError(
            f"expected authorized party {expected.client_id!r} in the claim azp, got "
            f"{_shown(party)}",
            reason="authorized_party",
            hint="list the client in bearer_authorized_parties if its bearer tokens "
            "shall be accepted",
        )
    # OIDC Core §3.1.3.7 (3, 4): untrusted further audiences are only acceptable when
    # the token says for whom it was made.
    if (
        party is None
        and _texts(claims.get("aud")) - own
        and "aud" in expected.audience_claims
    ):
        raise TokenError(
            f"the token has audiences besides {expected.client_id!r} and no claim azp",
            reason="authorized_party",
            hint="list the other audiences in oidc_extra_audiences if they are trusted",
        )


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"expected a number in the claim {name}", reason="malformed")
    return float(value) if abs(value) < 1e15 else 1e15


def check_times(claims: Mapping[str, Any], leeway: float, now: float) -> None:
    """Raise `TokenError` for a token of the future or one that has expired."""
    hint = (
        "compare the clocks of this machine and of the provider (NTP); clock_skew "
        "sets the leeway"
    )
    issued_at = _moment(claims, "iat")
    expires_at = _moment(claims, "exp")
    if issued_at > now + leeway:
        raise TokenError(
            f"the token was issued {issued_at - now:.0f} s in the future of our clock "
            f"(allowed: {leeway:.0f} s)",
            reason="clock_skew",
            hint=hint,
        )
    if expires_at <= now - leeway:
        raise TokenError(
            f"the token expired {now - expires_at:.0f} s ago by our clock "
            f"(allowed: {leeway:.0f} s)",
            reason="expired",
            hint=hint,
        )
    if "nbf" in claims and _moment(claims, "nbf") > now + leeway:
        raise TokenError(
            "the token is not valid yet by our clock", reason="clock_skew", hint=hint
        )


def _check_subject(claims: Mapping[str, Any]) -> None:
    subject = claims.get("sub")
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= MAX_SUBJECT_LENGTH
        or not subject.isprintable()
    ):
        raise TokenError(
            "expected a short printable text in the claim sub", reason="subject"
        )


def _check_nonce(claims: Mapping[str, Any], nonce: bytes | None) -> None:
    if nonce is None:
        return
    claim = claims.get("nonce")
    if not isinstance(claim, str) or not hmac.compare_digest(
        claim.encode(), hash_nonce(nonce)
    ):
        raise TokenError(
            "the token's nonce is not the one of this login", reason="nonce"
        )


def check_access_token_hash(
    token: str, claims: Mapping[str, Any], access_token: str
) -> None:
    """Compare ``at_hash`` with the access token when it is there (OIDC Core §3.1.3.6).

    Raises `TokenError`. Ed25519 is left out, as its hash is not agreed upon.
    """
    claim, alg = claims.get("at_hash"), str(_header(token).get("alg"))
    if claim is None or not access_token or alg[:2] not in ("RS", "PS", "ES"):
        return
    digest = hashlib.new(f"sha{alg[2:]}", access_token.encode()).digest()
    half = b64url(digest[: len(digest) // 2])
    if not isinstance(claim, str) or not hmac.compare_digest(claim.encode(), half):
        raise TokenError(
            "the access token does not belong to the ID token (at_hash)",
            reason="at_hash",
        )


def hash_nonce(nonce: bytes) -> bytes:
    """How a nonce or state stands in a URL: base64url(SHA-256), 43 characters."""
    return b64url(hashlib.sha256(nonce).digest())
