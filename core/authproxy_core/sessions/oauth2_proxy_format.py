"""oauth2-proxy's formats: cookies, login states and sessions in Redis.

    VALUE | TIME | SIGNATURE     joined by "|"; base64url with padding, ten digits

The signature is HMAC-SHA256 over name, value and time. The value of a session is AES-CFB
over an LZ4 frame of one MessagePack map, the value of a login state the same without
LZ4. A ticket cookie holds the key and the secret of a session in Redis, signed but not
encrypted; the session there is encrypted with AES-GCM.

The signed message has no separators, so a digit could move between value and time. The
fields are therefore parsed strictly: canonical base64, exactly ten digits of time. The
value is not decoded before its signature is verified.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import lz4.frame
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from msgspec import Struct
from msgspec.msgpack import Ext

from ..encoding import b64url, b64url_decode, b64url_padded, b64url_padded_decode
from ..errors import SealError
from ..session import Session
from ..settings.root import Secret, aes_key
from .sealing import check_age

T = TypeVar("T")

MAX_VALUE_BYTES = 1 << 18  # of a signed value; more than 64 cookies can hold
MAX_RECORD_BYTES = 1 << 18  # of a session's MessagePack map after decompression
BLOCK_SIZE = 16  # bytes of AES, and of an initialization vector
NONCE_SIZE = 12  # bytes
TIME_DIGITS = 10  # from 2001 to 2286; the fixed width prevents ambiguity
MAX_TIMESTAMP = 1 << 34  # seconds; the limit of the 8-byte form, in the year 2514
MAX_SECONDS = 1 << 53  # of a timestamp; below it, a float is exact
NANOSECONDS = 1_000_000_000
MAX_CLAIM_DEPTH = 16


class CsrfRecord(Struct, frozen=True):
    """A login state: raw OAuth state and OIDC nonce, and PKCE verifier or ""."""

    state: bytes
    nonce: bytes
    code_verifier: str = ""

    def __repr__(self) -> str:
        return "CsrfRecord(...)"


class Ticket(Struct, frozen=True):
    """The store key of a session, and the secret that unseals it."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Ticket(id={self.id!r})"


class _SessionMap(Struct):
    """The map of a session; fields of type object are strings: str, bin or nil."""

    ca: Ext | None = None
    eo: Ext | None = None
    at: object = None
    it: object = None
    rt: object = None
    n: bytes | None = None
    e: object = None
    u: object = None
    g: list[object] | None = None
    pu: object = None
    ac: dict[str, object] | None = None


class _CsrfMap(Struct):
    s: bytes
    n: bytes
    cv: object = None


_SESSION = msgspec.msgpack.Decoder(_SessionMap)
_CSRF = msgspec.msgpack.Decoder(_CsrfMap)


class _Key:
    """Signs, encrypts and decrypts with one secret."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret.value
        self._cipher = AES(aes_key(secret))
        self._decryptor = Cipher(self._cipher, CFB(bytes(BLOCK_SIZE))).decryptor()

    def sign(self, message: bytes) -> bytes:
        """Return the encoded HMAC-SHA256 of *message*."""
        return b64url_padded(hmac.digest(self._secret, message, "sha256"))

    def encrypt(self, plain: bytes, iv: bytes) -> bytes:
        """Return *iv*, 16 random bytes, and *plain* encrypted with AES-CFB."""
        if len(iv) != BLOCK_SIZE:
            raise ValueError(f"expected an initialization vector of {BLOCK_SIZE} bytes")
        encryptor = Cipher(self._cipher, CFB(iv)).encryptor()
        return iv + encryptor.update(plain) + encryptor.finalize()

    def decrypt(self, payload: bytes) -> bytes:
        """Return what `encrypt` encrypted; raises `SealError` without a vector.

        A block is decrypted with the encrypted block before it (NIST SP 800-38A §6.3),
        and with the vector for the first one. So one decryptor can read all payloads as
        one stream of whole blocks, in which each vector is a block whose result is
        dropped. A new decryptor for each payload would take four times as long.
        """
        size = len(payload)
        if size < BLOCK_SIZE:
            raise SealError("expected an initialization vector")
        blocks = payload + bytes(-size % BLOCK_SIZE)
        return self._decryptor.update(blocks)[BLOCK_SIZE:size]


class _FrameReader:
    """Decompresses LZ4 frames, one after the other, with the same context."""

    def __init__(self) -> None:
        self._context = lz4.frame.create_decompression_context()

    def decompress(self, frame: bytes) -> bytes:
        """Return the content of exactly one frame, at most `MAX_RECORD_BYTES`."""
        lz4.frame.reset_decompression_context(self._context)
        try:
            record, size, is_complete = lz4.frame.decompress_chunk(
                self._context, frame, max_length=MAX_RECORD_BYTES
            )
        except RuntimeError:
            raise SealError("expected an LZ4 frame") from None
        if not is_complete or size != len(frame):
            raise SealError("expected one complete LZ4 frame within the size limit")
        content: bytes = record
        return content


class OAuth2ProxyFormat:
    """Reads and writes the formats of one cookie name; the first secret writes."""

    def __init__(self, secrets: Sequence[Secret], cookie_name: str) -> None:
        if not secrets or not all(secrets):
            raise ValueError("expected at least one secret, none of them empty")
        self._name = cookie_name.encode()
        self._keys = [_Key(secret) for secret in secrets]
        self._frames = _FrameReader()

    def read_cookie(
        self, value: bytes, *, now: float, lifetime: float
    ) -> tuple[Session | Ticket, float]:
        """Return the session or ticket of a joined cookie value, and its time (seconds).

        *lifetime* is the maximum age in seconds; 0 skips the check of the time. Raises
        `SealError`.
        """
        payload, signed_at, key = self._verify(self._name, value, now, lifetime)
        # Encrypted bytes are never ASCII: each byte would have to be by chance.
        if b"." in payload and payload.isascii():
            return _parse_ticket(payload), signed_at
        record = self._frames.decompress(key.decrypt(payload))
        return _read_record(record, signed_at), signed_at

    def write_session(self, session: Session, *, iv: bytes) -> bytes:
        """Return *session* as a cookie value; *iv* is 16 random bytes."""
        frame = _compress(_write_record(session))
        return self._encrypt_and_sign(self._name, frame, session.created_at, iv)

    def write_ticket(self, ticket: Ticket, *, created_at: float) -> bytes:
        """Return *ticket* as a cookie value; *created_at* is that of its session."""
        fields = (b"v2", b64url(ticket.id.encode()), b64url(ticket.secret))
        return self._sign(self._name, b".".join(fields), created_at)

    def read_csrf(
        self, name: bytes, value: bytes, *, now: float, lifetime: float
    ) -> CsrfRecord:
        """Return the login state in the CSRF cookie *name*; raises `SealError`."""
        payload, _, key = self._verify(name, value, now, lifetime)
        found = _decode(_CSRF, key.decrypt(payload))
        if not found.s or not found.n:
            raise SealError("expected a state and a nonce in the login state")
        return CsrfRecord(found.s, found.n, _string(found.cv))

    def write_csrf(
        self, name: bytes, record: CsrfRecord, *, now: float, iv: bytes
    ) -> bytes:
        """Return *record* as the value of the cookie *name*; *iv* is 16 random bytes."""
        fields = {"s": record.state, "n": record.nonce, "cv": record.code_verifier}
        present = {key: field for key, field in fields.items() if field}
        return self._encrypt_and_sign(name, msgspec.msgpack.encode(present), now, iv)

    def _verify(
        self, name: bytes, value: bytes, now: float, lifetime: float
    ) -> tuple[bytes, float, _Key]:
        """Return the payload, its time, and the key that signed it."""
        fields = value.split(b"|", 3) if len(value) <= MAX_VALUE_BYTES else ()
        if len(fields) != 3:
            raise SealError("expected three fields: value, time and signature")
        text, digits, signature = fields
        if len(digits) != TIME_DIGITS or not digits.isdigit():
            raise SealError("expected a time of ten digits")
        key = self._verified_key(name + text + digits, signature)
        signed_at = float(digits)
        if lifetime:
            check_age(signed_at, now=now, lifetime=lifetime)
        payload = b64url_padded_decode(text)
        if payload is None:
            raise SealError("expected base64url with padding")
        return payload, signed_at, key

    def _verified_key(self, message: bytes, signature: bytes) -> _Key:
        for key in self._keys:
            # Comparing the encoded signatures accepts only the canonical encoding.
            if hmac.compare_digest(key.sign(message), signature):
                return key
        raise SealError("modified, or signed with an unknown secret or another name")

    def _encrypt_and_sign(
        self, name: bytes, plain: bytes, timestamp: float, iv: bytes
    ) -> bytes:
        return self._sign(name, self._keys[0].encrypt(plain, iv), timestamp)

    def _sign(self, name: bytes, payload: bytes, timestamp: float) -> bytes:
        if not 0 <= timestamp < 10**TIME_DIGITS:
            raise ValueError(f"expected a time from 1970 to 2286, got {timestamp!r}")
        text, digits = b64url_padded(payload), b"%010d" % int(timestamp)
        signature = self._keys[0].sign(name + text + digits)
        return b"|".join((text, digits, signature))


def read_stored_session(ticket: Ticket, value: bytes, *, created_at: float) -> Session:
    """Return the session that Redis holds for *ticket*; raises `SealError`.

    *created_at* (seconds) is the default if the session does not contain it.
    """
    if len(value) > MAX_RECORD_BYTES:
        raise SealError("stored session too large")
    nonce, sealed = value[:NONCE_SIZE], value[NONCE_SIZE:]
    try:
        record = AESGCM(ticket.secret).decrypt(nonce, sealed, None)
    except (InvalidTag, ValueError):  # ValueError: too short for a nonce and a tag
        raise SealError("the ticket does not decrypt the stored session") from None
    return _read_record(record, created_at)


def write_stored_session(ticket: Ticket, session: Session, *, nonce: bytes) -> bytes:
    """Return *session* as Redis holds it; *nonce* is 12 random bytes."""
    if len(nonce) != NONCE_SIZE:
        raise ValueError(f"expected a nonce of {NONCE_SIZE} bytes")
    return nonce + AESGCM(ticket.secret).encrypt(nonce, _write_record(session), None)


def _parse_ticket(payload: bytes) -> Ticket:
    match payload.split(b"."):
        case [b"v2", encoded_id, encoded_secret]:
            ticket_id = b64url_decode(encoded_id)
        case [ticket_id, encoded_secret]:  # the form before version 2
            pass
        case _:
            raise SealError("expected a ticket")
    secret = b64url_decode(encoded_secret)
    if (
        not ticket_id
        or not ticket_id.isascii()
        or secret is None
        or len(secret) not in (16, 24, 32)
    ):
        raise SealError("expected a ticket with a key and a secret")
    return Ticket(ticket_id.decode("ascii"), secret)


def _compress(record: bytes) -> bytes:
    """Return one LZ4 frame with the header of Go's writer: 04224d18 6440 a7."""
    frame: bytes = lz4.frame.compress(
        record,
        block_size=lz4.frame.BLOCKSIZE_MAX64KB,
        block_linked=False,
        content_checksum=True,
        store_size=False,
    )
    return frame


def _read_record(record: bytes, created_at: float) -> Session:
    found = _decode(_SESSION, record)
    created_at = _parse_timestamp(found.ca) or created_at
    return Session(
        created_at=created_at,
        login_at=created_at,
        expires_at=_parse_timestamp(found.eo),
        access_token=_string(found.at),
        id_token=_string(found.it),
        refresh_token=_string(found.rt),
        nonce=found.n or b"",
        email=_string(found.e),
        user=_string(found.u),
        groups=tuple([_string(group) for group in found.g]) if found.g else (),
        preferred_username=_string(found.pu),
        claims=_read_claims(found.ac) if found.ac else {},
    )


def _write_record(session: Session) -> bytes:
    """Encode the map as Go does: keys in this order, without empty fields."""
    fields: dict[str, object] = {
        "ca": _encode_timestamp(session.created_at),
        "eo": _encode_timestamp(session.expires_at),
        "at": session.access_token,
        "it": session.id_token,
        "rt": session.refresh_token,
        "n": session.nonce,
        "e": session.email,
        "u": session.user,
        "g": session.groups,
        "pu": session.preferred_username,
        "ac": _normalize_claims(session.claims),
    }
    return msgspec.msgpack.encode(
        {key: field for key, field in fields.items() if field}
    )


def _decode(decoder: msgspec.msgpack.Decoder[T], record: bytes) -> T:
    try:
        return decoder.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise SealError("expected a MessagePack map of known fields") from None


def _string(value: object) -> str:
    """Return a string field, which is str, UTF-8 in bin, or nil for ""."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if not isinstance(value, bytes):
        raise SealError("expected a string field")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise SealError("expected UTF-8 in a string field") from None


def _parse_timestamp(timestamp: Ext | None) -> float:
    """Return the seconds since the epoch of a MessagePack timestamp, 0 for nil."""
    if timestamp is None:
        return 0.0
    data = bytes(timestamp.data)
    size = len(data) if timestamp.code == -1 else 0
    number = int.from_bytes(data, "big")
    if size == 8:  # nearly always
        nanos, seconds = number >> 34, number & (MAX_TIMESTAMP - 1)
    elif size == 4:
        nanos, seconds = 0, number
    elif size == 12:
        nanos, seconds = number >> 64, number & ((1 << 64) - 1)
    else:
        raise SealError("expected a timestamp of 4, 8 or 12 bytes")
    # Times before 1970 are negative, so their sign bit is set.
    if nanos >= NANOSECONDS or seconds >= MAX_SECONDS:
        raise SealError("expected a timestamp after 1970")
    return seconds + nanos / NANOSECONDS


def _encode_timestamp(timestamp: float) -> Ext | None:
    """Return the shortest encoding of *timestamp* (seconds); None for 0."""
    if not 0 <= timestamp < 1 << 63:
        raise ValueError(f"expected a time after 1970, got {timestamp!r}")
    whole = int(timestamp)
    seconds, nanos = divmod(
        whole * NANOSECONDS + round((timestamp - whole) * NANOSECONDS), NANOSECONDS
    )
    if not seconds and not nanos:
        return None
    if not nanos and seconds < 1 << 32:
        return Ext(-1, seconds.to_bytes(4, "big"))
    if seconds < MAX_TIMESTAMP:
        return Ext(-1, (nanos << 34 | seconds).to_bytes(8, "big"))
    return Ext(-1, (nanos << 64 | seconds).to_bytes(12, "big"))


def _read_claims(claims: Mapping[str, object]) -> dict[str, Any]:
    try:
        return _normalize_claims(claims)
    except ValueError:
        raise SealError("expected claims with JSON types") from None


def _normalize_claims(claims: Mapping[str, object]) -> dict[str, Any]:
    """Return claims as oauth2-proxy stores them: without nulls, numbers as strings."""
    return {
        name: _normalize_claim(value, MAX_CLAIM_DEPTH)
        for name, value in claims.items()
        if value is not None
    }


def _normalize_claim(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list | tuple) and depth:
        return [_normalize_claim(item, depth - 1) for item in value]
    if isinstance(value, Mapping) and depth:
        return {
            _claim_name(key): _normalize_claim(item, depth - 1)
            for key, item in value.items()
        }
    raise ValueError(f"expected JSON types, nested at most {MAX_CLAIM_DEPTH} levels")


def _claim_name(key: object) -> str:
    if isinstance(key, str):
        return key
    raise ValueError("expected a string as the name of a claim")
