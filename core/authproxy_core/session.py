"""The session of a user: identity, tokens and timestamps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Session(Struct, frozen=True, kw_only=True):
    """A session as it is sealed into cookies or a store.

    Timestamps are float seconds since the epoch. ``expires_at`` is 0 if the provider
    named no expiry. A refresh resets ``created_at`` but not ``login_at``. ``nonce`` is
    the raw OIDC nonce; it never changes, so it also identifies the session. ``claims``
    holds the additional claims that injected headers or access rules need, ``sid`` is
    the provider's session ID (Back-Channel Logout §2.1), and ``last_used_at`` is the
    time of the last recorded request (0: none).
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
        """The user in logs: the email address, else the user ID."""
        return self.email or self.user
