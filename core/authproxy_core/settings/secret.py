"""Secrets in settings: bytes that no log, error or representation shows."""

from __future__ import annotations

import hmac

from ..errors import SettingsError


class Secret:
    """Bytes that are never shown and that are compared in constant time.

    Raises `SettingsError` for a *value* that is neither bytes nor text (kept as UTF-8).
    """

    __slots__ = ("value",)

    def __init__(self, value: bytes | str) -> None:
        if not isinstance(value, str | bytes):
            got = type(value).__name__
            raise SettingsError(
                (f"Secret: got {got} (not shown), expected str or bytes",)
            )
        self.value = value.encode() if isinstance(value, str) else value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __bool__(self) -> bool:
        return bool(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(
            self.value, other.value
        )

    def __hash__(self) -> int:
        return hash((Secret, self.value))
