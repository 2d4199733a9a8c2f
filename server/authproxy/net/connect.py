"""TCP connections to host names."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any


async def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to *host*. Raises OSError, UnicodeError.

    The addresses are tried in turn. `create_connection` of uvloop is not used for this:
    if it is canceled before the resolver fails, the error is reported as unhandled.
    """
    loop = asyncio.get_running_loop()
    cause: tuple[int | str, ...] = (f"no address of {host!r}",)
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        try:
            return await _connect(socket.socket(family, kind, protocol), address)
        except OSError as one:  # with an address in its text, depending on the loop
            cause = one.errno or 0, os.strerror(one.errno or 0)
    raise OSError(*cause)


async def _connect(link: socket.socket, address: tuple[Any, ...]) -> socket.socket:
    try:
        link.setblocking(False)
        await asyncio.get_running_loop().sock_connect(link, address)
    except BaseException:
        link.close()
        raise
    return link
