"""Request IDs for logs and error pages.

A valid ID from the gateway is used; otherwise a random UUID is generated. Random bytes
are drawn for many IDs at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

SENT_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
IDS_PER_DRAW = 256
ID_BYTES = 16
VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class RequestIds:
    """Source of request IDs; create it after forking, else workers share the IDs."""

    __slots__ = ("_at", "_pool", "_random")

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random_bytes
        self._pool = ""
        self._at = 0

    def generate(self) -> str:
        """Return a new random UUID, version 4 (RFC 9562 §5.4)."""
        at = self._at
        if at >= len(self._pool):
            self._pool = self._random(IDS_PER_DRAW * ID_BYTES).hex()
            at = 0
        self._at = at + 2 * ID_BYTES
        text = self._pool[at : at + 2 * ID_BYTES]
        return (
            f"{text[:8]}-{text[8:12]}-4{text[13:16]}"
            f"-{VARIANTS[text[16]]}{text[17:20]}-{text[20:]}"
        )

    def choose(self, sent: bytes | None) -> str:
        """Return the *sent* ID if it is valid, else a new one."""
        if sent is not None and SENT_ID.fullmatch(sent):
            return sent.decode("ascii")
        return self.generate()
