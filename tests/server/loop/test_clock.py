"""Clock: cached date and timestamp texts."""

from __future__ import annotations

from authproxy.loop.clock import Clock, date_field, log_timestamp


def test_clock_texts_change_once_per_second() -> None:
    wall = [784111777.0]
    clock = Clock(local_time=False, wall=lambda: wall[0], monotonic=lambda: 5.0)
    assert clock.date == b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert (clock.timestamp, clock.now) == ("1994/11/06 08:49:37", 5.0)
    wall[0] += 0.75
    before = clock.date
    clock.tick()
    assert clock.date is before
    assert clock.seconds_to_next_tick() == 0.25
    wall[0] += 0.25
    clock.tick()
    assert clock.date == date_field(784111778)
    assert clock.timestamp == log_timestamp(784111778, local_time=False)
