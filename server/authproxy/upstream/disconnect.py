"""Waits for an upstream that end when the client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from authproxy_core.errors import ClientGone

from ..contract import DisconnectEvent


@contextlib.asynccontextmanager
async def timeout_unless_disconnected(
    disconnected: DisconnectEvent, seconds: float
) -> AsyncIterator[None]:
    """Limit a block to *seconds* (0: no limit), and to the time of the client.

    Raises TimeoutError, and `ClientGone` if the client disconnects.
    """
    try:
        async with asyncio.timeout(seconds or None) as deadline:
            watching = asyncio.create_task(_expire(disconnected, deadline))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        if disconnected.is_set():
            raise ClientGone("client disconnected") from None
        raise


async def _expire(disconnected: DisconnectEvent, deadline: asyncio.Timeout) -> None:
    await disconnected.wait()
    with contextlib.suppress(RuntimeError):  # the block has just ended
        deadline.reschedule(asyncio.get_running_loop().time())
