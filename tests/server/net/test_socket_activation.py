"""Sockets that systemd has opened: ``fd:N``."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from authproxy.net.listeners import ListenError, open_listener, refuse_connections
from authproxy.server_settings import Listener
from support.certificates import make_certificate
from support.configuration import problem, settings
from support.ports import LOOPBACK
from support.program import Program
from support.server import Wire, until

PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
# Does what systemd does: a listening socket is descriptor 3 of the program.
ACTIVATION = """
import os, socket, sys
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
os.dup2(listening.fileno(), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
from authproxy.commands.cli import main
sys.exit(main())
"""


# The same with Restart=always: a program that has ended is started again.
SERVICE = """
import os, socket, sys
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen(1024)
while True:
    pid = os.fork()
    if pid == 0:
        os.dup2(listening.fileno(), 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        from authproxy.commands.cli import main
        sys.exit(main())
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_restarts_lose_nobody(tmp_path: Path, workers: int) -> None:
    """Who connects while there is no program waits for the next one."""
    over = threading.Event()
    served, lost = [0], []

    def anew() -> None:
        while not over.is_set():
            connection = HTTPConnection(LOOPBACK, program.port, timeout=30)
            try:
                connection.request("GET", "/ping")
                served[0] += connection.getresponse().status == 200
            except (OSError, HTTPException) as error:
                lost.append(repr(error))
            finally:
                connection.close()

    with Program(
        tmp_path, wrapper=("-c", SERVICE), http_address="fd:3", workers=workers
    ) as program:
        program.started()
        clients = [threading.Thread(target=anew) for _ in range(3)]
        for client in clients:
            client.start()
        for _ in range(2):
            served[0] = 0
            until(lambda: served[0] > 20, "requests", 30)
            [current] = program.workers
            os.kill(current, signal.SIGTERM)
            until(
                lambda old=current: program.workers not in ([], [old]), "the next", 30
            )
        served[0] = 0
        until(lambda: served[0] > 20, "requests of the last one", 30)
        over.set()
        for client in clients:
            client.join(30)
            assert not client.is_alive()
    assert lost == []


@pytest.mark.parametrize("workers", [1, 2])
def test_socket_of_systemd(tmp_path: Path, workers: int) -> None:
    with Program(
        tmp_path, wrapper=("-c", ACTIVATION), http_address="fd:3", workers=workers
    ) as program:
        for _ in range(3):
            with Wire(program.port) as wire:
                wire.send(PING)
                assert wire.answer().status == 200
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_tls_on_a_socket_of_systemd(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, LOOPBACK)
    with (
        Program(
            tmp_path,
            wrapper=("-c", ACTIVATION),
            https_address="FD:3",
            tls_cert_file=certificate.cert_file,
            tls_key_file=certificate.key_file,
        ) as program,
        Wire(program.port) as wire,
    ):
        context = ssl.create_default_context(cafile=certificate.cert_file)
        wire.socket = context.wrap_socket(wire.socket, server_hostname=LOOPBACK)
        wire.send(PING)
        assert wire.answer().status == 200


def test_it_goes_on_without_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who comes while nobody serves it waits for the next program."""
    with socket.socket() as systemds, socket.socket() as client:
        systemds.bind((LOOPBACK, 0))
        systemds.listen()
        descriptor = os.dup(systemds.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(descriptor - 2))
        listening = open_listener(Listener(descriptor=descriptor))
        refuse_connections(listening)
        listening.socket.close()
        client.settimeout(5)
        client.connect(systemds.getsockname())
        systemds.accept()[0].close()


@pytest.mark.parametrize(
    ("pid", "count", "text"),
    [
        ("1", "5", "LISTEN_PID"),
        ("", "5", "LISTEN_PID"),
        ("own", "0", "LISTEN_FDS=0"),
        ("own", "", "LISTEN_FDS="),
        ("own", "x", "LISTEN_FDS=x"),
        (
            "own",
            "9999",
            "no listening|not a socket|Bad file|non-socket|Socket operation",
        ),
    ],
)
def test_no_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pid: str, count: str, text: str
) -> None:
    with (tmp_path / "file").open("w") as file:
        descriptor = os.dup(file.fileno())
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "own" else pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    try:
        with pytest.raises(ListenError, match=text) as caught:
            open_listener(Listener(descriptor=descriptor))
        assert f"fd:{descriptor}" in str(caught.value)
    finally:
        os.close(descriptor)


def test_socket_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as idle:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "9999")
        with pytest.raises(ListenError, match="not a listening stream socket"):
            open_listener(Listener(descriptor=idle.fileno()))
        idle.listen()  # still open


def test_option() -> None:
    [listener] = settings("--http-address=fd:4").listeners
    assert listener == Listener(descriptor=4)
    for bad in ("fd:2", "fd:http", "fd:", "fd:-1", "fd:99999999999"):
        assert "fd:N" in problem(f"--http-address={bad}")
