"""Wait for the first bytes of a connection without consuming them."""

from __future__ import annotations

import asyncio
import socket


async def peek(connection: socket.socket, size: int) -> bytes:
    """Return at most *size* available bytes, which stay readable; b"" at the end.

    Raises OSError.
    """
    while True:
        try:
            return connection.recv(size, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await wait_readable(connection)


async def wait_readable(connection: socket.socket) -> None:
    """Wait until *connection* has bytes, or has ended."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    descriptor = connection.fileno()
    loop.add_reader(descriptor, _wake, readable)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
