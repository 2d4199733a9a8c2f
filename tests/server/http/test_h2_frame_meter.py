"""The meter of frames from HTTP/2 upstreams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.h2_frame_meter import FrameMeter


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 40))
def test_frame_meter_is_independent_of_packets(kinds: list[int], size: int) -> None:
    """The cost is independent of packet boundaries."""
    frames = b"".join(
        len(kind.to_bytes()).to_bytes(3) + bytes([kind, 0]) + b"\0\0\0\1" + b"x"
        for kind in kinds
    )
    data = b"x" * 24 + frames
    whole = FrameMeter(1000).cost(data)
    meter = FrameMeter(1000)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert sum(meter.cost(chunk) for chunk in chunks) == whole
    assert whole == sum({0: 0, 1: 0, 3: 5, 8: 0, 9: 0}.get(kind, 1) for kind in kinds)
