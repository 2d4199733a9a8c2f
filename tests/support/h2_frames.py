"""Frames of an HTTP/2 client for tests without sockets, and what the server sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hpack import Encoder

from authproxy.http2 import frames
from authproxy.http2.field_kinds import Entry
from authproxy.http2.protocol import ServerProtocol
from authproxy.http2.streams import Stream
from authproxy.server_settings import Limits

PING = b"12345678"
START = (
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"a"),
    (b":path", b"/"),
)


class Frame(NamedTuple):
    """A received frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:])


def parse_frames(data: bytes) -> Iterator[Frame]:
    """Yield the frames of *data*, which has only complete ones."""
    while data:
        length = int.from_bytes(data[:3])
        stream = int.from_bytes(data[5:9])
        yield Frame(data[3], data[4], stream, data[9 : 9 + length])
        assert len(data) >= 9 + length
        data = data[9 + length :]


class Peer:
    """A `ServerProtocol` whose events are recorded in ``seen``.

    Requests stay open, as if an application worked on them; the owner of a stream is
    its number.
    """

    def __init__(self, limits: Limits | None = None, *, greet: bool = True) -> None:
        self.protocol: ServerProtocol[int] = ServerProtocol(self, limits or Limits())
        self.encoder = Encoder()
        self.seen: list[tuple[object, ...]] = []
        if greet:
            self.send(frames.PREFACE + frames.settings({}))
            self.output()
            self.seen.clear()

    # Events.

    def on_request(self, number: int, entries: list[Entry], *, ended: bool) -> None:
        self.seen.append(("request", number, ended))
        length = next((v for (k, v), *_ in entries if k == b"content-length"), None)
        announced = None if length is None else int(length)
        self.protocol.open(number, announced, ended=ended).owner = number

    def on_data(self, owner: int, data: bytes, counted: int) -> None:
        self.seen.append(("data", owner, data))

    def on_end(self, owner: int, trailers: list[Entry]) -> None:
        self.seen.append(("end", owner, [field for field, *_ in trailers]))

    def on_reset(self, owner: int) -> None:
        self.seen.append(("reset", owner))

    def on_sent(self, owner: int) -> None:
        self.seen.append(("sent", owner))

    def on_goaway(self) -> None:
        self.seen.append(("goaway",))

    def on_ping_ack(self, payload: bytes) -> None:
        self.seen.append(("ping", payload))

    # The client.

    def send(self, data: bytes) -> list[Frame]:
        """Let the server handle *data*; return what it sends."""
        self.protocol.receive(data)
        while self.protocol.process():
            pass
        return self.output()

    def output(self) -> list[Frame]:
        """Return what the server has sent since the last call."""
        return list(parse_frames(self.protocol.sender.take()))

    def headers(
        self, number: int, *fields: tuple[bytes, bytes], ends: bool = True
    ) -> bytes:
        """Return the HEADERS frame of a request, or of trailers."""
        flags = frames.END_HEADERS | (frames.END_STREAM if ends else 0)
        block = self.encoder.encode(fields or START)
        return frames.frame(frames.HEADERS, flags, number, block)

    def stream(self, number: int) -> Stream[int]:
        """Return an open stream."""
        return self.protocol.streams[number]


def data(number: int, payload: bytes, *, ends: bool = False) -> bytes:
    """Return a DATA frame."""
    flags = frames.END_STREAM if ends else 0
    return frames.frame(frames.DATA, flags, number, payload)


def reset(number: int) -> bytes:
    """Return an RST_STREAM frame."""
    return frames.rst_stream(number, frames.ErrorCode.CANCEL)
