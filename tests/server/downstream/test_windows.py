"""Memory while large bodies are relayed: bounded, whichever side is slower."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import LOOPBACK
from support.program import Program, session_cookie
from support.scripted import Peer, ScriptedServer

SIZE = 96 << 20  # bytes of a body
MAX_GROWTH = 20 << 20  # bytes of resident memory
CHUNK = bytes(1 << 16)


class App:
    """An upstream: ``/down`` sends, ``/up`` reads, ``/chunks`` does both in chunks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> App:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        async with ScriptedServer(self._script) as played:
            self.port = played.port
            self._ready.set()
            await self._stop.wait()

    async def _script(self, peer: Peer) -> None:
        while True:
            seen = await peer.head()
            if seen.target == b"/down":
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
                for _ in range(SIZE // len(CHUNK)):
                    await peer.send(CHUNK)
            elif seen.target == b"/up":
                remaining = int(seen.values(b"content-length")[0])
                while remaining:
                    remaining -= len(await peer.reader.read(min(remaining, 1 << 20)))
                await peer.answer(b"received")
            else:
                head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                await peer.send(head)
                await asyncio.gather(self._send_chunks(peer), self._read_chunks(peer))
                await peer.send(b"0\r\n\r\n")

    async def _read_chunks(self, peer: Peer) -> None:
        while size := int(await peer.reader.readuntil(b"\r\n"), 16):
            await peer.reader.readexactly(size + 2)

    async def _send_chunks(self, peer: Peer) -> None:
        for _ in range(SIZE // len(CHUNK)):
            await peer.send(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with App() as app:
        upstream = f"http://{LOOPBACK}:{app.port}/"
        with Program(tmp_path, upstreams=[upstream]) as running:
            running.started()
            yield running


def send_head(program: Program, method: str, path: str, *fields: str) -> socket.socket:
    client = socket.create_connection((LOOPBACK, program.port), timeout=60)
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Cookie: {session_cookie()}"]
    client.sendall("\r\n".join([*lines, *fields, "", ""]).encode())
    return client


def test_download_slow_client_memory_bounded(program: Program) -> None:
    with send_head(program, "GET", "/down") as client:
        received = len(client.recv(1 << 16))
        before = program.peak()
        threading.Event().wait(0.5)  # time in which the upstream would fill the memory
        while received < SIZE:
            received += len(client.recv(1 << 20))
    assert program.peak() - before < MAX_GROWTH


def test_upload_memory_bounded(program: Program) -> None:
    with send_head(program, "POST", "/up", f"Content-Length: {SIZE}") as client:
        client.sendall(CHUNK)
        before = program.peak()
        for _ in range(SIZE // len(CHUNK) - 1):
            client.sendall(CHUNK)
        response = b""
        while not response.endswith(b"received"):
            response += client.recv(1 << 16)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert program.peak() - before < MAX_GROWTH


def test_chunked_bodies_in_both_directions_memory_bounded(program: Program) -> None:
    chunked = "Transfer-Encoding: chunked"
    with send_head(program, "POST", "/chunks", chunked) as client:
        before = program.peak()

        def send() -> None:
            for _ in range(SIZE // len(CHUNK)):
                client.sendall(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
            client.sendall(b"0\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        received, last = 0, b""
        while not last.endswith(b"\r\n0\r\n\r\n"):
            data = client.recv(1 << 20)
            assert data
            received, last = received + len(data), (last + data)[-16:]
        sender.join()
    assert received > SIZE
    assert program.peak() - before < MAX_GROWTH
