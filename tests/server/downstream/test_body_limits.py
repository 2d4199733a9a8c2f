"""Limits of request bodies: at the limit and just above it."""

from __future__ import annotations

import pytest

from authproxy.downstream.h1_exchange import MAX_DRAIN_BYTES
from authproxy.http.body_decoders import MAX_LINE_BYTES, MAX_OVERHEAD_BYTES
from authproxy_core.effects import Outcome, ReadBody
from authproxy_core.messages import Request
from support.server import Server, Wire, flow

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def reading(request: Request) -> Outcome:
    """Respond with the body."""
    return flow(ReadBody(1 << 20))


def status_of(body: bytes) -> int:
    """Return the status of the response to a chunked body."""
    with Server(reading) as server, Wire(server.port) as wire:
        wire.send(CHUNKED + body)
        response = wire.answer()
        assert response.status != 200 or response.body.strip(b"x") == b""
        return response.status


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
def test_chunked_body_line_limit(more: int, status: int) -> None:
    size = MAX_LINE_BYTES + more
    line = b"1;" + b"e" * (size - 4) + b"\r\n"
    assert len(line) == size
    assert status_of(line + b"x\r\n0\r\n\r\n") == status
    trailer = b"T: " + b"v" * (size - 5) + b"\r\n"
    assert len(trailer) == size
    assert status_of(b"1\r\nx\r\n0\r\n" + trailer + b"\r\n") == status
    # Also if its end has not been received.
    assert status_of(line[:-2] + b"e\r\nx\r\n0\r\n\r\n") == 400


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
def test_chunked_body_overhead_limit(more: int, status: int) -> None:
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    rest = MAX_OVERHEAD_BYTES - 10 * 1001 + more
    trailers = []
    while rest:
        size = min(rest, 1000)
        trailers.append(b"T:" + b"v" * (size - 2) + b"\r\n")
        rest -= size
    assert status_of(chunk * 10 + b"0\r\n" + b"".join(trailers) + b"\r\n") == status


@pytest.mark.parametrize("more", [0, 1])
def test_unread_body_drain_limit(more: int) -> None:
    """A short body is skipped, and the connection persists."""
    size = MAX_DRAIN_BYTES + more
    with Server() as server, Wire(server.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        response = wire.answer()
        assert response.status == 200
        assert response.headers.get("connection") == ("close" if more else None)
        wire.send(b"x" * size + GET)
        if more:
            assert wire.ended
        else:
            assert wire.answer().body == b"GET /"


@pytest.mark.parametrize("more", [0, 1])
def test_unread_chunked_body_drain_limit(more: int) -> None:
    """The size is unknown in advance, so the connection closes only at the limit."""
    framing = len(b"ffff\r\n" + b"\r\n0\r\n\r\n")
    size = MAX_DRAIN_BYTES - framing + more
    with Server() as server, Wire(server.port) as wire:
        wire.send(CHUNKED)
        assert wire.answer().status == 200
        wire.send(b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n" + GET)
        if more:
            assert wire.ended
        else:
            assert wire.answer().body == b"GET /"
