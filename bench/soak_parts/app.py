"""Helper process: the upstream of a soak.

It reads any body, then responds with as many bytes as the path ``/NUMBER/...`` says. Its
header fields state the path, the identity and the size of the body that arrived. After an
upgrade it echoes all bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import uvloop

from support.ports import LOOPBACK
from websockets import SWITCHING

HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n"
    "X-Seen-Path: {}\r\nX-Seen-Email: {}\r\nX-Seen-Size: {}\r\n\r\n"
)
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def serve(reader: Reader, writer: Writer) -> None:
    """Serve one connection."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            start, *lines = head.split("\r\n")[:-2]
            pairs = (line.partition(":") for line in lines)
            fields = {name.lower(): value.strip() for name, _, value in pairs}
            if "upgrade" in fields:
                await echo(reader, writer)
                break
            received = await read_body(reader, fields)
            path = start.split(" ")[1]
            size = int(path.split("/")[1])
            email = fields.get("x-forwarded-email", "")
            writer.write(HEAD.format(size, path, email, received).encode())
            writer.write(bytes(size))
            await writer.drain()
    writer.close()


async def read_body(reader: Reader, fields: dict[str, str]) -> int:
    """Read a body; return its size."""
    if fields.get("transfer-encoding") != "chunked":
        return len(await reader.readexactly(int(fields.get("content-length", "0"))))
    total = 0
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
        total += size
    await reader.readline()
    return total


async def echo(reader: Reader, writer: Writer) -> None:
    """Switch protocols; return all bytes."""
    writer.write(SWITCHING)
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def main(port: int) -> None:
    """Serve until the process stops."""
    server = await asyncio.start_server(serve, LOOPBACK, port, limit=1 << 18)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
