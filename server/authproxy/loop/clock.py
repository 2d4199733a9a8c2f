"""Coarse clock of a worker: cached monotonic time, Date field and log timestamp.

The worker calls `Clock.tick` periodically. All other code only reads attributes, so
timeouts and the Date field cost nothing per request.
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
    """Time of the last `tick`: ``now`` (monotonic seconds), ``date``, ``timestamp``.

    ``date`` is the Date field with CRLF (RFC 9110 §5.6.7). ``timestamp`` is for log
    lines, in local time if ``local_time`` is set, else in UTC.
    """

    __slots__ = (
        "_monotonic",
        "_rfc3339",
        "_rfc3339_key",
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
        self._rfc3339_key = (-1, False)
        self._rfc3339 = ("", "")
        self.now = 0.0
        self.date = b""
        self.timestamp = ""
        self.tick()

    def tick(self) -> None:
        """Read the clocks; format the texts again if the second has changed."""
        self.now = self._monotonic()
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self.date = date_field(second)
            self.timestamp = log_timestamp(second, local_time=self.local_time)

    def rfc3339(self, before: float = 0.0) -> str:
        """Return the time *before* seconds ago (RFC 3339), with milliseconds."""
        wall = self._wall() - before
        second = int(wall)
        key = second, self.local_time
        if key != self._rfc3339_key:
            self._rfc3339_key = key
            self._rfc3339 = rfc3339_parts(second, local_time=self.local_time)
        start, offset = self._rfc3339
        return f"{start}.{int((wall - second) * 1000):03}{offset}"

    def seconds_to_next_tick(self) -> float:
        """Return the seconds until ``date`` and ``timestamp`` change."""
        return 1.0 - self._wall() % 1.0


def date_field(second: float) -> bytes:
    """Return the Date field with CRLF."""
    year, month, day, hour, minute, sec, weekday, *_ = time.gmtime(second)
    return (
        f"Date: {DAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{sec:02} GMT\r\n"
    ).encode()


def log_timestamp(second: float, *, local_time: bool) -> str:
    """Return ``YYYY/MM/DD HH:MM:SS`` in local time or UTC."""
    fields = time.localtime(second) if local_time else time.gmtime(second)
    return time.strftime("%Y/%m/%d %H:%M:%S", fields)


def rfc3339_parts(second: float, *, local_time: bool) -> tuple[str, str]:
    """Return the parts of an RFC 3339 time before and after the fraction."""
    if not local_time:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)), "Z"
    fields = time.localtime(second)
    offset = time.strftime("%z", fields)
    return time.strftime("%Y-%m-%dT%H:%M:%S", fields), f"{offset[:3]}:{offset[3:]}"
