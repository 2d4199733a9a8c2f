"""Outgoing connections that are given up."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import uvloop

from authproxy.dial import Stream, close_all, dial, dial_unix


class CancelsOnConnect(set[Stream]):
    """Cancels whoever is dialling as soon as the connection is made."""

    def __init__(self) -> None:
        super().__init__()
        self.dialling: asyncio.Task[Stream] | None = None

    def add(self, stream: Stream) -> None:
        super().add(stream)
        assert self.dialling is not None
        self.dialling.cancel()


@pytest.mark.parametrize("unix", [False, True])
def test_cancelled_when_connected(tmp_path: Path, unix: bool) -> None:
    async def main() -> None:
        streams = CancelsOnConnect()
        path = str(tmp_path / "socket")
        family = socket.AF_UNIX if unix else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind(path if unix else ("127.0.0.1", 0))
            listener.listen()
            port = 0 if unix else listener.getsockname()[1]
            wish = (
                dial_unix(streams, path) if unix else dial(streams, "127.0.0.1", port)
            )
            streams.dialling = asyncio.create_task(wish)
            with pytest.raises(asyncio.CancelledError):
                await streams.dialling
            async with asyncio.timeout(5):
                await close_all(streams)
        assert not streams

    uvloop.run(main())
