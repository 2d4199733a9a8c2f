"""oauth2-proxy's own cookies: read always, written on request.

    VALUE | TIME | SIGNATURE        joined by "|"; base64url with padding, ten digits

The signature is HMAC-SHA256 over name, value and time. A session's value is AES-CFB over
an LZ4 frame of one MessagePack map, a login state's the same without LZ4. A ticket
cookie holds the key and the secret of a session in Redis, signed but not encrypted; the
session there is under AES-GCM.

The signed text has no separators, so a character could wander between value and time.
The three fields are therefore parsed strictly: base64 in its canonical form, exactly ten
digits of time. Nothing inside is looked at before the signature has been found good.
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

MAX_VALUE_BYTES = 1 << 18  # bytes of a signed value; 64 cookies hold less
MAX_RECORD_BYTES = 1 << 18  # bytes of a session's MessagePack after decompression
IV_SIZE = 16
TIME_DIGITS = 10  # from 2001 to 2286; a fixed width leaves no doubt where it begins
MAX_TIMESTAMP = 1 << 34  # seconds; what the 8-byte form can hold, the year 2514
NANO = 1_000_000_000
MAX_CLAIM_DEPTH = 16


class CsrfRecord(Struct, frozen=True):
    """A login under way: raw OAuth state and OIDC nonce, PKCE verifier or ""."""

    state: bytes
    nonce: bytes
    code_verifier: str = ""

    def __repr__(self) -> str:
        return "CsrfRecord(...)"


class Ticket(Struct, frozen=True):
    """Where a session lies in Redis, and the AES key that opens it there."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Ticket(id={self.id!r})"


class _SessionMap(Struct):
    """The map of a session; ``object`` is for text, which may be str, bin or nil."""

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


class OAuth2ProxyFormat:
    """Reads and writes the formats of one cookie name; the first secret writes."""

    def __init__(self, secrets: Sequence[Secret], cookie_name: str) -> None:
        if not secrets or not all(secrets):
            raise ValueError("expected at least one secret, and none of them empty")
        self._name = cookie_name.encode()
        self._keys = [(secret.value, AES(aes_key(secret))) for secret in secrets]

    def read_session(self, value: bytes, *, now: float, lifetime: float) -> Session:
        """The session of a (joined) cookie value, or `SealError`.

        *lifetime* (seconds) is how old it may be; 0 means no judgement of its time.
        """
        payload, signed_at, cipher = self._verified(self._name, value, now, lifetime)
        record = _decompress(_decrypt(cipher, payload))
        return _read_record(record, signed_at)

    def read_cookie(
        self, value: bytes, *, now: float, lifetime: float
    ) -> tuple[Session | Ticket, float]:
        """The session or the ticket of a cookie value, and the time in it.

        Raises `SealError`. Random bytes that look like a ticket do not come about.
        """
        payload, signed_at, cipher = self._verified(self._name, value, now, lifetime)
        if b"." in payload and payload.isascii():
            return _parse_ticket(payload), signed_at
        session = _read_record(_decompress(_decrypt(cipher, payload)), signed_at)
        return session, signed_at

    def write_session(self, session: Session, *, iv: bytes) -> bytes:
        """*session* as a cookie value; *iv* is 16 fresh random bytes."""
        frame = _compress(_write_record(session))
        return self._sealed(self._name, frame, session.created_at, iv)

    def read_csrf(
        self, name: bytes, value: bytes, *, now: float, lifetime: float
    ) -> CsrfRecord:
        """The login state in the CSRF cookie called *name*, or `SealError`."""
        payload, _, cipher = self._verified(name, value, now, lifetime)
        found = _decode(_CSRF, _decrypt(cipher, payload))
        if not found.s or not found.n:
            raise SealError("expected a state and a nonce in the login state")
        return CsrfRecord(found.s, found.n, _text(found.cv))

    def write_csrf(
        self, name: bytes, record: CsrfRecord, *, now: float, iv: bytes
    ) -> bytes:
        """*record* as the value of the cookie *name*; *iv*: 16 fresh random bytes."""
        fields = {"s": record.state, "n": record.nonce, "cv": record.code_verifier}
        kept = {key: field for key, field in fields.items() if field}
        return self._sealed(name, msgspec.msgpack.encode(kept), now, iv)

    def read_ticket(self, value: bytes, *, now: float, lifetime: float) -> Ticket:
        """The ticket of a cookie value, in its present or its old form."""
        text, _, _ = self._verified(self._name, value, now, lifetime)
        return _parse_ticket(text)

    def write_ticket(self, ticket: Ticket, *, created_at: float) -> bytes:
        """*ticket* as a cookie value; *created_at* is its session's."""
        fields = (b"v2", b64url(ticket.id.encode()), b64url(ticket.secret))
        return self._signed(self._name, b".".join(fields), created_at)

    def _verified(
        self, name: bytes, value: bytes, now: float, lifetime: float
    ) -> tuple[bytes, float, AES]:
        """The payload, its time and the AES key of the secret that signed both."""
        fields = value.split(b"|", 3) if len(value) <= MAX_VALUE_BYTES else ()
        if len(fields) != 3:
            raise SealError("expected three fields: value, time and signature")
        text, digits, signature = fields
        if len(digits) != TIME_DIGITS or not digits.isdigit():
            raise SealError("expected a time of ten digits")
        cipher = self._signer(name + text + digits, signature)
        signed_at = float(digits)
        if lifetime:
            check_age(signed_at, now=now, lifetime=lifetime)
        payload = b64url_padded_decode(text)
        if payload is None:
            raise SealError("expected base64url with padding")
        return payload, signed_at, cipher

    def _signer(self, message: bytes, signature: bytes) -> AES:
        for secret, cipher in self._keys:
            # Texts are compared, not what they decode to: one form is the only form.
            if hmac.compare_digest(_signature(secret, message), signature):
                return cipher
        raise SealError("changed, or signed with an unknown secret or for another name")

    def _sealed(self, name: bytes, plain: bytes, moment: float, iv: bytes) -> bytes:
        return self._signed(name, _encrypt(self._keys[0][1], plain, iv), moment)

    def _signed(self, name: bytes, payload: bytes, moment: float) -> bytes:
        if not 0 <= moment < 10**TIME_DIGITS:
            raise ValueError(f"expected a moment from 1970 to 2286, got {moment!r}")
        text, digits = b64url_padded(payload), b"%010d" % int(moment)
        signature = _signature(self._keys[0][0], name + text + digits)
        return b"|".join((text, digits, signature))


def read_stored_session(ticket: Ticket, value: bytes, *, created_at: float) -> Session:
    """The session in Redis that *ticket* names, or `SealError`.

    *created_at* counts when the session itself does not say when it was made.
    """
    if len(value) > MAX_RECORD_BYTES:
        raise SealError("the stored session is too large")
    try:
        record = AESGCM(ticket.secret).decrypt(value[:12], value[12:], None)
    except (InvalidTag, ValueError):  # ValueError: too short for a nonce and a tag
        raise SealError("the ticket does not open the stored session") from None
    return _read_record(record, created_at)


def write_stored_session(ticket: Ticket, session: Session, *, nonce: bytes) -> bytes:
    """*session* as Redis holds it; *nonce* is 12 fresh random bytes."""
    if len(nonce) != 12:
        raise ValueError("expected a nonce of 12 bytes")
    return nonce + AESGCM(ticket.secret).encrypt(nonce, _write_record(session), None)


def _signature(secret: bytes, message: bytes) -> bytes:
    return b64url_padded(hmac.digest(secret, message, "sha256"))


def _parse_ticket(text: bytes) -> Ticket:
    match text.split(b"."):
        case [b"v2", encoded, secret]:
            key = b64url_decode(encoded)
        case [key, secret]:  # the form before version 2 was introduced
            pass
        case _:
            raise SealError("expected a ticket")
    opener = b64url_decode(secret)
    if (
        not key
        or not key.isascii()
        or opener is None
        or len(opener) not in (16, 24, 32)
    ):
        raise SealError("expected a ticket with a key and a secret")
    return Ticket(key.decode("ascii"), opener)


def _encrypt(cipher: AES, plain: bytes, iv: bytes) -> bytes:
    if len(iv) != IV_SIZE:
        raise ValueError(f"expected an initialization vector of {IV_SIZE} bytes")
    encryptor = Cipher(cipher, CFB(iv)).encryptor()
    return iv + encryptor.update(plain) + encryptor.finalize()


def _decrypt(cipher: AES, payload: bytes) -> bytes:
    if len(payload) < IV_SIZE:
        raise SealError("expected an initialization vector")
    decryptor = Cipher(cipher, CFB(payload[:IV_SIZE])).decryptor()
    return decryptor.update(payload[IV_SIZE:]) + decryptor.finalize()


def _compress(record: bytes) -> bytes:
    """One LZ4 frame that begins as Go's writer begins it: 04224d18 6440 a7."""
    frame: bytes = lz4.frame.compress(
        record,
        block_size=lz4.frame.BLOCKSIZE_MAX64KB,
        block_linked=False,
        content_checksum=True,
        store_size=False,
    )
    return frame


def _decompress(frame: bytes) -> bytes:
    """The content of exactly one whole LZ4 frame, at most `MAX_RECORD` bytes."""
    decompressor = lz4.frame.LZ4FrameDecompressor()
    try:
        record: bytes = decompressor.decompress(frame, max_length=MAX_RECORD_BYTES)
    except RuntimeError:
        raise SealError("expected an LZ4 frame") from None
    if not decompressor.eof or decompressor.unused_data:
        raise SealError("expected one whole LZ4 frame within the size limit")
    return record


def _read_record(record: bytes, created_at: float) -> Session:
    found = _decode(_SESSION, record)
    created_at = _moment(found.ca) or created_at
    return Session(
        created_at=created_at,
        login_at=created_at,
        expires_at=_moment(found.eo),
        access_token=_text(found.at),
        id_token=_text(found.it),
        refresh_token=_text(found.rt),
        nonce=found.n or b"",
        email=_text(found.e),
        user=_text(found.u),
        groups=tuple(_text(group) for group in found.g or ()),
        preferred_username=_text(found.pu),
        claims=_read_claims(found.ac or {}),
    )


def _write_record(session: Session) -> bytes:
    """The map as Go writes it: keys in this order, nothing that is empty."""
    fields: dict[str, object] = {
        "ca": _timestamp(session.created_at),
        "eo": _timestamp(session.expires_at),
        "at": session.access_token,
        "it": session.id_token,
        "rt": session.refresh_token,
        "n": session.nonce,
        "e": session.email,
        "u": session.user,
        "g": session.groups,
        "pu": session.preferred_username,
        "ac": _claims(session.claims),
    }
    return msgspec.msgpack.encode(
        {key: field for key, field in fields.items() if field}
    )


def _decode(decoder: msgspec.msgpack.Decoder[T], record: bytes) -> T:
    try:
        return decoder.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise SealError("expected a MessagePack map of known fields") from None


def _text(value: object) -> str:
    """A string field: str, UTF-8 in bin, or nil for the empty one."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise SealError("expected UTF-8 in a text field") from None
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise SealError("expected text in a text field")


def _moment(timestamp: Ext | None) -> float:
    """Seconds since the epoch of a MessagePack timestamp, 0 for nil."""
    if timestamp is None:
        return 0.0
    data = bytes(timestamp.data)
    number = int.from_bytes(data, "big")
    match timestamp.code, len(data):
        case -1, 4:
            nanos, seconds = 0, number
        case -1, 8:
            nanos, seconds = number >> 34, number & (MAX_TIMESTAMP - 1)
        case -1, 12:
            nanos, seconds = number >> 64, number & ((1 << 64) - 1)
        case _:
            raise SealError("expected a timestamp of 4, 8 or 12 bytes")
    if nanos >= NANO or seconds >= 1 << 63:  # the sign bit: before 1970
        raise SealError("expected a timestamp after 1970")
    return seconds + nanos / NANO


def _timestamp(moment: float) -> Ext | None:
    """The shortest timestamp of *moment* (seconds); None for 0, which is not written."""
    if not 0 <= moment < 1 << 63:
        raise ValueError(f"expected a moment after 1970, got {moment!r}")
    whole = int(moment)
    seconds, nanos = divmod(whole * NANO + round((moment - whole) * NANO), NANO)
    if not seconds and not nanos:
        return None
    if not nanos and seconds < 1 << 32:
        return Ext(-1, seconds.to_bytes(4, "big"))
    if seconds < MAX_TIMESTAMP:
        return Ext(-1, (nanos << 34 | seconds).to_bytes(8, "big"))
    return Ext(-1, (nanos << 64 | seconds).to_bytes(12, "big"))


def _read_claims(claims: Mapping[str, object]) -> dict[str, Any]:
    try:
        return _claims(claims)
    except ValueError:
        raise SealError("expected claims of JSON's kinds") from None


def _claims(claims: Mapping[str, object]) -> dict[str, Any]:
    """Claims as oauth2-proxy keeps them: without nulls, numbers as their JSON text."""
    return {
        name: _claim(value, MAX_CLAIM_DEPTH)
        for name, value in claims.items()
        if value is not None
    }


def _claim(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list | tuple) and depth:
        return [_claim(item, depth - 1) for item in value]
    if isinstance(value, Mapping) and depth:
        return {_key(key): _claim(item, depth - 1) for key, item in value.items()}
    raise ValueError("expected JSON's kinds of values, nested a few levels")


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    raise ValueError("expected text as the name of a claim")
