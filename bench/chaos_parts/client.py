"""The HTTP client of a chaos run and of a soak."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass

from support.ports import LOOPBACK

HOST = "app.test"
TIMEOUT = 40.0  # seconds; longer than nginx waits


class CutError(Exception):
    """The connection was closed before the whole response."""


@dataclass
class Reply:
    """A response of nginx."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str:
        """Return the first field of a name, "" for none."""
        return next((value for key, value in self.fields if key == name), "")


class Pool:
    """Connections to nginx or the provider."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(
        self, method: str, target: str, cookie: str = "", body: bytes = b"", **how: str
    ) -> Reply:
        """Return a response; raises `CutError`, OSError or TimeoutError."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {how.get('host', HOST)}"]
        if cookie:
            lines.append(f"Cookie: {cookie}")
        if body:
            lines += [f"Content-Length: {len(body)}", f"Content-Type: {how['kind']}"]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        async with asyncio.timeout(TIMEOUT):
            while self._idle:
                reader, writer = self._idle.pop()
                if not reader.at_eof() and not writer.is_closing():
                    break
                writer.close()
            else:
                reader, writer = await asyncio.open_connection(
                    LOOPBACK, self._port, limit=1 << 18, ssl=self._tls
                )
            try:
                writer.write(head + body)
                reply, lasting = await self._read(reader)
            except BaseException:
                writer.transport.abort()
                raise
            if lasting:
                self._idle.append((reader, writer))
            else:
                writer.close()
            return reply

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[Reply, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            start, *lines = head.decode("latin-1").split("\r\n")
            fields = []
            for line in lines[:-2]:
                name, _, value = line.partition(":")
                fields.append((name.strip().lower(), value.strip()))
            known = dict(fields)
            body = b""
            if known.get("transfer-encoding") == "chunked":
                while size := int(await reader.readline(), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            elif "content-length" in known:
                body = await reader.readexactly(int(known["content-length"]))
            elif known.get("connection") == "close":
                body = await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise CutError(str(error)) from None
        return Reply(int(start.split(" ")[1]), fields, body), (
            known.get("connection") != "close"
        )
