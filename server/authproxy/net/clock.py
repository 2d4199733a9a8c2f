"""The worker's coarse clock: what changes once a second is computed once a second.

`Clock.tick` is called by the worker's sweep; everything else only reads attributes, so
that neither the time-outs nor the Date field cost anything per request.
"""

from __future__ import annotations

import time
from collections.abc import Callable

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


class Clock:
    """Coarse time: ``now`` (monotonic seconds), ``date`` and ``timestamp``.

    ``date`` is the whole Date field with its line end (RFC 9110 §5.6.7), and
    ``timestamp`` is the one of the log lines, in ``local_time`` or UTC.
    """

    __slots__ = (
        "_monotonic",
        "_precise",
        "_precise_for",
        "_second",
        "_wall",
        "date",
        "local_time",
        "now",
        "timestamp",
    )

    def __init__(
        self,
        *,
        local_time: bool = True,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.local_time = local_time
        self._wall = wall
        self._monotonic = monotonic
        self._second = -1
        self._precise_for = (-1, False)
        self._precise = ("", "")
        self.now = 0.0
        self.date = b""
        self.timestamp = ""
        self.tick()

    def tick(self) -> None:
        """Read the clocks; the texts are made anew when the second has changed."""
        self.now = self._monotonic()
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self.date = date_field(second)
            self.timestamp = log_timestamp(second, local_time=self.local_time)

    def rfc3339(self, before: float = 0.0) -> str:
        """The time *before* seconds ago with milliseconds and offset (RFC 3339)."""
        wall = self._wall() - before
        second = int(wall)
        made_for = second, self.local_time
        if made_for != self._precise_for:
            self._precise_for = made_for
            self._precise = rfc3339_parts(second, local_time=self.local_time)
        start, offset = self._precise
        return f"{start}.{int((wall - second) * 1000):03}{offset}"

    def seconds_to_next_tick(self) -> float:
        """Seconds until the texts change."""
        return 1.0 - self._wall() % 1.0


def date_field(second: float) -> bytes:
    """The Date field of an answer, with its line end."""
    year, month, day, hour, minute, sec, weekday, *_ = time.gmtime(second)
    return (
        f"Date: {DAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{sec:02} GMT\r\n"
    ).encode()


def log_timestamp(second: float, *, local_time: bool) -> str:
    """``YYYY/MM/DD HH:MM:SS``, in local time or UTC."""
    moment = time.localtime(second) if local_time else time.gmtime(second)
    return time.strftime("%Y/%m/%d %H:%M:%S", moment)


def rfc3339_parts(second: float, *, local_time: bool) -> tuple[str, str]:
    """What stands before and behind the fraction of an RFC 3339 time."""
    if not local_time:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)), "Z"
    moment = time.localtime(second)
    offset = time.strftime("%z", moment)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment), f"{offset[:3]}:{offset[3:]}"
