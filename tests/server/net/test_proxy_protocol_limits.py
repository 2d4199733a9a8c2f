"""Limits of PROXY protocol headers: length and timeout."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from authproxy.net.proxy_protocol import (
    HEADER_TIMEOUT,
    MAX_HEADER_BYTES,
    MAX_V1_HEADER_BYTES,
    SIGNATURE,
    HeaderError,
    parse_header,
)
from support.ports import LOOPBACK
from support.program import Program
from support.server import Wire


def test_proxy_protocol_v1_length_limit() -> None:
    start = b"PROXY UNKNOWN "
    line = start + b"x" * (MAX_V1_HEADER_BYTES - len(start) - 2) + b"\r\n"
    assert len(line) == MAX_V1_HEADER_BYTES == 107
    for part in range(len(line)):
        assert parse_header(line[:part]) is None
    found = parse_header(line + b"GET /")
    assert found is not None
    assert found.size == MAX_V1_HEADER_BYTES
    longer = line[:-2] + b"x\r\n"
    for part in (longer[:MAX_V1_HEADER_BYTES], longer):
        with pytest.raises(HeaderError, match="too long"):
            parse_header(part)


def test_proxy_protocol_v2_length_limit() -> None:
    head = SIGNATURE + b"\x21\x00"
    length = MAX_HEADER_BYTES - len(head) - 2
    header = head + length.to_bytes(2, "big") + bytes(length)
    found = parse_header(header)
    assert found is not None
    assert found.size == MAX_HEADER_BYTES
    with pytest.raises(HeaderError, match="more than"):
        parse_header(head + (length + 1).to_bytes(2, "big"))


def test_proxy_protocol_incomplete_header_times_out(tmp_path: Path) -> None:
    """An incomplete header closes the connection at the timeout, not earlier."""
    with Program(tmp_path, proxy_protocol_from=[LOOPBACK]) as program:
        program.started()
        started = time.monotonic()
        with Wire(program.port) as slow, Wire(program.port) as late:
            slow.send(b"PROXY ")
            late.send(b"PROXY UNKNO")
            late.socket.settimeout(HEADER_TIMEOUT - 1)
            with pytest.raises(TimeoutError):  # still open
                late.socket.recv(1)
            late.socket.settimeout(5)
            late.send(b"WN\r\n" + b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
            assert late.answer().status == 200
            slow.socket.settimeout(HEADER_TIMEOUT + 5)
            assert slow.rest() == b""
            assert (
                HEADER_TIMEOUT - 0.5 < time.monotonic() - started < HEADER_TIMEOUT + 4
            )
