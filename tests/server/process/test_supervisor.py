"""Supervisor and workers: restarts, and graceful shutdown without lost requests."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from support import workers
from support.ports import LOOPBACK
from support.processes import Process, wait_for
from support.program import Program
from support.server import Wire

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from authproxy.server_settings import Limits, Listener, ServerSettings
from authproxy.process.launcher import run
from authproxy_core.settings import *
settings = ServerSettings(
    core=Settings(
        cookie=CookieSettings(secrets=(Secret(b"0123456789abcdef"),)),
        providers=(ProviderSettings(id="p", client_id="c", client_secret=Secret(b"s"), skip_discovery=True,
            issuer="http://127.0.0.1:9", login_url="http://127.0.0.1:9/a",
            redeem_url="http://127.0.0.1:9/t", jwks_url="http://127.0.0.1:9/k"),),
        email_domains=("*",),
    ),
    listeners=(Listener(host="127.0.0.1", port=0),),
    workers=int(sys.argv[1]),
    limits=Limits(drain_timeout=20.0, connections=20),
)
sys.exit(run(settings))
"""
Start = Callable[[int], tuple[Process, int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server with a number of workers; returns it and its port."""
    started = []

    def start_server(workers: int) -> tuple[Process, int]:
        path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
        process = Process(
            "authproxy",
            [sys.executable, "-c", SCRIPT, str(workers)],
            folder=tmp_path,
            environment={"PYTHONPATH": path},
        )
        started.append(process)
        pattern = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
        process.wait_until(lambda: bool(pattern.search(process.log())))
        match = pattern.search(process.log())
        assert match
        port = int(match[1])
        process.wait_until(lambda: len(workers_of(process)) == (workers > 1) * workers)
        assert ping(port) == 200  # a worker runs and has its signal handlers
        return process, port

    yield start_server
    for process in started:
        process.stop()


def workers_of(process: Process) -> list[int]:
    """Return the process IDs of the children."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def ping(port: int) -> int:
    """Return the status of a health check over a new connection."""
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    finally:
        connection.close()


def test_killed_worker_is_restarted(start: Start) -> None:
    """After SIGKILL the other workers keep serving."""
    process, port = start(2)
    before = set(workers_of(process))
    victim = before.pop()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(set(workers_of(process)) - {victim}) == 2, "a new worker")
    wait_for(lambda: f"worker {victim} exited with code -9" in process.log(), "the log")
    # Now only the new worker can respond.
    os.kill(before.pop(), signal.SIGKILL)
    assert ping(port) == 200
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_graceful_shutdown_loses_no_request(start: Start, workers: int) -> None:
    """Clients send requests until the listener is closed; each gets a response."""
    process, port = start(workers)
    lost: list[str] = []
    served = [0, 0]

    def keep_alive() -> None:
        connection = HTTPConnection(LOOPBACK, port, timeout=60)
        while True:
            try:
                connection.connect()
            except OSError:
                return
            while connection.sock is not None:  # None after "Connection: close"
                try:
                    connection.request("GET", "/ping")
                    response = connection.getresponse()
                    response.read()
                except (OSError, HTTPException) as error:
                    lost.append(f"keep-alive: {error!r}")
                    return
                served[0] += response.status == 200

    def new_connections() -> None:
        while True:
            try:
                served[1] += ping(port) == 200
            except ConnectionRefusedError:
                return
            except (OSError, HTTPException) as error:
                lost.append(f"new: {error!r}")

    clients = [
        threading.Thread(target=loop) for loop in (keep_alive, new_connections) * 2
    ]
    for client in clients:
        client.start()
    wait_for(lambda: min(served) > 50, "requests of both kinds")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    for client in clients:
        client.join(20)
        assert not client.is_alive()
    assert lost == []


@pytest.mark.parametrize("workers", [1, 2])
def test_graceful_shutdown_serves_backlog_of_unix_socket(
    tmp_path: Path, workers: int
) -> None:
    """Connections in the backlog are served, later ones are refused."""
    path = tmp_path / "socket"
    served, lost = [0], []

    def new_connections() -> None:
        while True:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                try:
                    client.connect(str(path))
                except (ConnectionRefusedError, FileNotFoundError):
                    return
                try:
                    client.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
                    if client.recv(1000).startswith(b"HTTP/1.1 200 "):
                        served[0] += 1
                    else:
                        lost.append("no response")
                except OSError as error:
                    lost.append(repr(error))

    with Program(tmp_path, http_address=f"unix://{path}", workers=workers) as program:
        program.started()
        clients = [threading.Thread(target=new_connections) for _ in range(4)]
        for client in clients:
            client.start()
        wait_for(lambda: served[0] > 50, "requests")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        for client in clients:
            client.join(20)
            assert not client.is_alive()
    assert lost == []


@pytest.mark.parametrize("workers", [1, 2])
def test_second_sigterm_aborts_requests(start: Start, workers: int) -> None:
    """An incomplete request does not delay the exit."""
    process, port = start(workers)
    with Wire(port) as wire:
        wire.send(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\nGET /p")
        assert wire.answer().status == 200
        process.signal(signal.SIGTERM)
        wait_for(lambda: not has_listener(port), "the listener to close")
        assert process.exit_code is None
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert wire.ended


def test_sigterm_to_process_group_counts_once(start: Start) -> None:
    """A service manager signals all processes; that is not a second signal."""
    process, port = start(2)
    with Wire(port) as wire:
        wire.send(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\nGET /p")
        assert wire.answer().status == 200
        os.killpg(process.pid, signal.SIGTERM)
        wait_for(lambda: not has_listener(port), "the listener to close")
        wire.send(b"ing HTTP/1.1\r\nHost: a\r\n\r\n")
        response = wire.answer()
        assert (response.status, response.headers["connection"]) == (200, "close")
    assert process.wait() == 0


def has_listener(port: int) -> bool:
    """Return whether a socket listens on *port*, by the kernel's table."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        for line in lines
    )


def test_workers_exit_when_supervisor_is_killed(start: Start) -> None:
    """The port is free afterwards."""
    process, port = start(2)
    process.signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not has_listener(port), "the port to be free")


def test_ht25_connection_limit_closes_idle_connections(start: Start) -> None:
    _, port = start(1)
    idle = [Wire(port) for _ in range(60)]
    assert ping(port) == 200
    sockets = [wire.socket for wire in idle]
    wait_for(
        lambda: len(select.select(sockets, [], [], 0)[0]) >= 40, "40 of 60 to close"
    )
    for wire in idle:
        wire.socket.close()


def sockets_of(pid: int) -> int:
    """Return the number of open sockets of a process."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed since the listing
            count += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return count


@contextmanager
def open_connections(port: int, count: int) -> Iterator[None]:
    """Hold *count* connections open, each after one request and its response."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(port)) for _ in range(count)]
        for wire in wires:
            wire.send(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        for wire in wires:
            assert wire.answer().status == 200
        yield


def test_long_lived_connections_balanced_over_workers(start: Start) -> None:
    process, port = start(2)
    with workers.connections(process, port):
        pass  # both workers accept now
    before = {pid: sockets_of(pid) for pid in workers_of(process)}
    with open_connections(port, 40):
        accepted = sorted(sockets_of(pid) - count for pid, count in before.items())
    # About 20 each on an idle machine; a busy one may starve a worker for a while.
    assert accepted[0] >= 5, accepted


def test_suspended_worker_does_not_delay_accepts(start: Start) -> None:
    """It is the least loaded worker, so the other one defers its accepts."""
    process, port = start(2)
    victim = workers_of(process)[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        with open_connections(port, 8):
            pass
    finally:
        os.kill(victim, signal.SIGCONT)
