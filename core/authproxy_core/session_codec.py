"""A session as the bytes that are sealed: MessagePack, tokens packed.

A JWT is three base64url texts. Kept as the bytes that they stand for, a session is a
quarter smaller, and so is the cookie, and less has to be decrypted on each request.
Packing is exact: a token that does not come back byte for byte is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from .encoding import b64url, b64url_decode
from .errors import SealError
from .session import Session


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


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Stored)


def encode_session(session: Session) -> bytes:
    """The bytes of a session, to be sealed."""
    return _ENCODER.encode(
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
        )
    )


def decode_session(data: bytes) -> Session:
    """The session in unsealed bytes; raises `SealError` for another layout."""
    try:
        stored = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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
    )


def _pack(token: str) -> str | list[bytes]:
    segments = [b64url_decode(part.encode()) for part in token.split(".")]
    packed = [segment for segment in segments if segment is not None]
    return packed if len(packed) == len(segments) > 1 else token


def _unpack(token: str | list[bytes]) -> str:
    if isinstance(token, str):
        return token
    return b".".join([b64url(segment) for segment in token]).decode()
