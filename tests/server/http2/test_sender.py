"""Frames to send: windows, turns of the streams, bounded memory."""

from __future__ import annotations

import itertools

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http2 import frames, hpack_encoder
from authproxy.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME_BYTES,
    RST_STREAM,
    ErrorCode,
    settings,
    window_update,
)
from authproxy.http2.sender import MAX_BATCH_BYTES
from support.h2_frames import Frame, Peer, data, reset

WINDOW = frames.DEFAULT_WINDOW


def opened(*numbers: int, ends: bool = True) -> Peer:
    """Return a peer with open requests."""
    peer = Peer()
    peer.send(b"".join(peer.headers(number, ends=ends) for number in numbers))
    return peer


def bodies(sent: list[Frame]) -> dict[int, bytes]:
    """Return the data of each stream."""
    found: dict[int, bytes] = {}
    for one in sent:
        assert len(one.payload) <= MAX_FRAME_BYTES
        if one.kind == DATA:
            found[one.stream] = found.get(one.stream, b"") + one.payload
    return found


def test_sender_whole_response_in_two_frames() -> None:
    peer = opened(1)
    sender = peer.protocol.sender
    block = hpack_encoder.encode_status(200)
    assert sender.send_response(1, block, b"OK")
    head, body = peer.output()
    assert (head.kind, head.flags) == (HEADERS, END_HEADERS)
    # The first block announces that the encoder has no dynamic table.
    assert head.payload == b"\x20\x88"
    assert (body.kind, body.flags, body.payload) == (DATA, END_STREAM, b"OK")
    assert sender.window == WINDOW - 2
    sender.send_head(1, block, ends=True)
    assert [(one.flags, one.payload) for one in peer.output()] == [
        (END_HEADERS | END_STREAM, b"\x88")
    ]


def test_sender_response_larger_than_a_window_not_sent() -> None:
    peer = opened(1)
    peer.send(settings({frames.INITIAL_WINDOW_SIZE: 10}))
    sender = peer.protocol.sender
    assert not sender.send_response(3, b"\x88", b"x" * 11)
    assert peer.output() == []
    assert sender.send_response(3, b"\x88", b"x" * 10)
    sender.window = 0
    assert not sender.send_response(5, b"\x88", b"x")
    assert sender.send_response(5, b"\x88", b"")


def test_sender_long_head_in_continuations() -> None:
    peer = opened(1)
    fields = [(b"x-%d" % n, b"y" * 9000) for n in range(4)]
    block = b"\x88" + hpack_encoder.encode_fields(fields)
    peer.protocol.send_head(peer.stream(1), block, ends=True)
    parts = peer.output()
    assert [one.kind for one in parts] == [HEADERS, CONTINUATION, CONTINUATION]
    assert [one.flags for one in parts] == [END_STREAM, 0, END_HEADERS]
    decoder = Decoder(max_header_list_size=1 << 20)
    decoded = decoder.decode(b"".join(one.payload for one in parts), raw=True)
    assert decoded == [(b":status", b"200"), *fields]


def test_sender_body_waits_for_both_windows() -> None:
    peer = opened(1)
    stream, sender = peer.stream(1), peer.protocol.sender
    body = bytes(range(256)) * 1024
    sender.send_data(stream, body, ends=True)
    received = bodies(peer.output())[1]
    assert len(received) == WINDOW
    assert peer.send(window_update(1, 1 << 20)) == []  # the connection's is used up
    for increment in (1, 100_000, 1 << 20):
        received += bodies(peer.send(window_update(0, increment))).get(1, b"")
    assert received == body
    assert peer.seen[-1] == ("sent", 1)
    assert peer.protocol.streams == {}


def test_sender_settings_change_open_windows() -> None:
    """§6.9.2: by the difference; a window may become negative."""
    peer = opened(1)
    stream, sender = peer.stream(1), peer.protocol.sender
    sender.send_data(stream, b"x" * WINDOW, ends=False)
    peer.output()
    peer.send(window_update(0, WINDOW) + settings({frames.INITIAL_WINDOW_SIZE: 0}))
    assert stream.send_window == -WINDOW
    sender.send_data(stream, b"y" * 10, ends=True)
    assert peer.send(window_update(1, WINDOW)) == []
    assert bodies(peer.send(window_update(1, 3))) == {1: b"yyy"}
    change = settings({frames.INITIAL_WINDOW_SIZE: 7})
    assert bodies(peer.send(change)) == {1: b"y" * 7}


def test_sender_streams_take_turns() -> None:
    peer = opened(1, 3, 5)
    sender = peer.protocol.sender
    sender.window = 0
    for number in (1, 3, 5):
        sender.send_data(peer.stream(number), b"x" * (3 * MAX_FRAME_BYTES), ends=True)
    sent = peer.send(window_update(0, 1 << 20))
    assert [one.stream for one in sent] == [1, 3, 5, 1, 3, 5, 1, 3, 5][: len(sent)]
    assert sum(len(one.payload) for one in sent) >= MAX_BATCH_BYTES
    assert sender.pump() is False
    assert len(sent) + len(peer.output()) == 9


def test_sender_sends_nothing_while_blocked() -> None:
    """The transport is full: data waits, and no further request is handled."""
    peer = opened(1)
    sender = peer.protocol.sender
    sender.blocked = True
    sender.send_data(peer.stream(1), b"x", ends=True)
    peer.protocol.receive(peer.headers(3) + data(5, b"x"))
    assert peer.protocol.process()
    assert peer.output() == []
    assert peer.seen == [("request", 1, True)]
    sender.blocked = False
    sender.pump()
    assert bodies(peer.output()) == {1: b"x"}


def test_sender_complete_response_ends_unread_body() -> None:
    """§8.1: NO_ERROR; the late rest of the body is ignored."""
    peer = opened(1, ends=False)
    peer.protocol.sender.send_data(peer.stream(1), b"x", ends=True)
    body, end = peer.output()
    assert (body.flags, end.kind, end.code) == (END_STREAM, RST_STREAM, 0)
    assert peer.send(data(1, b"y" * 100) + data(1, b"", ends=True)) == []


@pytest.mark.parametrize("how", ["client", "server"])
def test_sender_reset_stream_drops_its_data(how: str) -> None:
    peer = opened(1)
    stream, sender = peer.stream(1), peer.protocol.sender
    sender.send_data(stream, b"x" * 100_000, ends=True)
    peer.output()
    if how == "client":
        peer.send(reset(1))
    else:
        peer.protocol.abort(stream, ErrorCode.CANCEL)
        assert [one.code for one in peer.output()] == [ErrorCode.CANCEL]
    assert (len(stream.unsent), sender.waiting, peer.protocol.streams) == (0, {}, {})
    assert peer.send(window_update(0, 1 << 20)) == []


def test_sender_tiny_windows_earn_no_credit() -> None:
    """A client that dictates tiny frames pays for its updates."""
    peer = opened(1)
    peer.send(settings({frames.INITIAL_WINDOW_SIZE: 0}))
    stream, credit = peer.stream(1), peer.protocol.credit
    stream.send_window = 0
    peer.protocol.sender.send_data(stream, b"x" * 5000, ends=True)
    before = credit.left
    for _ in range(100):
        assert bodies(peer.send(window_update(1, 1))) == {1: b"x"}
    assert credit.left == before - 100
    credit.left = 100.0
    peer.send(window_update(1, 2000))
    assert credit.left > 100


@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50_000)), max_size=20),
)
def test_sender_every_body_arrives_in_order(
    sizes: list[int], updates: list[tuple[int, int]]
) -> None:
    numbers = range(1, 2 * len(sizes), 2)
    peer = opened(*numbers)
    received: dict[int, bytes] = dict.fromkeys(numbers, b"")
    expected = {
        number: bytes(at % 251 for at in range(size))
        for number, size in zip(numbers, sizes, strict=True)
    }
    sent = peer.send(settings({frames.INITIAL_WINDOW_SIZE: 1000}))
    for number in numbers:
        peer.protocol.sender.send_data(peer.stream(number), expected[number], ends=True)
    final = ((index, 1 << 20) for index in range(5))
    for index, increment in itertools.chain(updates, final):
        target = 0 if index == 4 or index >= len(sizes) else 2 * index + 1
        sent += peer.output()
        sent += peer.send(window_update(target, increment))
    for number, body in bodies(sent).items():
        received[number] += body
    assert received == expected
