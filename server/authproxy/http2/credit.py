"""The cost of frames: credit against floods, work against long callbacks.

A connection has credit, which refills with time and with what it accomplishes: each
response and each DATA frame that the client lets authproxy send earn some. Frames that
cause work without progress spend it, and a connection without credit is closed. Normal
clients send a few WINDOW_UPDATE and PING frames per DATA frame and cancel few requests.

Work is counted in units of about a microsecond, and limits what a callback handles.
"""

from __future__ import annotations

from .frames import ConnectionFault, ErrorCode

MAX_CREDIT = 1000
CREDIT_PER_SECOND = 100
EARNED_BY_DATA = 4  # unless the client's window keeps the frame small
EARNED_BY_RESPONSE = 2
RESET_COST = 10  # of a canceled request, or a stream error that the client causes
REFUSAL_COST = 2  # of a request above the limit of concurrent requests
TINY_BYTES = 8  # smaller DATA frames cost 1
SMALL_FRAGMENT_BYTES = 1024  # smaller parts of an unfinished header block cost 1
SLOW_BYTES_PER_COST = 64  # of HPACK strings with rare characters
SETTINGS_PER_COST = 8

REQUEST_WORK = 40
EXCHANGE_WORK = 160  # of a request that is not answered at once
BLOCK_BYTES_PER_WORK = 128
SLOW_BYTES_PER_WORK = 4
TURN_WORK = 32 * REQUEST_WORK  # about 1 ms


class Credit:
    """The credit of one connection."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = float(MAX_CREDIT)

    def spend(self, cost: int) -> None:
        """Subtract *cost*; raises `ConnectionFault` if too little is left."""
        self.left -= cost
        if self.left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "frame flood")

    def earn(self, amount: float) -> None:
        """Add *amount* up to the maximum."""
        self.left = min(MAX_CREDIT, self.left + amount)
