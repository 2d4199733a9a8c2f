"""Requests to each worker of a program.

The kernel decides which worker accepts a connection, so a number of requests may all
reach the same one. Here connections stay open until every worker has one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from support.ports import LOOPBACK
from support.processes import POLL_INTERVAL, Process
from support.server import Answer, Wire

MAX_CONNECTIONS = 500  # until each worker has accepted one
FAST_CONNECTIONS = 50  # without a delay between them
PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def connections(
    process: Process,
    port: int,
    source: str = LOOPBACK,
    prepare: Callable[[Wire], None] = lambda wire: None,
) -> Iterator[list[Wire]]:
    """One open connection to each worker; their order is arbitrary.

    *prepare* is called with each new connection, for example for a TLS handshake.
    """
    pids = worker_pids(process)
    found: dict[int, Wire] = {}
    with ExitStack() as stack:
        for number in range(MAX_CONNECTIONS):
            if number > FAST_CONNECTIONS:  # a worker has not begun to accept
                time.sleep(POLL_INTERVAL)
            wire = stack.enter_context(Wire(port, source))
            prepare(wire)
            wire.send(PING)
            wire.answer()  # so it is accepted
            found.setdefault(owner(pids, wire), wire)
            if len(found) == len(pids):
                break
        assert len(found) == len(pids), f"only {sorted(found)} of {pids} accept"
        yield list(found.values())


def send_to_each(
    process: Process, port: int, *requests: bytes, source: str = LOOPBACK
) -> list[Answer]:
    """Send *requests* to each worker; return all responses."""
    with connections(process, port, source) as wires:
        for wire in wires:
            wire.send(b"".join(requests))
        return [wire.answer() for wire in wires for _ in requests]


def statuses(
    process: Process,
    port: int,
    *cookies: str,
    target: str = "/oauth2/auth",
    host: str = "localhost",
    source: str = LOOPBACK,
) -> set[int]:
    """Return the statuses with which the workers respond to GET with each cookie."""
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n"
    fields = [f"Cookie: {cookie}\r\n" if cookie else "" for cookie in cookies or [""]]
    requests = [f"{head}{field}\r\n".encode("latin-1") for field in fields]
    answers = send_to_each(process, port, *requests, source=source)
    return {answer.status for answer in answers}


def worker_pids(process: Process) -> list[int]:
    """Return the workers' process ids; a program without a supervisor is the worker."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()] or [process.pid]


def owner(pids: list[int], wire: Wire) -> int:
    """Return the worker that has accepted the connection of *wire*."""
    server, client = wire.socket.getpeername()[1], wire.socket.getsockname()[1]
    link = f"socket:[{_inode(server, client)}]"
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if os.readlink(descriptor) == link:
                    return pid
    raise AssertionError(f"none of {pids} has the connection {client} -> {server}")


def _inode(local: int, remote: int) -> str:
    """Return the inode of the IPv4 socket with these two ports."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = tuple(int(field.rpartition(":")[2], 16) for field in fields[1:3])
        if ports == (local, remote):
            return fields[9]
    raise AssertionError(f"no connection {local} <- {remote}")
