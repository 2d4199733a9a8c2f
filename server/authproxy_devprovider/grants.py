"""What the provider remembers between requests: logins, codes and tokens.

All times are seconds since the epoch. Nothing outlives its time: each table drops what
has ended whenever something is added.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct, field

from .config import Client, User

V = TypeVar("V")


class Authorization(Struct, kw_only=True, frozen=True):
    """A checked authorization request (RFC 6749 §4.1.1, OIDC Core §3.1.2.1)."""

    client: Client
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str = ""
    nonce: str = ""
    code_challenge: str = ""
    code_challenge_method: str = ""
    response_mode: str = "query"


class Login(Struct, kw_only=True, eq=False):
    """One login of a user at a client: a family of codes and tokens.

    Once ``revoked``, nothing that was issued for it works any more.
    """

    sid: str
    user: User
    authorization: Authorization
    auth_time: float
    revoked: bool = False
    code_used: bool = False
    used_refresh_tokens: set[str] = field(default_factory=set)


class Expiring(Generic[V]):
    """A dict whose entries end by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, V]] = {}

    def put(self, key: str, value: V, *, now: float, lifetime: float) -> None:
        """Remember *value* until *now* + *lifetime*."""
        self._entries = {
            name: entry for name, entry in self._entries.items() if entry[0] > now
        }
        self._entries[key] = (now + lifetime, value)

    def get(self, key: str, *, now: float) -> V | None:
        """The value under *key*, None when there is none or it has ended."""
        expires_at, value = self._entries.get(key, (0.0, None))
        return value if expires_at > now else None

    def values(self) -> list[V]:
        """All values, ended ones included until the next `put`."""
        return [value for _, value in self._entries.values()]
