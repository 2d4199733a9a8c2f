"""The Authorization field: bearer JWTs and Basic credentials (RFC 9110 §11.6.2).

Parsing is as strict as in oauth2-proxy: one space between scheme and credentials, and
the scheme in its usual spelling.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

from ..messages import Header, header_values

FIELD = b"authorization"
MAX_CREDENTIALS = 32 << 10  # bytes of the field's value
MAX_PASSWORD = 1024  # bytes of user name and password each

_JWT = re.compile(rb"ey[A-Za-z0-9_-]*\.ey[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+")
_PLACEHOLDERS = (b"", b"x-oauth-basic")


class Bearer(Struct, frozen=True):
    """A token in the form of a JWT, not verified."""

    token: str

    def __repr__(self) -> str:
        return "Bearer(...)"


class Basic(Struct, frozen=True):
    """A user name and a password (RFC 7617)."""

    user: str
    password: bytes

    def __repr__(self) -> str:
        return f"Basic(user={self.user!r})"


class Unusable(Struct, frozen=True):
    """Credentials of another scheme, malformed, or too long."""


Credentials: TypeAlias = Bearer | Basic | Unusable | None


def field_of(headers: Iterable[Header]) -> bytes | None:
    """Return the field's value; b"" if it is repeated, None if it is absent."""
    values = header_values(headers, FIELD)
    if len(values) > 1:
        return b""  # servers disagree on which one counts
    return values[0] if values else None


def bearer_of(value: bytes | None) -> Credentials:
    """Return the JWT in a field's *value*: bearer, or user name or password of Basic."""
    if value is None:
        return None
    scheme, credentials = _split(value)
    if scheme == b"Bearer" and _JWT.fullmatch(credentials):
        return Bearer(credentials.decode())
    pair = _pair(credentials) if scheme == b"Basic" else None
    if pair is None:
        return Unusable()
    user, password = pair
    if _JWT.fullmatch(user):
        return Bearer(user.decode()) if password in _PLACEHOLDERS else Unusable()
    return Bearer(password.decode()) if _JWT.fullmatch(password) else Unusable()


def basic_of(value: bytes | None) -> Credentials:
    """Return the user name and password in a field's *value*."""
    if value is None:
        return None
    scheme, credentials = _split(value)
    pair = _pair(credentials) if scheme == b"Basic" else None
    return Unusable() if pair is None else basic(*pair)


def basic(user: bytes, password: bytes) -> Basic | Unusable:
    """Return valid credentials for a user name and a password from any source."""
    if max(len(user), len(password)) > MAX_PASSWORD:
        return Unusable()
    try:
        name = user.decode()
    except UnicodeDecodeError:
        return Unusable()
    return Basic(name, password) if name.isprintable() else Unusable()


def _split(value: bytes) -> tuple[bytes, bytes]:
    if len(value) > MAX_CREDENTIALS or value.count(b" ") != 1:
        return b"", b""
    scheme, _, credentials = value.partition(b" ")
    return scheme, credentials


def _pair(credentials: bytes) -> tuple[bytes, bytes] | None:
    try:
        decoded = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = decoded.partition(b":")
    return (user, password) if colon else None
