"""Secrets in settings: bytes that are never shown."""

from __future__ import annotations

import hmac


class Secret:
    """Bytes that are never shown; compared in constant time."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | str) -> None:
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
