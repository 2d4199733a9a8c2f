"""What ends a WebSocket besides its two sides: its time, its session, the process."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import websockets as ws
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program, session_cookie
from support.server import Wire
from support.websockets import TEXT, frame

HELLO = frame(TEXT, b"hello", masked=False)  # as the server sends it


@contextlib.contextmanager
def behind(folder: Path, **options: Any) -> Iterator[Program]:
    """The program in front of an echo server."""
    with (
        ws.EchoServer() as echo,
        Program(
            folder,
            upstreams=[f"http://{LOOPBACK}:{echo.port}/"],
            cookie_secure=False,
            **options,
        ) as program,
    ):
        yield program.started()


def opened(program: Program, *, age: float = 0.0) -> Wire:
    """A WebSocket that works, of a session that is *age* seconds old."""
    wire = Wire(program.port)
    host = f"{LOOPBACK}:{program.port}"
    wire.send(ws.opening("/chat", host, session_cookie(age=age)))
    assert wire.answer().status == 101
    wire.send(frame(TEXT, b"hello"))
    assert wire.take(len(HELLO)) == HELLO
    return wire


def test_it_ends_with_its_time(tmp_path: Path) -> None:
    with (
        behind(tmp_path, upgrade_max_lifetime="300ms") as program,
        opened(program) as wire,
    ):
        assert wire.ended
        wait_for(lambda: " 101 7 0.3" in program.log(), "its line")


def test_it_ends_when_its_session_expires(tmp_path: Path) -> None:
    options = {"cookie_expire": "1h", "upgrade_check_interval": "100ms"}
    with behind(tmp_path, **options) as program:
        with opened(program) as other, opened(program, age=3598.5) as wire:
            assert wire.ended
            wait_for(lambda: "session expired or revoked" in program.log(), "why")
            other.send(frame(TEXT, b"hello"))
            assert other.take(len(HELLO)) == HELLO
        assert program.log().count("session expired or revoked") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_stops_does_not_wait_for_it(
    tmp_path: Path, workers: int
) -> None:
    with behind(tmp_path, workers=workers) as program:
        wires = [opened(program) for _ in range(8)]
        program.signal(signal.SIGTERM)
        for wire in wires:
            assert wire.ended
            wire.socket.close()
        assert program.wait() == 0
        assert program.log().count(" 101 7 ") == 8


def test_a_client_that_is_cut_off_leaves_nothing_behind(tmp_path: Path) -> None:
    with behind(tmp_path) as program:
        for _ in range(3):
            with opened(program) as wire:
                # A reset instead of an end.
                linger = b"\1\0\0\0\0\0\0\0"
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_for(lambda: program.log().count(" 101 7 ") == 3, "the lines")
        assert "Traceback" not in program.log()
