#!/usr/bin/env python3
"""Measure the memory of idle WebSockets in authproxy and oauth2-proxy.

    python bench/websockets.py [--sockets N[,N...]] [--workers N] [--only NAME]
                               [--output FILE]

Each WebSocket has a session cookie, exchanges one message and stays idle. The memory of
all processes of a proxy is measured before and with the WebSockets, as RSS and as PSS.
Forked processes share pages: the sum of RSS counts them once per process, PSS counts them
once. Requires oauth2-proxy for the comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import uvloop  # noqa: E402

import run  # noqa: E402
import sessions  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from support.ports import LOOPBACK, free_port  # noqa: E402
from support.processes import Process, listens  # noqa: E402
from support.programs import find  # noqa: E402

SESSIONS = 200  # in rotation
MAX_CONNECTING = 50  # handshakes at a time
SETTLING_TIME = 3.0  # seconds before the memory is read
MESSAGE = b"\x81\x85\x00\x00\x00\x00hello"  # a text frame with a mask of zeros
HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: app.example.com\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0 Safari/537.36\r\n"
    b"Accept-Language: en-US,en;q=0.9\r\nCookie: %b\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/websockets.py")
    parser.add_argument("--sockets", default="1000")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--echo", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.echo:
        uvloop.run(echo(options.echo))
        return 0
    os.environ["OAUTH2_PROXY_WORKERS"] = str(options.workers)
    rows = []
    for count in map(int, options.sockets.split(",")):
        for name in ("authproxy", "oauth2-proxy"):
            if options.only not in ("", name) or (
                name == "oauth2-proxy" and find(name) is None
            ):
                continue
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(Path(folder), name, count))
            print(line(rows[-1]), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def line(row: dict[str, Any]) -> str:
    """Return a measurement as text."""
    before, after = row["before"], row["after"]
    each = (after["pss_kb"] - before["pss_kb"]) / row["sockets"]
    return (
        f"{row['program']:13} {row['sockets']:6,} sockets, {row['processes']} processes: "
        f"PSS {before['pss_kb'] / 1024:6.1f} -> {after['pss_kb'] / 1024:6.1f} MB, "
        f"{each:5.1f} kB per socket; "
        f"RSS {before['rss_kb'] / 1024:6.1f} -> {after['rss_kb'] / 1024:6.1f} MB"
    )


def measure(folder: Path, name: str, count: int) -> dict[str, Any]:
    """Return the memory of the proxy *name* before and with *count* sockets."""
    with contextlib.ExitStack() as stack:
        issuer = stack.enter_context(serve(DevProvider(ProviderConfig()))).url
        app = start_echo(stack, folder)
        session = sessions.realistic_session(issuer)
        cookies = folder / "cookies.txt"
        is_oauth2_proxy = name == "oauth2-proxy"
        sessions.write_cookies(cookies, session, SESSIONS, oauth2_proxy=is_oauth2_proxy)
        upstream = f"http://{LOOPBACK}:{app}/"
        port, process = run.start_proxy(stack, folder, name, issuer, upstream)
        time.sleep(SETTLING_TIME)
        before = memory(process.pid)
        before.pop("processes")
        after = uvloop.run(memory_with_sockets(port, cookies, count, process.pid))
    return {
        "program": name,
        "sockets": count,
        "processes": after.pop("processes"),
        "before": before,
        "after": after,
    }


async def memory_with_sockets(
    port: int, cookies: Path, count: int, pid: int
) -> dict[str, int]:
    """Open *count* WebSockets; return the memory while they are idle."""
    values = itertools.cycle(cookies.read_bytes().splitlines())
    connecting = asyncio.Semaphore(MAX_CONNECTING)
    writers: list[asyncio.StreamWriter] = []

    async def open_socket(cookie: bytes) -> None:
        async with connecting:
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writers.append(writer)
            writer.write(HANDSHAKE % cookie)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                raise SystemExit(f"no WebSocket: {head!r}")
            writer.write(MESSAGE)
            await reader.readexactly(len(MESSAGE))

    await asyncio.gather(*(open_socket(next(values)) for _ in range(count)))
    await asyncio.sleep(SETTLING_TIME)
    found = memory(pid)
    if any(writer.transport.is_closing() for writer in writers):
        raise SystemExit("WebSockets were closed")
    for writer in writers:
        writer.transport.abort()
    return found


class Echo(asyncio.Protocol):
    """The upstream: switches protocols, then echoes all bytes."""

    def __init__(self) -> None:
        self._head: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Switch protocols after the request head, then echo."""
        if self._head is None:
            self._transport.write(data)
            return
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._head = None
            self._transport.write(SWITCHING)


async def echo(port: int) -> None:
    """Serve until the process stops."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, LOOPBACK, port, backlog=1024)
    async with server:
        await server.serve_forever()


def start_echo(stack: contextlib.ExitStack, folder: Path) -> int:
    """Start the upstream in another process; return its port."""
    port = free_port()
    path = f"{ROOT / 'core'}:{ROOT / 'server'}"
    command = [sys.executable, Path(__file__).resolve(), "--echo", str(port)]
    process = Process("echo", command, folder=folder, environment={"PYTHONPATH": path})
    stack.callback(process.stop)
    process.wait_until(lambda: listens(port))
    return port


def tree(pid: int) -> list[int]:
    """Return the process ids of a process and its children."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]
    return []


def memory(pid: int) -> dict[str, int]:
    """Return RSS and PSS of a process and its children in kB."""
    pids = tree(pid)
    found = {"rss_kb": 0, "pss_kb": 0, "processes": len(pids)}
    for one in pids:
        for text in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            key, _, value = text.partition(":")
            if key in ("Rss", "Pss"):
                found[f"{key.lower()}_kb"] += int(value.split()[0])
    return found


if __name__ == "__main__":
    sys.exit(main())
