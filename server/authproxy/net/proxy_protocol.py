"""PROXY protocol, versions 1 and 2: the client's address from a load balancer.

The header is the first data on a connection, before TLS. It determines the address for
access rules, so it is read from trusted sources only, and is required from them. A
missing or malformed header ends the connection.
Specification: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
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

from .peek import peek

UNIX = "unix"  # in proxy_protocol_from: all peers on unix sockets
MAX_HEADER_BYTES = 4096  # bytes of a version 2 header with its extensions (TLVs)
MAX_V1_HEADER_BYTES = 107  # bytes, including CRLF
HEADER_TIMEOUT = 5.0  # seconds until the header must be complete

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD_BYTES = 16  # signature, command, family and length
LOCAL, PROXY = 0x20, 0x21
UNSPECIFIED, TCP4, TCP6 = 0x00, 0x11, 0x21
V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [\x21-\x7e ]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))\r\n"
)


class HeaderError(ValueError):
    """The PROXY protocol header is missing, malformed, or not for TCP."""


class ProxyHeader(NamedTuple):
    """A parsed header: its size in bytes, and the client's address and port.

    ``client`` is None if the peer itself is the client (a health check of the load
    balancer), or if the load balancer does not know the address.
    """

    size: int
    client: tuple[str, int] | None


class TrustedSources:
    """The peers that have to send the header: addresses, networks, or `UNIX`."""

    def __init__(self, entries: Iterable[str]) -> None:
        names = frozenset(entries)
        self._unix = UNIX in names
        self._addresses = AddressSet(names - {UNIX})

    def contains(self, connection: socket.socket) -> bool:
        """Return whether the peer of *connection* is a trusted source."""
        if connection.family == socket.AF_UNIX:
            return self._unix
        return str(connection.getpeername()[0]) in self._addresses


def parse_header(data: bytes) -> ProxyHeader | None:
    """Return the header at the start of *data*; None if more input is needed.

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
            raise HeaderError("PROXY protocol header: line too long")
        return None
    match = V1_LINE.fullmatch(data, 0, end + 2)
    if match is None:
        raise HeaderError("PROXY protocol header: malformed line")
    if match[1] is None:
        return ProxyHeader(end + 2, None)
    kind = ipaddress.IPv4Address if match[1] == b"4" else ipaddress.IPv6Address
    try:
        client, _ = kind(match[2].decode()), kind(match[3].decode())
    except ValueError:
        raise HeaderError("PROXY protocol header: invalid address") from None
    port, other = int(match[4]), int(match[5])
    if max(port, other) > 0xFFFF:
        raise HeaderError("PROXY protocol header: port above 65535")
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
        raise HeaderError("PROXY protocol header: unknown version or command")
    if size > MAX_HEADER_BYTES:
        raise HeaderError(f"PROXY protocol header: more than {MAX_HEADER_BYTES} bytes")
    if len(data) < size:
        return None
    if command == LOCAL or family == UNSPECIFIED:
        return ProxyHeader(size, None)
    if family not in (TCP4, TCP6):
        raise HeaderError("PROXY protocol header: not a TCP connection")
    width = 4 if family == TCP4 else 16
    if length < 2 * width + 4:
        raise HeaderError("PROXY protocol header: too short for the addresses")
    client = ipaddress.ip_address(data[V2_HEAD_BYTES : V2_HEAD_BYTES + width])
    [port] = struct.unpack_from("!H", data, V2_HEAD_BYTES + 2 * width)
    return ProxyHeader(size, (_format_address(client), port))


def _format_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return *address* as text; an IPv4-mapped address as IPv4, for comparisons."""
    mapped = None
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
    return str(mapped or address)


async def read_header(connection: socket.socket) -> ProxyHeader:
    """Read the header from *connection*, and no byte after it.

    Raises `HeaderError`, also if the peer closes the connection, OSError, TimeoutError.
    """
    received = b""
    async with asyncio.timeout(HEADER_TIMEOUT):
        while True:
            available = await peek(connection, MAX_HEADER_BYTES - len(received))
            if not available:
                raise HeaderError("connection closed before the PROXY protocol header")
            header = parse_header(received + available)
            # All bytes before the end of the header belong to it.
            size = len(available) if header is None else header.size - len(received)
            received += connection.recv(size)
            if header is not None:
                return header
