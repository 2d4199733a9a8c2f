"""Floods of frames: each has a cost, a turn is short, memory is bounded.

Nothing here reads a clock: credit refills only in `check_timeouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hpack import Encoder

from authproxy.http2 import credit as costs
from authproxy.http2 import frames
from authproxy.http2.frames import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    PADDED,
    PRIORITY,
    ConnectionFault,
    ErrorCode,
    frame,
    settings,
    window_update,
)
from authproxy.http2.streams import MAX_DISCARDED
from support.h2_frames import PING, START, Peer, data, reset

CALM = ErrorCode.ENHANCE_YOUR_CALM
Flood = Callable[[Peer], Iterator[bytes]]


def numbers() -> Iterator[int]:
    return count(101, 2)


def repeated(payload: bytes) -> Flood:
    """Return the flood of one frame, over and over; stream 1 is open."""

    def flood(peer: Peer) -> Iterator[bytes]:
        while True:
            yield payload

    return flood


def rapid_reset(peer: Peer) -> Iterator[bytes]:
    """CVE-2023-44487."""
    for number in numbers():
        yield peer.headers(number) + reset(number)


def made_you_reset(peer: Peer) -> Iterator[bytes]:
    """CVE-2025-8671: the server resets, so the streams never count as canceled."""
    for number in numbers():
        yield peer.headers(number) + window_update(number, 0)


def data_after_end(peer: Peer) -> Iterator[bytes]:
    for number in numbers():
        yield peer.headers(number) + data(number, b"x")


def refused_requests(peer: Peer) -> Iterator[bytes]:
    peer.protocol.running = 1000
    for number in numbers():
        yield peer.headers(number)


def tiny_on_refused_streams(peer: Peer) -> Iterator[bytes]:
    peer.protocol.running = 1000
    yield peer.headers(101, ends=False)
    while True:
        yield data(101, b"x")


def settings_of_many_values(peer: Peer) -> Iterator[bytes]:
    while True:
        yield settings(dict.fromkeys(range(100, 2000), 1))


def rare_characters(peer: Peer) -> Iterator[bytes]:
    encoder = Encoder()
    encoder.header_table_size = 0
    for number in numbers():
        block = encoder.encode([*START, (b"x", b"\xff" * 2000)], huffman=True)
        yield frame(HEADERS, END_HEADERS | 1, number, block) + reset(number)


def windows_opened_and_closed(peer: Peer) -> Iterator[bytes]:
    """Each change concerns all open streams."""
    yield b"".join(peer.headers(number) for number in range(101, 281, 2))
    while True:
        yield settings({4: 0}) + settings({4: 1 << 20})


FLOODS: dict[str, Flood] = {
    "ping": repeated(frames.ping(PING)),
    "ping ack": repeated(frames.ping(PING, ack=True)),
    "settings": repeated(settings({})),
    "settings ack": repeated(frames.SETTINGS_ACK),
    "settings of many values": settings_of_many_values,
    "windows opened and closed": windows_opened_and_closed,
    "priority": repeated(frame(PRIORITY, 0, 9, bytes(5))),
    "priority of an idle stream": repeated(frame(PRIORITY, 0, 9999, bytes(5))),
    "unknown": repeated(frame(99, 0, 0, b"x" * 100)),
    "goaway": repeated(frames.goaway(0, ErrorCode.NO_ERROR)),
    "window update": repeated(window_update(0, 1)),
    "window update of a stream": repeated(window_update(1, 1)),
    "window update of a closed stream": repeated(window_update(3, 1)),
    "empty window update of a closed stream": repeated(window_update(3, 0)),
    "empty data": repeated(data(1, b"")),
    "tiny data": repeated(data(1, b"x")),
    "padded data": repeated(frame(frames.DATA, PADDED, 1, b"\xfe" + bytes(254))),
    "tiny data on refused streams": tiny_on_refused_streams,
    "reset of a closed stream": repeated(reset(3)),
    "rapid reset": rapid_reset,
    "made you reset": made_you_reset,
    "data after the end": data_after_end,
    "refused requests": refused_requests,
    "rare characters": rare_characters,
}


def overrun(peer: Peer, flood: Iterator[bytes]) -> None:
    """Let the server handle *flood*, as if the application took all body data."""
    for sent, received in enumerate(flood):
        assert sent <= costs.MAX_CREDIT + 10
        peer.protocol.receive(received)
        while peer.protocol.process():
            pass
        for stream in peer.protocol.streams.values():
            stream.receive_window = 1 << 20
        peer.protocol._receive_window = 1 << 20


@pytest.mark.parametrize("name", FLOODS)
def test_flood_is_closed_early(name: str) -> None:
    """And what it has caused until then is little: frames, events, memory."""
    peer = Peer()
    peer.send(peer.headers(1, ends=False) + peer.headers(3) + reset(3))
    peer.protocol.acknowledge = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(ConnectionFault) as fault:
        overrun(peer, FLOODS[name](peer))
    assert fault.value.code == CALM
    assert len(peer.output()) <= 2 * costs.MAX_CREDIT + 10
    assert len(peer.protocol.streams) <= 100


@pytest.mark.parametrize("fragment", [b"", b"x", b"x" * 1000, b"x" * 16_000])
def test_flood_of_continuations_is_closed(fragment: bytes) -> None:
    """By number and by size; the parts are joined once."""
    peer = Peer()
    peer.send(frame(HEADERS, 0, 1, b"\x82"))
    flood = repeated(frame(CONTINUATION, 0, 1, fragment))
    with pytest.raises(ConnectionFault) as fault:
        overrun(peer, flood(peer))
    assert fault.value.code == CALM
    assert sum(map(len, peer.protocol._block)) < (64 << 10) + len(fragment) + 1


def test_usual_frames_cost_little() -> None:
    """Uploads, downloads with updates per frame, a few cancels: the credit stays."""
    peer = Peer()
    credit, sender = peer.protocol.credit, peer.protocol.sender
    for number in range(1, 2001, 2):
        peer.send(peer.headers(number, ends=False))
        stream = peer.stream(number)
        for size in (16_384, 9, 700):
            peer.send(data(number, b"x" * size))
            peer.protocol.acknowledge(stream, size)
        peer.send(data(number, b"", ends=True))
        peer.protocol.send_head(stream, b"\x88", ends=False)
        if number % 20 == 1:
            peer.send(reset(number))
            continue
        sender.send_data(stream, b"y" * 40_000, ends=True)
        while stream.unsent:
            peer.send(window_update(0, 16_384) + window_update(number, 16_384))
        peer.send(window_update(0, 40_000 - 16_384) + frames.ping(PING))
        credit.earn(costs.EARNED_BY_RESPONSE)
    assert credit.left > costs.MAX_CREDIT // 2


def test_turn_handles_a_bounded_number_of_frames() -> None:
    """The rest is left for the next turn, in the order of arrival."""
    peer = Peer()
    requests = b"".join(peer.headers(number) for number in range(1, 161, 2))
    peer.protocol.receive(requests)
    seen = []
    while peer.protocol.process():
        seen.append(len(peer.seen))
        assert seen[-1] - sum(seen[-2:-1]) <= costs.TURN_WORK // costs.REQUEST_WORK
    assert len(seen) > 1
    assert [one[1] for one in peer.seen] == list(range(1, 161, 2))
    peer.protocol.credit.left = 1e9
    peer.protocol.receive(window_update(0, 1) * 10_000)
    turns = 1
    while peer.protocol.process():
        turns += 1
    assert turns >= 10_000 // costs.TURN_WORK


def test_window_update_wakes_only_what_it_allows() -> None:
    """100 responses wait for the connection's window: one frame per update."""
    peer = Peer()
    peer.send(b"".join(peer.headers(number) for number in range(1, 181, 2)))
    sender = peer.protocol.sender
    sender.window = 0
    for stream in peer.protocol.streams.values():
        sender.send_data(stream, b"x" * 5000, ends=True)
    for _ in range(50):
        assert len(peer.send(window_update(0, 1))) == 1


def test_reset_streams_are_forgotten() -> None:
    """Late frames are ignored for the last ones; older ones are errors."""
    peer = Peer()
    peer.protocol.running = 1000
    for number in range(1, 2 * MAX_DISCARDED + 3, 2):
        peer.protocol.credit.left = 1000.0
        peer.send(peer.headers(number, ends=False))
    assert len(peer.protocol._discarded._numbers) == MAX_DISCARDED
    assert peer.send(data(3, b"late data")) == []
    with pytest.raises(ConnectionFault):
        peer.send(data(1, b"too late"))
