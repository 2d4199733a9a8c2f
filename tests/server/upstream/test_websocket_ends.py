"""WebSockets closed by authproxy: lifetime, session expiry, shutdown."""

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

HELLO = frame(TEXT, b"hello", masked=False)  # from the server


@contextlib.contextmanager
def run_program(folder: Path, **options: Any) -> Iterator[Program]:
    """Run authproxy in front of an echo server."""
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


def open_websocket(program: Program, *, age: float = 0.0) -> Wire:
    """Return an open WebSocket whose session is *age* seconds old."""
    wire = Wire(program.port)
    host = f"{LOOPBACK}:{program.port}"
    wire.send(ws.opening("/chat", host, session_cookie(age=age)))
    assert wire.answer().status == 101
    wire.send(frame(TEXT, b"hello"))
    assert wire.take(len(HELLO)) == HELLO
    return wire


def test_websocket_closed_after_max_lifetime(tmp_path: Path) -> None:
    with (
        run_program(tmp_path, upgrade_max_lifetime="300ms") as program,
        open_websocket(program) as wire,
    ):
        assert wire.ended
        wait_for(lambda: " 101 7 0.3" in program.log(), "the log line")


def test_websocket_closed_when_session_expires(tmp_path: Path) -> None:
    options = {"cookie_expire": "1h", "upgrade_check_interval": "100ms"}
    with run_program(tmp_path, **options) as program:
        with (
            open_websocket(program) as other,
            open_websocket(program, age=3598.5) as wire,
        ):
            assert wire.ended
            wait_for(
                lambda: "session expired or revoked" in program.log(), "the reason"
            )
            other.send(frame(TEXT, b"hello"))
            assert other.take(len(HELLO)) == HELLO
        assert program.log().count("session expired or revoked") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_websocket_closed_on_shutdown(tmp_path: Path, workers: int) -> None:
    with run_program(tmp_path, workers=workers) as program:
        wires = [open_websocket(program) for _ in range(8)]
        program.signal(signal.SIGTERM)
        for wire in wires:
            assert wire.ended
            wire.socket.close()
        assert program.wait() == 0
        assert program.log().count(" 101 7 ") == 8


def test_websocket_client_reset_is_logged(tmp_path: Path) -> None:
    with run_program(tmp_path) as program:
        for _ in range(3):
            with open_websocket(program) as wire:
                # The close is a reset.
                linger = b"\1\0\0\0\0\0\0\0"
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_for(lambda: program.log().count(" 101 7 ") == 3, "the log lines")
        assert "Traceback" not in program.log()
