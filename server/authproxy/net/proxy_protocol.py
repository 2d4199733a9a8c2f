"""The PROXY protocol, versions 1 and 2: who a load balancer has the connection from.

The header stands before everything else on a connection, TLS included. It decides which
address the rules see, so it is only read from peers that are named, and from these it
must be there: what can't be read in exactly one way is an error, and ends the connection.
(HAProxy's specification: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from authproxy_core.request.original import AddressSet

UNIX = "unix"  # in a list of addresses: peers on unix sockets
MAX_HEADER_BYTES = 4096  # bytes of a header with all its extras
MAX_V1_HEADER_BYTES = 107  # bytes, the line's end included
HEADER_TIMEOUT = 5.0  # seconds for the header to arrive

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD_BYTES = 16  # of version 2: signature, command, family, length
LOCAL, PROXY = 0x20, 0x21
UNSPECIFIED, TCP4, TCP6 = 0x00, 0x11, 0x21
V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [\x21-\x7e ]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))\r\n"
)


class HeaderError(ValueError):
    """What came is no header of the PROXY protocol, or not of a connection over TCP."""


class ProxyHeader(NamedTuple):
    """``size`` in bytes, and the client's address and port.

    None for the address: the balancer speaks for itself (a health check), or does not
    know; the peer is the client then.
    """

    size: int
    client: tuple[str, int] | None


class TrustedSources:
    """Who has to send the header: networks, addresses, or `UNIX`."""

    def __init__(self, entries: Iterable[str]) -> None:
        names = frozenset(entries)
        self._unix = UNIX in names
        self._addresses = AddressSet(names - {UNIX})

    def contains(self, connection: socket.socket) -> bool:
        """Whether the other side of *connection* is one of them."""
        if connection.family == socket.AF_UNIX:
            return self._unix
        return str(connection.getpeername()[0]) in self._addresses


def parse_header(data: bytes) -> ProxyHeader | None:
    """The header at the start of *data*, None when more of it is needed.

    Raises `HeaderError`.
    """
    if data[:1] == SIGNATURE[:1]:
        return _parse_v2(data)
    return _parse_v1(data)


def _parse_v1(data: bytes) -> ProxyHeader | None:
    start = b"PROXY "
    if not (data.startswith(start) or start.startswith(data)):
        raise HeaderError("expected a PROXY protocol header")
    end = data.find(b"\r\n", 0, MAX_V1_HEADER_BYTES)
    if end < 0:
        if len(data) >= MAX_V1_HEADER_BYTES:
            raise HeaderError("the header's line is too long")
        return None
    match = V1_LINE.fullmatch(data, 0, end + 2)
    if match is None:
        raise HeaderError("the header's line is malformed")
    if match[1] is None:
        return ProxyHeader(end + 2, None)
    kind = ipaddress.IPv4Address if match[1] == b"4" else ipaddress.IPv6Address
    try:
        client, _ = kind(match[2].decode()), kind(match[3].decode())
    except ValueError:
        raise HeaderError("the header has no address where one is due") from None
    port, other = int(match[4]), int(match[5])
    if max(port, other) > 0xFFFF:
        raise HeaderError("the header has a port that is too large")
    return ProxyHeader(end + 2, (_format_address(client), port))


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise HeaderError("expected a PROXY protocol header")
    if len(data) < V2_HEAD_BYTES:
        return None
    command, family, length = struct.unpack(
        "!BBH", data[len(SIGNATURE) : V2_HEAD_BYTES]
    )
    size = V2_HEAD_BYTES + length
    if command not in (LOCAL, PROXY):
        raise HeaderError("unknown version or command of the header")
    if size > MAX_HEADER_BYTES:
        raise HeaderError(f"the header is longer than {MAX_HEADER_BYTES} bytes")
    if len(data) < size:
        return None
    if command == LOCAL or family == UNSPECIFIED:
        return ProxyHeader(size, None)
    if family not in (TCP4, TCP6):
        raise HeaderError("the header is not about a connection over TCP")
    width = 4 if family == TCP4 else 16
    if length < 2 * width + 4:
        raise HeaderError("the header is too short for its addresses")
    client = ipaddress.ip_address(data[V2_HEAD_BYTES : V2_HEAD_BYTES + width])
    [port] = struct.unpack_from("!H", data, V2_HEAD_BYTES + 2 * width)
    return ProxyHeader(size, (_format_address(client), port))


def _format_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The address as text, IPv4 if it is IPv4-mapped: rules compare it."""
    mapped = None
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
    return str(mapped or address)


async def read_header(connection: socket.socket) -> ProxyHeader:
    """Read the header off *connection*, and not one byte more.

    Raises `HeaderError`, also when the other side ends; OSError; TimeoutError.
    """
    taken = b""
    async with asyncio.timeout(HEADER_TIMEOUT):
        while True:
            seen = await _peek(connection, MAX_HEADER_BYTES - len(taken))
            if not seen:
                raise HeaderError("the connection ended before its header")
            header = parse_header(taken + seen)
            # Until the header is whole, all that has come belongs to it.
            size = len(seen) if header is None else header.size - len(taken)
            taken += connection.recv(size)
            if header is not None:
                return header


async def _peek(connection: socket.socket, size: int) -> bytes:
    """What can be read without reading it; empty at the end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return connection.recv(size, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
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
