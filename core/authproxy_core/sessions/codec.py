"""The record of a session that is sealed: MessagePack, packed tokens, LZ4.

A JWT is three base64url strings. Their decoded bytes are a quarter smaller, and because
the tokens of one login repeat the same claims, LZ4 halves them again in half a
microsecond. Most sessions then fit into one cookie, and each request has less to
decrypt. Packing is exact: a token that does not decode and encode to the same bytes is
stored unchanged.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any

import lz4.block
import msgspec
from msgspec import Struct

from ..encoding import TO_URL, b64url_decode
from ..errors import SealError
from ..session import Session

MAX_RECORD_BYTES = 1 << 20


class _Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=False):
    """The fields of a record in their order; new fields are appended."""

    provider: str
    created_at: float
    login_at: float
    expires_at: float
    access_token: str | list[bytes]
    id_token: str | list[bytes]
    refresh_token: str | list[bytes]
    nonce: bytes
    user: str
    email: str
    groups: tuple[str, ...]
    preferred_username: str
    claims: Mapping[str, Any]
    sid: str = ""
    last_used_at: float = 0.0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Record)


def encode_session(session: Session) -> bytes:
    """Return the record of *session*, to be sealed."""
    record = _ENCODER.encode(
        _Record(
            session.provider,
            session.created_at,
            session.login_at,
            session.expires_at,
            _pack(session.access_token),
            _pack(session.id_token),
            _pack(session.refresh_token),
            session.nonce,
            session.user,
            session.email,
            session.groups,
            session.preferred_username,
            session.claims,
            session.sid,
            session.last_used_at,
        )
    )
    compressed: bytes = lz4.block.compress(record)
    return compressed


def decode_session(data: bytes) -> Session:
    """Return the session of an unsealed record; raises `SealError` if it is invalid."""
    # LZ4 allocates the size that the first four bytes declare.
    if int.from_bytes(data[:4], "little") > MAX_RECORD_BYTES:
        raise SealError("session record too large")
    try:
        record = _DECODER.decode(lz4.block.decompress(data))
    except (lz4.block.LZ4BlockError, ValueError, RecursionError):
        raise SealError("session record has an unknown layout") from None
    return Session(
        provider=record.provider,
        created_at=record.created_at,
        login_at=record.login_at,
        expires_at=record.expires_at,
        access_token=_unpack(record.access_token),
        id_token=_unpack(record.id_token),
        refresh_token=_unpack(record.refresh_token),
        nonce=record.nonce,
        user=record.user,
        email=record.email,
        groups=record.groups,
        preferred_username=record.preferred_username,
        claims=record.claims,
        sid=record.sid,
        last_used_at=record.last_used_at,
    )


def _pack(token: str) -> str | list[bytes]:
    segments = [b64url_decode(part.encode()) for part in token.split(".")]
    packed = [segment for segment in segments if segment is not None]
    return packed if len(packed) == len(segments) > 1 else token


def _unpack(token: str | list[bytes]) -> str:
    if isinstance(token, str):
        return token
    parts = [b2a_base64(segment, newline=False).rstrip(b"=") for segment in token]
    return b".".join(parts).translate(TO_URL).decode()
