"""Outgoing connections: canceled, failed, aborted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvloop

from authproxy.net.dial import Stream, close_all, describe_error, dial, dial_unix
from support.scripted import LOOPS, run


class CancelsOnConnect(set[Stream]):
    """Cancels the task that dials as soon as the connection is made."""

    def __init__(self) -> None:
        super().__init__()
        self.task: asyncio.Task[Stream] | None = None

    def add(self, stream: Stream) -> None:
        super().add(stream)
        assert self.task is not None
        self.task.cancel()


@pytest.mark.parametrize("unix", [False, True])
def test_dial_canceled_when_connected_closes_the_stream(
    tmp_path: Path, unix: bool
) -> None:
    async def main() -> None:
        streams = CancelsOnConnect()
        path = str(tmp_path / "socket")
        family = socket.AF_UNIX if unix else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind(path if unix else ("127.0.0.1", 0))
            listener.listen()
            port = 0 if unix else listener.getsockname()[1]
            connect = (
                dial_unix(streams, path) if unix else dial(streams, "127.0.0.1", port)
            )
            streams.task = asyncio.create_task(connect)
            with pytest.raises(asyncio.CancelledError):
                await streams.task
            async with asyncio.timeout(5):
                await close_all(streams)
        assert not streams

    uvloop.run(main())


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_dial_sets_tcp_keep_alive(loop: str) -> None:
    async def main() -> tuple[int, int]:
        streams: set[Stream] = set()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            stream = await dial(streams, "127.0.0.1", listener.getsockname()[1])
            tcp = stream.transport.get_extra_info("socket")
            found = (
                tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            )
            await close_all(streams)
        return found

    assert run(main(), loop) == (1, 30)


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_dial_invalid_host_name_raises_gaierror(loop: str) -> None:
    async def main() -> set[Stream]:
        streams: set[Stream] = set()
        with pytest.raises(socket.gaierror):
            await dial(streams, "a" * 64 + ".test", 80)
        return streams

    assert run(main(), loop) == set()


@pytest.mark.parametrize("loop", sorted(LOOPS))
@pytest.mark.parametrize("host", ["no host", "localhost"])
def test_dial_canceled_before_the_resolver_ends_leaves_no_error(
    loop: str, host: str
) -> None:
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: reported.append(context))
        for _ in range(5):
            task = asyncio.create_task(dial(set(), host, 9))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        with contextlib.suppress(OSError):  # the threads of the resolver are done
            await asyncio.gather(*[running.getaddrinfo(host, 9) for _ in range(5)])
        await asyncio.sleep(0)
        gc.collect()

    run(main(), loop)
    assert reported == []


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_dial_name_with_refusing_addresses_raises_the_error(loop: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            await dial(set(), "localhost", port)

    run(main(), loop)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused by a:1"),
        (BrokenPipeError(errno.EPIPE, "x"), "connection closed by a:1"),
        (ConnectionAbortedError("handshake"), "connection closed by a:1"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "name not resolved: a:1"),
        (
            OSError(errno.EHOSTUNREACH, "x"),
            "connection to a:1 failed: no route to host",
        ),
        (
            OSError("Multiple exceptions: [Errno 111] x, [Errno 111] y"),
            "connection refused by a:1",
        ),
        (
            OSError("Multiple exceptions: [Errno 111] x, [Errno 101] y"),
            "connection to a:1 failed",
        ),
        (ssl.SSLError(), "tls with a:1 failed: protocol error"),
    ],
)
def test_describe_error_names_cause_and_address(error: OSError, text: str) -> None:
    assert describe_error(error, "a:1") == text


def test_stream_abort_after_close_with_pending_bytes_does_nothing() -> None:
    """asyncio's transport fails on an abort in this state."""

    async def main() -> None:
        served = asyncio.Event()

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            while await reader.read(1 << 16):
                pass
            writer.close()
            await writer.wait_closed()
            served.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            stream = await dial(set(), "127.0.0.1", port)
            stream.write(bytes(16 << 20))
            stream.transport.close()
            await stream.closed.wait()
            await served.wait()
            stream.abort()
        assert stream.at_eof

    run(main())
