"""A session as the bytes that are sealed: MessagePack, tokens packed, compressed.

A JWT is three base64url texts. Kept as the bytes that they stand for, they are a
quarter smaller, and since the tokens of one login say much the same, LZ4 halves them
again for half a microsecond. So most sessions need one cookie, and less has to be
decrypted on each request. Packing is exact: a token that does not come back byte for
byte is kept as it is.
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

MAX_RECORD_BYTES = 1 << 20  # bytes


class _Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=False):
    """The record's fields in their order; new ones go to the end."""

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
    seen_at: float = 0.0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Stored)


def encode_session(session: Session) -> bytes:
    """The bytes of a session, to be sealed."""
    record = _ENCODER.encode(
        _Stored(
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
    """The session in unsealed bytes; raises `SealError` for another layout."""
    # LZ4 allocates what the first four bytes say.
    if int.from_bytes(data[:4], "little") > MAX_RECORD_BYTES:
        raise SealError("the session is too large")
    try:
        stored = _DECODER.decode(lz4.block.decompress(data))
    except (lz4.block.LZ4BlockError, ValueError, RecursionError):
        raise SealError("the session is of another layout") from None
    return Session(
        provider=stored.provider,
        created_at=stored.created_at,
        login_at=stored.login_at,
        expires_at=stored.expires_at,
        access_token=_unpack(stored.access_token),
        id_token=_unpack(stored.id_token),
        refresh_token=_unpack(stored.refresh_token),
        nonce=stored.nonce,
        user=stored.user,
        email=stored.email,
        groups=stored.groups,
        preferred_username=stored.preferred_username,
        claims=stored.claims,
        sid=stored.sid,
        last_used_at=stored.seen_at,
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
