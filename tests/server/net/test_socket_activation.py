"""Sockets passed by systemd: ``fd:N``."""

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
# Like systemd: a listening socket is descriptor 3 of authproxy.
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


# With Restart=always: authproxy is restarted when it exits.
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
def test_systemd_socket_restart_loses_no_request(tmp_path: Path, workers: int) -> None:
    """New connections wait in the backlog during a restart."""
    stopped = threading.Event()
    served, errors = [0], []

    def send_requests() -> None:
        while not stopped.is_set():
            connection = HTTPConnection(LOOPBACK, program.port, timeout=60)
            try:
                connection.request("GET", "/ping")
                served[0] += connection.getresponse().status == 200
            except (OSError, HTTPException) as error:
                errors.append(repr(error))
            finally:
                connection.close()

    with Program(
        tmp_path, wrapper=("-c", SERVICE), http_address="fd:3", workers=workers
    ) as program:
        program.started()
        clients = [threading.Thread(target=send_requests) for _ in range(3)]
        for client in clients:
            client.start()
        for _ in range(2):
            served[0] = 0
            until(lambda: served[0] > 20, "requests", 30)
            [current] = program.workers
            os.kill(current, signal.SIGTERM)
            until(
                lambda old=current: program.workers not in ([], [old]), "a restart", 30
            )
        served[0] = 0
        until(lambda: served[0] > 20, "requests after the restarts", 30)
        stopped.set()
        for client in clients:
            client.join(30)
            assert not client.is_alive()
    assert errors == []


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_socket_serves_requests(tmp_path: Path, workers: int) -> None:
    with Program(
        tmp_path, wrapper=("-c", ACTIVATION), http_address="fd:3", workers=workers
    ) as program:
        for _ in range(3):
            with Wire(program.port) as wire:
                wire.send(PING)
                assert wire.answer().status == 200
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_systemd_socket_serves_tls(tmp_path: Path) -> None:
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


def test_refuse_connections_inherited_socket_keeps_accepting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New connections wait in the backlog for the next process."""
    with socket.socket() as original, socket.socket() as client:
        original.bind((LOOPBACK, 0))
        original.listen()
        descriptor = os.dup(original.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(descriptor - 2))
        listening = open_listener(Listener(descriptor=descriptor))
        refuse_connections(listening)
        listening.socket.close()
        client.settimeout(5)
        client.connect(original.getsockname())
        original.accept()[0].close()


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
            "not a listening|not a socket|Bad file|non-socket|Socket operation",
        ),
    ],
)
def test_open_listener_descriptor_without_socket_rejected(
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


def test_open_listener_socket_that_does_not_listen_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as idle:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "9999")
        with pytest.raises(ListenError, match="not a listening stream socket"):
            open_listener(Listener(descriptor=idle.fileno()))
        idle.listen()  # still open


def test_http_address_descriptor_parsed_and_validated() -> None:
    [listener] = settings("--http-address=fd:4").listeners
    assert listener == Listener(descriptor=4)
    for bad in ("fd:2", "fd:http", "fd:", "fd:-1", "fd:99999999999"):
        assert "fd:N" in problem(f"--http-address={bad}")
