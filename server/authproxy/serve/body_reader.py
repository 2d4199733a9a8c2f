"""Collect a request body in memory, with a size limit and a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from authproxy_core.errors import BodyTooLarge, ClientGone


async def read_body(
    chunks: AsyncIterable[bytes],
    limit: int,
    length: int | None = None,
    timeout: float = 0.0,  # noqa: ASYNC109 - the timeout maps to ClientGone
) -> bytes:
    """Return the body that *chunks* yields, at most *limit* bytes.

    *length* is the announced size in bytes, None if unknown. The *timeout* in seconds
    (0: none) is for the whole body, so that a client can't stretch it byte by byte.
    Raises `BodyTooLarge`, or `ClientGone` after the timeout.
    """
    if length is not None and length > limit:
        raise BodyTooLarge(f"body has {length} bytes, allowed are {limit}")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout or None):
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge(f"body has more than {limit} bytes")
    except TimeoutError:
        raise ClientGone("timeout while receiving the request body") from None
    return bytes(body)
