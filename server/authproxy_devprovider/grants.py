"""State of the provider between requests: logins, codes and tokens.

All times are seconds since the epoch. Each table drops its expired entries whenever an
entry is added.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct, field

from .config import Client, User

V = TypeVar("V")


class Authorization(Struct, kw_only=True, frozen=True):
    """A valid authorization request (RFC 6749 §4.1.1, OIDC Core §3.1.2.1)."""

    client: Client
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str = ""
    nonce: str = ""
    code_challenge: str = ""
    code_challenge_method: str = ""
    response_mode: str = "query"
    acr_values: str = ""


class Login(Struct, kw_only=True, eq=False):
    """One login of a user at a client: a family of codes and tokens.

    Once it is ``revoked``, its codes and tokens are invalid.
    """

    sid: str
    user: User
    authorization: Authorization
    auth_time: float
    revoked: bool = False
    code_used: bool = False
    used_refresh_tokens: set[str] = field(default_factory=set)


class ExpiringDict(Generic[V]):
    """A dict with expiring entries."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, V]] = {}

    def put(self, key: str, value: V, *, now: float, lifetime: float) -> None:
        """Store *value* until *now* + *lifetime*."""
        self._entries = {
            name: entry for name, entry in self._entries.items() if entry[0] > now
        }
        self._entries[key] = (now + lifetime, value)

    def get(self, key: str, *, now: float) -> V | None:
        """Return the value of *key*; None if it is absent or expired."""
        expires_at, value = self._entries.get(key, (0.0, None))
        return value if expires_at > now else None

    def values(self) -> list[V]:
        """Return all values, including expired ones until the next `put`."""
        return [value for _, value in self._entries.values()]
