"""What an HTTP/2 server must check (RFC 9113): connection errors, stream errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http2 import frames
from authproxy.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    frame,
    settings,
    window_update,
)
from authproxy.http2.streams import CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW
from support.h2_frames import PING, START, Peer, data, reset

PROTOCOL, SIZE = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR
FLOW, CLOSED = ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.STREAM_CLOSED
COMPRESSION = ErrorCode.COMPRESSION_ERROR
FULL = END_HEADERS | END_STREAM
BLOCK = Peer(greet=False).headers(1)[9:]  # as the first of its connection
LARGE = b"x" * frames.MAX_FRAME_BYTES
MAX = frames.MAX_WINDOW


@pytest.mark.parametrize(
    ("received", "code"),
    [
        # §4.2, §5.1: sizes, idle and closed streams. Stream 1 is open, 3 is complete.
        (frame(DATA, 0, 1, LARGE + b"x"), SIZE),
        (data(0, b"x"), PROTOCOL),
        (data(5, b"x"), PROTOCOL),
        (data(2, b"x"), PROTOCOL),
        (data(3, b"x"), CLOSED),
        (reset(0), PROTOCOL),
        (reset(5), PROTOCOL),
        (window_update(5, 1), PROTOCOL),
        (frame(HEADERS, FULL, 0, BLOCK), PROTOCOL),
        (frame(HEADERS, FULL, 2, BLOCK), PROTOCOL),
        (frame(HEADERS, FULL, 3, BLOCK), CLOSED),
        # §6.1, §6.2: padding, priority.
        (frame(DATA, PADDED, 1, b"\x05abcd"), PROTOCOL),
        (frame(DATA, PADDED, 1, b""), PROTOCOL),
        (frame(HEADERS, FULL | PADDED, 5, b"\xff" + BLOCK), PROTOCOL),
        (frame(HEADERS, FULL | frames.HAS_PRIORITY, 5, b"abcd"), PROTOCOL),
        (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
        (frame(PRIORITY, 0, 1, bytes(4)), SIZE),
        # §6.4, §6.5: RST_STREAM, SETTINGS.
        (frame(RST_STREAM, 0, 1, b"abc"), SIZE),
        (frame(SETTINGS, 0, 1), PROTOCOL),
        (frame(SETTINGS, 0, 0, b"abc"), SIZE),
        (frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
        (settings({frames.ENABLE_PUSH: 2}), PROTOCOL),
        (settings({frames.MAX_FRAME_SIZE: 16_383}), PROTOCOL),
        (settings({frames.MAX_FRAME_SIZE: 1 << 24}), PROTOCOL),
        (settings({frames.INITIAL_WINDOW_SIZE: MAX + 1}), FLOW),
        # §6.6-6.9: PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE.
        (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), PROTOCOL),
        (frame(frames.PING, 0, 1, PING), PROTOCOL),
        (frame(frames.PING, 0, 0, b"1234567"), SIZE),
        (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
        (frame(GOAWAY, 0, 0, bytes(7)), SIZE),
        (frame(WINDOW_UPDATE, 0, 0, b"abc"), SIZE),
        (window_update(0, 0), PROTOCOL),
        (window_update(0, MAX), FLOW),
        # §6.10: CONTINUATION only in sequence.
        (frame(CONTINUATION, END_HEADERS, 1, BLOCK), PROTOCOL),
        (frame(HEADERS, 0, 5, BLOCK) + frames.ping(PING), PROTOCOL),
        (frame(HEADERS, 0, 5, BLOCK) + frame(99, 0, 5), PROTOCOL),
        (frame(HEADERS, 0, 5, BLOCK) + frame(CONTINUATION, 4, 7), PROTOCOL),
        # §4.3: HPACK.
        (frame(HEADERS, FULL, 5, b"\xbf\xbf\xbf"), COMPRESSION),
        (frame(HEADERS, FULL, 1, b"\x80"), COMPRESSION),  # also on other streams
    ],
)
def test_protocol_connection_error(received: bytes, code: ErrorCode) -> None:
    peer = Peer()
    peer.send(peer.headers(1, ends=False) + peer.headers(3))
    peer.protocol.send_head(peer.stream(3), b"\x88", ends=True)
    with pytest.raises(ConnectionFault) as fault:
        peer.send(received)
    assert fault.value.code == code


def test_protocol_empty_window_update_after_response_is_an_error() -> None:
    """Whether the response or the frame of the client is faster must not matter."""
    peer = Peer()
    peer.send(peer.headers(1))
    peer.protocol.send_head(peer.stream(1), b"\x88", ends=True)
    peer.output()
    [answer] = peer.send(window_update(1, 0))
    assert (answer.kind, answer.stream, answer.code) == (RST_STREAM, 1, PROTOCOL)


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (data(1, b"x"), CLOSED),  # half-closed (remote)
        (data(3, b"123456"), PROTOCOL),  # more than Content-Length
        (data(3, b"1234", ends=True), PROTOCOL),  # less
        (window_update(3, 0), PROTOCOL),
        (window_update(3, MAX), FLOW),
    ],
)
def test_protocol_stream_error(received: bytes, code: ErrorCode) -> None:
    """The stream is reset; late frames on it are ignored, other streams go on."""
    peer = Peer()
    length = (b"content-length", b"5")
    peer.send(peer.headers(1) + peer.headers(3, *START, length, ends=False))
    number = int.from_bytes(received[5:9])
    [answer] = peer.send(received)
    assert (answer.kind, answer.stream, answer.code) == (RST_STREAM, number, code)
    assert peer.seen[-1] == ("reset", number)
    late = data(3, b"x") + window_update(number, 1) + reset(number)
    assert peer.send(late if number == 3 else b"") == []
    assert peer.send(peer.headers(5)) == []
    assert peer.seen[-1] == ("request", 5, True)


def test_protocol_trailers_end_the_request_or_reset_it() -> None:
    peer = Peer()
    field = (b"x-sum", b"1")
    for number, trailers, ends in (
        (1, field, True),
        (3, field, False),
        (5, (b":path", b"/"), True),
        (7, (b"X-Upper", b"1"), True),
    ):
        peer.send(peer.headers(number, ends=False))
        answers = peer.send(peer.headers(number, trailers, ends=ends))
        if number == 1:
            assert (answers, peer.seen[-1]) == ([], ("end", 1, [field]))
        else:
            assert [answer.code for answer in answers] == [PROTOCOL]
    [answer] = peer.send(peer.headers(1, field))
    assert answer.code == CLOSED


def test_protocol_stream_beyond_its_window_reset() -> None:
    peer = Peer()
    peer.send(peer.headers(1, ends=False))
    count = STREAM_WINDOW // len(LARGE)
    assert peer.send(data(1, LARGE) * count) == []
    [answer] = peer.send(data(1, b"x"))
    assert answer.code == FLOW


def test_protocol_connection_window_counts_unknown_and_padded_data() -> None:
    peer = Peer()
    peer.send(b"".join(peer.headers(n, ends=False) for n in (1, 3, 5)))
    count = CONNECTION_WINDOW // len(LARGE) // 2
    padded = frame(DATA, PADDED, 1, b"\xff" + LARGE[:-1])
    peer.send(padded * count + data(3, LARGE) * count)
    with pytest.raises(ConnectionFault) as fault:
        peer.send(data(5, b"x"))
    assert fault.value.code == FLOW


def test_protocol_windows_extended_when_half_is_taken() -> None:
    peer = Peer()
    peer.send(peer.headers(1, ends=False))
    stream = peer.stream(1)
    sent = taken = 0
    updates: dict[int, int] = {0: 0, 1: 0}
    while sent < 4 * CONNECTION_WINDOW:
        peer.send(data(1, LARGE))
        sent += len(LARGE)
        peer.protocol.acknowledge(stream, len(LARGE))
        taken += len(LARGE)
        for answer in peer.output():
            updates[answer.stream] += answer.code
            assert answer.code >= STREAM_WINDOW // 2
    assert updates == {0: sent, 1: sent}


def test_protocol_preface_must_be_complete() -> None:
    for bad in (b"GET / HTTP/1.1\r\n\r\n", frames.PREFACE + frames.ping(PING)):
        with pytest.raises(ConnectionFault):
            Peer(greet=False).send(bad)
    peer = Peer(greet=False)
    first, update = peer.output()
    assert (first.kind, update.kind) == (SETTINGS, WINDOW_UPDATE)
    for byte in frames.PREFACE + settings({}):
        answers = peer.send(bytes([byte]))
    assert [(one.kind, one.flags) for one in answers] == [(SETTINGS, ACK)]


def test_protocol_unknown_frames_and_settings_ignored() -> None:
    peer = Peer()
    assert peer.send(frame(99, 255, 7, b"abc") + frame(PRIORITY, 0, 7, bytes(5))) == []
    assert [one.flags for one in peer.send(settings({99: 1}))] == [ACK]
    assert peer.send(settings({})[:4] + b"\1" + bytes(4)) == []
    assert peer.seen == []


def test_protocol_skipped_stream_is_closed() -> None:
    """§5.1.1: a new stream closes all idle ones below it."""
    peer = Peer()
    peer.send(peer.headers(7))
    with pytest.raises(ConnectionFault) as fault:
        peer.send(peer.headers(5))
    assert fault.value.code == PROTOCOL


def test_protocol_requests_above_limit_refused_and_decoded() -> None:
    """HPACK's state stays correct; canceled requests that still run count."""
    peer = Peer()
    new = (b"x-new", b"1")
    for number in range(1, 2 * MAX_STREAMS, 2):
        peer.send(peer.headers(number))
    [answer] = peer.send(peer.headers(201, *START, new))
    assert (answer.stream, answer.code) == (201, ErrorCode.REFUSED_STREAM)
    peer.send(reset(1))
    assert peer.send(peer.headers(203, *START, new)) == []
    assert peer.seen[-1] == ("request", 203, True)
    peer.send(reset(3))
    peer.protocol.running = MAX_STREAMS
    [answer] = peer.send(peer.headers(205))
    assert answer.code == ErrorCode.REFUSED_STREAM


def test_protocol_ping_answered_and_goaway_reported() -> None:
    peer = Peer()
    [answer] = peer.send(frames.ping(PING))
    assert (answer.kind, answer.flags, answer.payload) == (frames.PING, ACK, PING)
    assert peer.send(frames.ping(PING, ack=True)) == []
    assert peer.send(frames.goaway(0, ErrorCode.NO_ERROR)) == []
    assert peer.seen == [("ping", PING), ("goaway",)]


@given(st.integers(1, 40), st.lists(st.integers(0, 3), max_size=6))
def test_protocol_is_independent_of_packets(size: int, kinds: list[int]) -> None:
    """The same events and frames, wherever the received bytes are cut."""
    received = frames.PREFACE + settings({})
    client = Peer(greet=False)
    for index, kind in enumerate(kinds):
        number = 2 * index + 1
        head = client.headers(number, ends=kind == 0)
        received += head[:9] + head[9:]
        if kind == 1:
            received += data(number, b"abc") + data(number, b"", ends=True)
        elif kind == 2:
            received += client.headers(number, (b"x", b"y"))
        elif kind == 3:
            received += reset(number) + frames.ping(PING)
    whole, parts = Peer(greet=False), Peer(greet=False)
    expected = whole.send(received)
    got = []
    for start in range(0, len(received), size):
        got += parts.send(received[start : start + size])
    assert (got, parts.seen) == (expected, whole.seen)
    assert parts.protocol.credit.left == whole.protocol.credit.left


@given(st.binary(max_size=200))
def test_protocol_any_bytes_handled_or_rejected(received: bytes) -> None:
    peer = Peer()
    try:
        peer.send(received)
    except ConnectionFault:
        return
    assert len(peer.protocol.streams) <= 1 + len(received) // 9


@given(
    st.lists(
        st.tuples(
            st.integers(0, 11),
            st.integers(0, 255),
            st.sampled_from([0, 1, 2, 3, 5, 7]),
            st.binary(max_size=12) | st.sampled_from([BLOCK, bytes(4), bytes(8)]),
        ),
        max_size=12,
    )
)
def test_protocol_any_frames_handled_or_rejected(
    received: list[tuple[int, int, int, bytes]],
) -> None:
    """No other exception, and the credit pays for every frame without progress."""
    peer = Peer()
    try:
        for one in received:
            peer.send(frame(*one))
    except ConnectionFault:
        return
    opened = sum(one[0] == "request" for one in peer.seen)
    assert len(peer.protocol.streams) <= opened
