"""Targets that read HTTP/2: the frames of a connection, and header blocks."""

from __future__ import annotations

from collections.abc import Sequence

from authproxy.http.request_head import HeadError
from authproxy.http2 import frames
from authproxy.http2.field_kinds import Entry
from authproxy.http2.frames import ConnectionFault, ErrorCode
from authproxy.http2.hpack_decoder import HeaderDecoder
from authproxy.http2.hpack_encoder import encode_fields
from authproxy.http2.protocol import ServerProtocol
from authproxy.http2.request_head import build_request_head
from authproxy.http2.streams import MAX_STREAMS, Stream
from authproxy_core.messages import Header

from .target import Target
from .targets_http import LIMITS, check_request, split

START = frames.PREFACE + frames.settings({})
FULL = frames.END_HEADERS | frames.END_STREAM
REQUEST: tuple[Header, ...] = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"app.example.com"),
    (b":path", b"/a?b=c"),
    (b"cookie", b"a=b"),
)
BLOCK = encode_fields(REQUEST)
MAX_TURNS = 1000


class Exchange:
    """A request that is answered once it is complete."""

    stream: Stream[Exchange]


class Server:
    """Answers each request; ``seen`` are the events in their order."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.protocol: ServerProtocol[Exchange] = ServerProtocol(self, LIMITS)

    def receive(self, parts: Sequence[bytes]) -> bytes:
        """Handle *parts* as packets, and return the sent frames."""
        sent = []
        for part in parts:
            self.protocol.receive(part)
            for _ in range(MAX_TURNS):
                left = self.protocol.process()
                sent.append(self.protocol.sender.take())
                if not left:
                    break
            else:
                raise AssertionError("turns without end")
            assert len(self.protocol.streams) <= MAX_STREAMS
        return b"".join(sent)

    def on_request(self, number: int, entries: list[Entry], *, ended: bool) -> None:
        """Open the stream; reset it for an invalid head."""
        self.seen.append(("request", number, ended))
        try:
            head = build_request_head(entries, LIMITS, ended=ended)
        except HeadError:
            self.protocol.reset(number, ErrorCode.PROTOCOL_ERROR, ended=ended)
            return
        check_request(head)
        exchange = Exchange()
        stream = self.protocol.open(number, head.length, ended=ended)
        exchange.stream, stream.owner = stream, exchange
        if ended:
            self._answer(stream)

    def on_data(self, owner: Exchange, data: bytes, counted: int) -> None:
        """Take the data."""
        self.seen.append(("data", owner.stream.number, data))
        self.protocol.acknowledge(owner.stream, counted)

    def on_end(self, owner: Exchange, trailers: list[Entry]) -> None:
        """Answer the request."""
        self.seen.append(("end", owner.stream.number, len(trailers)))
        self._answer(owner.stream)

    def _answer(self, stream: Stream[Exchange]) -> None:
        self.protocol.send_head(stream, b"\x88", ends=False)
        self.protocol.sender.send_data(stream, b"x" * 9000, ends=True)

    def on_reset(self, owner: Exchange) -> None:
        """Record the reset."""
        self.seen.append(("reset", owner.stream.number))

    def on_sent(self, owner: Exchange) -> None:
        """Record the end of a response."""
        self.seen.append(("sent", owner.stream.number))

    def on_goaway(self) -> None:
        """Record the end of requests."""
        self.seen.append(("goaway",))

    def on_ping_ack(self, payload: bytes) -> None:
        """Record the answer."""
        self.seen.append(("pong", payload))


def http2_frames(data: bytes) -> None:
    """Handle frames at once and in small packets: both must see the same events."""
    results = []
    for parts in ([START + data], [START, *split(data)]):
        server = Server()
        try:
            server.receive(parts)
            fault = None
        except ConnectionFault as error:
            fault = error
        results.append((server.seen, fault and (fault.code, str(fault))))
    assert results[0] == results[1]
    if fault is not None:
        raise fault


def header_block(data: bytes) -> None:
    """Decode two blocks with one table; accepted fields survive encoding."""
    decoder = HeaderDecoder(LIMITS.header_count)
    half = len(data) // 2
    for block in (data, data[:half], data[half:]):
        entries = decoder.decode(block)
        head = build_request_head(entries, LIMITS, ended=True)
        check_request(head)
        fields = [
            entry[0] for entry in HeaderDecoder(999).decode(encode_fields(head.headers))
        ]
        assert fields == list(head.headers)


def _request(number: int, flags: int = FULL, block: bytes = BLOCK) -> bytes:
    return frames.frame(frames.HEADERS, flags, number, block)


def _data(number: int, data: bytes, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, number, data)


TARGETS = (
    Target(
        "http2_frames",
        http2_frames,
        (ConnectionFault,),
        (
            _request(1) + _request(3) + frames.window_update(0, 100_000),
            _request(1, frames.END_HEADERS)
            + _data(1, b"\x03abc\0\0\0", frames.PADDED)
            + _data(1, b"", frames.END_STREAM),
            _request(1, frames.END_STREAM, BLOCK[:9])
            + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, BLOCK[9:])
            + frames.rst_stream(1, ErrorCode.CANCEL),
            frames.settings({frames.INITIAL_WINDOW_SIZE: 10})
            + _request(1)
            + frames.window_update(1, 5)
            + frames.ping(b"12345678")
            + frames.frame(frames.PRIORITY, 0, 5, bytes(5)),
            _request(1, frames.END_HEADERS)
            + _request(1, FULL, encode_fields([(b"x-sum", b"1")]))
            + frames.frame(frames.GOAWAY, 0, 0, bytes(8)),
        ),
    ),
    Target(
        "header_block",
        header_block,
        (ConnectionFault, HeadError),
        (
            BLOCK,
            b"\x3f\xe1\x1f\x82\x87\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            BLOCK + b"\xa0\xa0",  # empty cookies
            b"\x82\x86\x84\xbe\x40\x01x\x01y\xbe\x5c\x011",
            b"\x82\x87\x84\x41\x0fwww.example.com\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        ),
    ),
)
