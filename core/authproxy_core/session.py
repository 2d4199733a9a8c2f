"""A user's session: who it is, what the provider gave, and until when it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Session(Struct, frozen=True, kw_only=True):
    """What is kept of a login.

    Moments are float seconds since the epoch; ``expires_at`` 0 means that the provider
    named no end. ``created_at`` is reset by a refresh, ``login_at`` is not. ``nonce``
    is the raw OIDC nonce; it stays the same for the session's whole life, so it also
    tells one session from another. ``claims`` holds additional claims that headers ask
    for, ``sid`` is the session's name at the provider (Back-Channel Logout §2.1), and
    ``last_used_at`` the moment of a request that was noted last, 0 for none.
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
    sid: str = ""
    last_used_at: float = 0.0

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

    @property
    def name(self) -> str:
        """How logs call the user: the e-mail, else the user."""
        return self.email or self.user
