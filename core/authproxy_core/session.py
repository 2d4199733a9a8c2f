"""A user's session: who it is, what the provider gave, and until when it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct

Freshness: TypeAlias = Literal["fresh", "stale", "expired"]


class Session(Struct, frozen=True, kw_only=True):
    """What is kept of a login.

    Moments are float seconds since the epoch; ``expires_at`` 0 means that the provider
    named no end. ``created_at`` is reset by a refresh, ``login_at`` is not. ``nonce``
    is the raw OIDC nonce. ``claims`` holds additional claims that headers ask for.
    """

    provider: str = ""
    created_at: float = 0.0
    login_at: float = 0.0
    expires_at: float = 0.0
    access_token: str = ""
    id_token: str = ""
    refresh_token: str = ""
    nonce: bytes = b""
    user: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    preferred_username: str = ""
    claims: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        held = [
            name
            for name in ("access_token", "id_token", "refresh_token")
            if getattr(self, name)
        ]
        return (
            f"Session(user={self.user!r}, email={self.email!r}, "
            f"provider={self.provider!r}, holds={held})"
        )

    def freshness(self, now: float, *, refresh: float, lifetime: float) -> Freshness:
        """Whether the session can be used as it is at *now*.

        Past ``lifetime`` seconds after its creation it is expired (0: never); past
        ``refresh`` seconds it is stale (0: never).
        """
        age = now - self.created_at
        if lifetime and age >= lifetime:
            return "expired"
        if refresh and age > refresh:
            return "stale"
        return "fresh"

    @property
    def name(self) -> str:
        """How logs call the user: the e-mail, else the user."""
        return self.email or self.user
