"""Bodies of any size pass in a fixed window, whoever is the slower side."""

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
GROWTH = 20 << 20  # bytes that the worker may grow by
PIECE = bytes(1 << 16)


class App:
    """An upstream: ``/down`` sends, ``/up`` takes, ``/chunks`` does both in chunks."""

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
                for _ in range(SIZE // len(PIECE)):
                    await peer.send(PIECE)
            elif seen.target == b"/up":
                left = int(seen.values(b"content-length")[0])
                while left:
                    left -= len(await peer.reader.read(min(left, 1 << 20)))
                await peer.answer(b"took it")
            else:
                head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                await peer.send(head)
                await asyncio.gather(self._send_chunks(peer), self._taken(peer))
                await peer.send(b"0\r\n\r\n")

    async def _taken(self, peer: Peer) -> None:
        while size := int(await peer.reader.readuntil(b"\r\n"), 16):
            await peer.reader.readexactly(size + 2)

    async def _send_chunks(self, peer: Peer) -> None:
        for _ in range(SIZE // len(PIECE)):
            await peer.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with App() as app:
        upstream = f"http://{LOOPBACK}:{app.port}/"
        with Program(tmp_path, upstreams=[upstream]) as running:
            running.started()
            yield running


def connected(program: Program, method: str, path: str, *fields: str) -> socket.socket:
    client = socket.create_connection((LOOPBACK, program.port), timeout=60)
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Cookie: {session_cookie()}"]
    client.sendall("\r\n".join([*lines, *fields, "", ""]).encode())
    return client


def test_a_download_to_a_slow_client(program: Program) -> None:
    with connected(program, "GET", "/down") as client:
        received = len(client.recv(1 << 16))
        before = program.peak()
        threading.Event().wait(0.5)  # the upstream sends on meanwhile, if it may
        while received < SIZE:
            received += len(client.recv(1 << 20))
    assert program.peak() - before < GROWTH


def test_an_upload(program: Program) -> None:
    with connected(program, "POST", "/up", f"Content-Length: {SIZE}") as client:
        client.sendall(PIECE)
        before = program.peak()
        for _ in range(SIZE // len(PIECE) - 1):
            client.sendall(PIECE)
        answer = b""
        while not answer.endswith(b"took it"):
            answer += client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert program.peak() - before < GROWTH


def test_chunks_both_ways_at_once(program: Program) -> None:
    chunked = "Transfer-Encoding: chunked"
    with connected(program, "POST", "/chunks", chunked) as client:
        before = program.peak()

        def send() -> None:
            for _ in range(SIZE // len(PIECE)):
                client.sendall(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
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
    assert program.peak() - before < GROWTH
